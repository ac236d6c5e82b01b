/** The conversations: what is known of each, and the list of them, newest first. */

import { fill, h, portrait } from "./dom.js";
import { briefly, words } from "./words.js";

const PAGE = 50;
const COUNTED = 100; // unread messages are counted up to here

/** A user, from any of the server's answers. */
export const person = ({ id, user_name, nick_name, nickname }) => ({
	id,
	name: nick_name || nickname || user_name || words.gone,
	address: `#${user_name ? encodeURIComponent(user_name) : `/${id}`}`,
});

/** Orders as the server does: of two last messages of one millisecond that of the lower peer comes first. */
const newestFirst = ({ peer: { id: a }, last: { time: at } }, { peer: { id: b }, last: { time: bt } }) =>
	bt - at || a.length - b.length || (a < b ? -1 : 1);

/** Where the list goes on behind a conversation. */
const cursor = ({ peer, last }) => ({ before: last.time, before_peer: peer.id });

/** The list; `changed` is called with the conversations in it whenever something has changed. */
export function conversations({ api, user, changed }) {
	const entries = new Map(); // by peer id
	const items = new Map(); // by peer id: elements
	let current = "";
	let scheduled = false;
	const listed = () => [...entries.values()].filter(({ last }) => last).sort(newestFirst);

	const list = h("ul");
	const empty = h("p.quiet", { hidden: true }, words.nobodyYet);
	const more = h(
		"button",
		{ hidden: true, onclick: () => load(cursor(listed().at(-1))).catch(() => {}) },
		words.more,
	);

	/** The entry of a peer, made if there is none. */
	function meet(peer) {
		const entry = entries.get(peer.id) ?? { peer, last: null, unread: 0, seen: 0, received: 0, read: 0, typing: false };
		entries.set(peer.id, entry);
		return entry;
	}

	/** Changes what is known of a conversation. */
	function update(peer, changes) {
		if (entries.has(peer)) Object.assign(entries.get(peer), changes);
		schedule();
	}

	/** Takes a message; false if it tells that there is more to know than what is here. */
	function came(peer, message) {
		const entry = entries.get(peer);
		if (!entry) return false;
		const { last } = entry;
		if (message.seq <= (last?.seq ?? 0)) return true;
		entry.last = message;
		if (message.from === peer && message.seq > entry.seen && entry.unread < COUNTED) entry.unread++;
		schedule();
		return entry.online || last?.from === message.from; // whoever answers can be seen from then on
	}

	/** The user has seen a conversation up to `seq`; `left` messages behind it are unread. */
	function seen(peer, seq, left) {
		const entry = entries.get(peer);
		if (!entry || seq <= entry.seen) return;
		update(peer, { seen: seq, unread: seq < (entry.last?.seq ?? 0) ? left : 0 });
	}

	/** Reads the list anew, as far down as it went and something has changed. */
	async function refresh() {
		let depth = listed().length;
		for (let before; (before = await load(before)) && depth > PAGE;) depth -= PAGE;
	}

	/** Reads a page; the time of its end, if that was not known like this. */
	async function load(before) {
		const page = await api.conversations({ limit: PAGE, ...before });
		let entry, news;
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
		return news && cursor(page.at(-1));
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
		empty.hidden = all.length > 0;
		for (const [place, entry] of all.entries()) {
			const item = drawn(entry);
			if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
		}
		changed(all);
	}

	function drawn({ peer, last, unread, online, typing }) {
		const item = items.get(peer.id) ?? h("li", h("a", { href: peer.address }));
		items.set(peer.id, item);
		const mine = last.from === user ? `${words.you}: ` : "";
		const text = typing ? words.typing : mine + last.content.slice(0, COUNTED);
		const state = [peer.name, text, briefly(last.time), unread, online, peer.id === current].join("\n");
		if (item.dataset.state === state) return item;
		item.dataset.state = state;
		item.firstChild.ariaCurrent = String(peer.id === current);
		fill(
			item.firstChild,
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
		get: (peer) => entries.get(peer),
		at: (address) => [...entries.values()].find(({ peer }) => peer.address === address),
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
