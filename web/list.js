/** The conversations: what is known of each, and the list of them, newest first. */

import { fill, h, portrait } from "./dom.js";
import { briefly, words } from "./words.js";

/** @import { Api, Conversation, ConversationsQuery, Message, User } from "./tandem.js" */

/**
 * A user as the page shows one; `address` is where their conversation is.
 *
 * @typedef {{ id: string, name: string, address: string }} Person
 */

/**
 * What is known of a conversation.
 *
 * @typedef {object} Entry
 * @property {Person} peer
 * @property {Message | null} last its newest message
 * @property {Conversation["unread"]} unread
 * @property {number} seen the `seq` up to which the user has seen it here
 * @property {number} received the `seq` up to which the peer has received it
 * @property {number} read the `seq` up to which the peer has read it
 * @property {boolean} typing
 * @property {boolean} [online]
 * @property {boolean} [blocked]
 */

/** @typedef {Entry & { last: Message }} Listed */

const PAGE = 50;
const COUNTED = 100; // unread messages are counted up to here

/**
 * A user, from any of the server's answers.
 *
 * @type {(user: User) => Person}
 */
export const person = ({ id, user_name, nick_name, nickname }) => ({
	id,
	name: nick_name || nickname || user_name || words.gone,
	address: `#${user_name ? encodeURIComponent(user_name) : `/${id}`}`,
});

/**
 * Orders as the server does: of two last messages of one millisecond that of the lower peer comes first.
 *
 * @type {(one: Listed, other: Listed) => number}
 */
const newestFirst = ({ peer: { id: a }, last: { time: at } }, { peer: { id: b }, last: { time: bt } }) =>
	bt - at || a.length - b.length || (a < b ? -1 : 1);

/**
 * Where the list goes on behind a conversation.
 *
 * @type {(entry: { peer: { id: string }, last: Message }) => ConversationsQuery}
 */
const cursor = ({ peer, last }) => ({ before: last.time, before_peer: peer.id });

/**
 * The list; `changed` is called with the conversations in it whenever something has changed.
 *
 * @param {{ api: Api, user: string, changed: (all: Listed[]) => void }} options
 */
export function conversations({ api, user, changed }) {
	/** @type {Map<string, Entry>} */
	const entries = new Map(); // by peer id
	/** @type {Map<string, { item: HTMLLIElement, link: HTMLAnchorElement }>} */
	const items = new Map(); // by peer id
	/** @type {string | undefined} */
	let current;
	let read = false; // whether the server has answered yet: before that, the list is not known to be empty
	let scheduled = false;

	function listed() {
		const all = [...entries.values()].filter(({ last }) => last);
		return /** @type {Listed[]} */ (all).sort(newestFirst);
	}

	const list = h("ul");
	const empty = h("p.quiet", { hidden: true }, words.nobodyYet);
	const more = h("button", { hidden: true, onclick: loadMore }, words.more);

	function loadMore() {
		const last = listed().at(-1);
		load(last && cursor(last)).catch(() => {});
	}

	/**
	 * The entry of a peer, made if there is none.
	 *
	 * @param {Person} peer
	 */
	function meet(peer) {
		/** @type {Entry} */
		const entry = entries.get(peer.id) ?? { peer, last: null, unread: 0, seen: 0, received: 0, read: 0, typing: false };
		entries.set(peer.id, entry);
		return entry;
	}

	/**
	 * Changes what is known of a conversation.
	 *
	 * @param {string} peer
	 * @param {Partial<Entry>} changes
	 */
	function update(peer, changes) {
		const entry = entries.get(peer);
		if (entry) Object.assign(entry, changes);
		schedule();
	}

	/**
	 * Takes a message; false if it tells that there is more to know than what is here.
	 *
	 * @param {string} peer
	 * @param {Message} message
	 */
	function came(peer, message) {
		const entry = entries.get(peer);
		if (!entry) return false;
		const { last } = entry;
		if (message.seq <= (last?.seq ?? 0)) return true;
		entry.last = message;
		const { unread } = entry;
		if (message.from === peer && message.seq > entry.seen && unread !== "100+" && unread < COUNTED)
			entry.unread = unread + 1;
		schedule();
		return entry.online || last?.from === message.from; // a peer who answers can be seen from then on
	}

	/**
	 * The user has seen a conversation up to `seq`; `left` messages behind it are unread.
	 *
	 * @param {string} peer
	 * @param {number} seq
	 * @param {number} left
	 */
	function seen(peer, seq, left) {
		const entry = entries.get(peer);
		if (!entry || seq <= entry.seen) return;
		update(peer, { seen: seq, unread: seq < (entry.last?.seq ?? 0) ? left : 0 });
	}

	/** Reads the list anew, as far down as it went and something has changed. */
	async function refresh() {
		let depth = listed().length;
		/** @type {ConversationsQuery | undefined} */
		let before;
		while ((before = await load(before)) && depth > PAGE) depth -= PAGE;
	}

	/**
	 * Reads a page; its end, if that was not known like this.
	 *
	 * @param {ConversationsQuery} [before] the end of the page before
	 */
	async function load(before) {
		const page = await api.conversations({ limit: PAGE, ...before });
		read = true;
		/** @type {Entry | undefined} */
		let entry;
		let news = false;
		for (const { peer, last, unread, received, read, online, blocked } of page) {
			entry = meet(person(peer));
			news = entry.last?.seq !== last.seq;
			Object.assign(entry, { peer: person(peer), online, blocked });
			entry.received = Math.max(entry.received, received);
			entry.read = Math.max(entry.read, read);
			if (last.seq < (entry.last?.seq ?? 0)) continue; // something came meanwhile
			entry.last = last;
			entry.unread = entry.seen < last.seq ? unread : 0;
		}
		if (!entry || entry === listed().at(-1)) more.hidden = page.length < PAGE;
		schedule();
		const end = page.at(-1);
		return news && end ? cursor(end) : undefined;
	}

	function schedule() {
		if (scheduled) return;
		scheduled = true;
		// Not by frames: there are none while the tab is hidden.
		setTimeout(() => {
			scheduled = false;
			show();
		});
	}

	function show() {
		const all = listed();
		empty.hidden = !read || all.length > 0;
		for (const [place, entry] of all.entries()) {
			const item = drawn(entry);
			if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
		}
		changed(all);
	}

	/** @param {Person} peer */
	function create(peer) {
		const link = h("a", { href: peer.address });
		const made = { item: h("li", link), link };
		items.set(peer.id, made);
		return made;
	}

	/** @param {Listed} entry */
	function drawn({ peer, last, unread, online, typing }) {
		const { item, link } = items.get(peer.id) ?? create(peer);
		const mine = last.from === user ? `${words.you}: ` : "";
		const text = typing ? words.typing : mine + last.content.slice(0, COUNTED);
		const state = [peer.name, text, briefly(last.time), unread, online, peer.id === current].join("\n");
		if (item.dataset.state === state) return item;
		item.dataset.state = state;
		link.ariaCurrent = String(peer.id === current);
		fill(
			link,
			portrait(peer, online),
			h("bdi.name", peer.name),
			online && h("span.hidden", `, ${words.online}`),
			h("time", { dateTime: new Date(last.time).toISOString() }, briefly(last.time)),
			h("span.last", { dir: "auto" }, text),
			unread && h("span.badge", String(unread), h("span.hidden", ` ${words.unread}`)),
		);
		return item;
	}

	return {
		element: h("div.list", empty, list, more),
		/** @param {string} peer */
		get: (peer) => entries.get(peer),
		/** @param {string} address */
		at: (address) => [...entries.values()].find(({ peer }) => peer.address === address),
		/** @param {string} [peer] */
		select: (peer) => {
			current = peer;
			schedule();
		},
		meet,
		update,
		came,
		seen,
		refresh,
	};
}
