/** The chat of a signed-in user: the list, the open conversation, and what comes from the server. */

import { composer } from "./composer.js";
import { fill, h, portrait, sign } from "./dom.js";
import { drafts } from "./drafts.js";
import { conversations, person } from "./list.js";
import { outbox } from "./outbox.js";
import { backoff, refusal, tandem } from "./tandem.js";
import { thread } from "./thread.js";
import { lang, words } from "./words.js";

/** @import { Entry, Listed } from "./list.js" */
/** @import { OutboxEvents } from "./outbox.js" */
/** @import { Api, Emitter, Tandem, TandemEvents, User } from "./tandem.js" */

/**
 * What one tab tells the others: that `reader` has seen a conversation up to `seq`.
 *
 * @typedef {{ reader: string, peer: string, seq: number, unread: number }} Seen
 */

/**
 * A way to the other tabs.
 *
 * @typedef {EventTarget & { postMessage: (seen: Seen) => void }} Tabs
 */

/**
 * @template Events
 * @typedef {{ [Type in keyof Events]?: (event: Events[Type]) => unknown }} Listeners
 */

/**
 * @template Details
 * @typedef {Listeners<{ [Type in keyof Details]: CustomEvent<Details[Type]> }>} CustomListeners
 */

const TYPES = 4000; // ms for which a peer is taken to be typing
const CALM = 1000; // ms of connecting before that is said
const SHOWN = 200; // characters of a message in a notification

/**
 * Adds listeners by the type of their event.
 *
 * @type {{
 *   (target: Tandem, listeners: CustomListeners<TandemEvents>): void,
 *   (target: Emitter<OutboxEvents>, listeners: CustomListeners<OutboxEvents>): void,
 *   (target: Tabs, listeners: { message: (event: MessageEvent<Seen>) => void }): void,
 *   (target: Window, listeners: Listeners<WindowEventMap>): void,
 *   (target: Document, listeners: Listeners<DocumentEventMap>): void,
 * }}
 */
const on = (/** @type {EventTarget} */ target, /** @type {object} */ listeners) => {
	for (const [type, listener] of /** @type {[string, EventListener][]} */ (Object.entries(listeners)))
		target.addEventListener(type, listener);
};

/**
 * A channel to the other tabs of this installation; one without others where the browser has none.
 *
 * @param {string} log
 * @returns {Tabs}
 */
function channel(log) {
	try {
		return new BroadcastChannel(`tandem ${log}`);
	} catch {
		return Object.assign(new EventTarget(), { postMessage: () => {} });
	}
}

/**
 * The page of `user`, who may write `most` characters at a time, at the installation with the id `log`.
 *
 * `inherit`: what earlier versions have kept in the browser is this user's. `notice` is said until there is more to say.
 *
 * @param {{ api: Api, user: User, most: number, log: string, inherit: boolean, notice: string }} options
 */
export function chat({ api, user, most, log, inherit, notice }) {
	const me = person(user);
	const store = outbox({ log, inherit });
	const client = tandem({ api, user: me.id, log, lang, outbox: store });
	const list = conversations({ api, user: me.id, changed: counted });
	const written = drafts({ log, user: me.id, inherit });
	const tabs = channel(log);
	/** @type {Map<string, number>} */
	const types = new Map(); // by peer: timers
	/** @type {Entry | undefined} */
	let entry; // of the open conversation
	/** @type {ReturnType<typeof thread> | undefined} */
	let open; // its thread
	/** @type {ReturnType<typeof composer> | undefined} */
	let form; // its composer
	let header = h("header"); // above it
	let leaving = false; // whether the user has been asked about pending messages
	/** @type {number | undefined} */
	let again; // the timer after which the list is read once more
	let failures = 0; // how often in a row it could not be read

	const state = h("p.state", { role: "status" });
	const problem = h("p.error", { role: "alert" }, notice);
	const news = h("p.hidden", { ariaLive: "polite" });
	const section = h("section");
	const label = { placeholder: words.find, ariaLabel: words.find };
	const name = h("input", { type: "search", required: true, maxLength: 15, autocomplete: "off", ...label });
	const find = h("form", { role: "search", onsubmit: found }, name, h("button", words.findGo));
	const contacts = h("nav", { ariaLabel: words.conversations }, list.element);
	const side = h("div.side", h("header", h("h1.hidden", "Tandem"), account()), state, find, problem, contacts);
	const element = h("main.chat", side, section, news);

	function account() {
		/** @type {HTMLElement} */
		const notify = h("button", { onclick: () => Notification.requestPermission().then(() => notify.remove()) });
		/** @type {HTMLElement} */
		const menu = h(
			"div.menu",
			{ popover: "auto", role: "group", ariaLabel: words.account, onclick: () => menu.hidePopover() },
			window.Notification?.permission === "default" && fill(notify, words.notify),
			h("button", { onclick: () => signOut(false) }, words.signOut),
			h("button", { onclick: () => signOut(true) }, words.everywhere),
		);
		const label = h("span.hidden", `, ${words.account}`);
		const whose = [portrait(me), h("bdi.name", me.name), label, sign("down")];
		return [h("button.account", { popoverTargetElement: menu }, whose), menu];
	}

	// What comes

	on(client, {
		state: ({ detail }) => {
			if (detail === "ended") leave("?ended");
			if (detail === "online") state.textContent = "";
			setTimeout(() => client.state === "connecting" && (state.textContent = words.connecting), CALM);
		},
		open: refresh,
		message: async ({ detail: { peer, message, live } }) => {
			if (isOpen(peer)) open?.add(message);
			if (message.from === peer) client.mark(peer, { received: message.seq });
			if (!list.came(peer, message)) await refresh();
			if (message.from !== peer) return;
			typing(peer, false);
			if (live) announce(peer, message.content.slice(0, SHOWN));
		},
		outbox: ({ detail: { item } }) => isOpen(item.peer) && open?.wait(item),
		positions: ({ detail: { peer, received, read } }) => {
			list.update(peer, { received, read });
			if (isOpen(peer)) open?.positions();
		},
		typing: ({ detail: { peer } }) => typing(peer, true),
		presence: ({ detail: { peer, online } }) => update(peer, { online }),
		reset: () => location.reload(),
	});
	on(store, {
		dropped: ({ detail }) => (problem.textContent = words.dropped(detail)),
	});
	on(tabs, {
		message: ({ data: { reader, peer, seq, unread } }) => reader === me.id && list.seen(peer, seq, unread),
	});
	on(window, {
		hashchange: route,
		online: () => client.wake(),
		focus: () => {
			open?.look();
			form?.follow();
		},
		storage: () => form?.follow(),
		pageshow: () => form?.follow(), // while the page was kept aside, it was told nothing
		beforeunload: (event) => !leaving && unkept().length && event.preventDefault(), // the browser asks
	});
	on(document, {
		visibilitychange: () => {
			if (document.hidden) return;
			client.wake();
			open?.look();
			if (client.state === "online") void refresh();
		},
	});

	/** @param {string} peer */
	const isOpen = (peer) => peer === entry?.peer.id;
	const unkept = () => client.pending().filter(({ kept }) => kept === false);

	async function refresh() {
		clearTimeout(again);
		try {
			await list.refresh();
			failures = 0;
		} catch (error) {
			clearTimeout(again);
			const pause = 1000 * refusal(error).retryAfter || backoff(failures++);
			if (client.state === "online") again = setTimeout(refresh, pause); // else the next connection does it
		}
		if (!entry) await route();
		else head();
		open?.positions();
		await open?.load();
	}

	/**
	 * @param {string} peer
	 * @param {string} text
	 */
	function announce(peer, text) {
		const from = list.get(peer)?.peer;
		if (!from) return;
		news.textContent = `${from.name}: ${text}`;
		if (!document.hidden || window.Notification?.permission !== "granted") return;
		try {
			new Notification(from.name, { body: text, tag: `tandem ${peer}` }).onclick = () => {
				window.focus();
				location.hash = from.address;
			};
		} catch {
			// some phones have none without a service worker
		}
	}

	/**
	 * @param {string} peer
	 * @param {boolean} now
	 */
	function typing(peer, now) {
		clearTimeout(types.get(peer));
		if (now) types.set(peer, setTimeout(() => typing(peer, false), TYPES));
		update(peer, { typing: now });
	}

	/**
	 * @param {string} peer
	 * @param {Partial<Entry>} changes
	 */
	function update(peer, changes) {
		list.update(peer, changes);
		if (isOpen(peer)) head();
	}

	/** @param {Listed[]} all */
	function counted(all) {
		let count = 0;
		for (const { peer, last, unread } of all.filter((each) => each.unread)) {
			count += parseInt(String(unread), 10);
			client.mark(peer.id, { received: last.seq }); // the list has it
		}
		document.title = count ? `(${count}) Tandem` : "Tandem";
	}

	// Where the user goes

	async function route() {
		const { hash } = location;
		if (entry?.peer.address === hash) return;
		const known = list.at(hash);
		if (known || hash.length < 2) show(known);
		else if (client.state === "online") await meet(new URLSearchParams(`name=${hash.slice(1)}`).get("name") ?? "");
	}

	/** @param {Event} event */
	async function found(event) {
		event.preventDefault();
		await meet(name.value.trim());
		if (!problem.textContent) name.value = "";
	}

	/**
	 * Opens the conversation with the user of a name, or says why not.
	 *
	 * @param {string} userName
	 */
	async function meet(userName) {
		const before = entry;
		problem.textContent = "";
		try {
			const peer = person(await api.find(userName));
			if (peer.id === me.id) problem.textContent = words.yourself;
			else if (entry === before) {
				// the user has not gone elsewhere meanwhile
				location.hash = list.meet(peer).peer.address;
				void route();
			}
		} catch (error) {
			const { code } = refusal(error);
			problem.textContent = code === 404 || code === 400 ? words.nobody(userName) : words.unavailable;
		}
	}

	/** @param {Entry} [next] */
	function show(next) {
		open?.close();
		open = form = undefined;
		entry = next;
		list.select(entry?.peer.id);
		element.classList.toggle("opened", Boolean(entry));
		fill(section);
		if (!entry) return;
		const { id } = entry.peer;
		/** @type {(seq: number, unread: number) => void} */
		const seen = (seq, unread) => {
			list.seen(id, seq, unread);
			tabs.postMessage({ reader: me.id, peer: id, seq, unread });
		};
		open = thread({ client, entry, seen });
		const draft = { read: () => written.read(id), write: (/** @type {string} */ text) => written.write(id, text) };
		form = composer({ draft, most, send: (text) => client.send(id, text), typing: () => client.typing(id) });
		header = h("header");
		fill(section, header, open.element, form.element);
		head();
		void open.load();
		if (matchMedia("(hover: hover)").matches) form.focus(); // no keyboard comes up
	}

	function head() {
		if (!entry) return;
		const { peer, online, typing, blocked } = entry;
		const state = [peer.name, online, typing, blocked].join();
		if (header.dataset.state === state) return; // whatever has the focus keeps it
		header.dataset.state = state;
		fill(
			header,
			h("a.back", { href: "#", ariaLabel: words.back }, sign("back")),
			portrait(peer, online),
			h("h2", h("bdi", peer.name)),
			h("span.quiet", typing ? words.typing : online && words.online),
			h("button", { onclick: () => block(peer.id, !blocked) }, blocked ? words.unblock : words.block),
		);
	}

	/**
	 * @param {string} peer
	 * @param {boolean} blocked
	 */
	async function block(peer, blocked) {
		await attempt(() => api.block(peer, blocked).then(() => update(peer, { blocked, online: false })));
		await refresh();
	}

	/** @param {boolean} everywhere */
	async function signOut(everywhere) {
		const waiting = client.pending().length;
		if (waiting && !confirm((unkept().length ? words.unkeptOut : words.waiting)(waiting))) return;
		client.stop(); // else it is told that it was signed out
		await attempt(async () => {
			await api.signOut(everywhere);
			written.clear(); // or the next to use this browser could read them
			leaving = true;
			leave("");
		});
		if (problem.textContent) client.start();
	}

	/** @param {() => Promise<void>} work */
	async function attempt(work) {
		problem.textContent = "";
		await work().catch(() => (problem.textContent = words.unavailable));
	}

	/**
	 * Begins anew, with nothing left of this user in the page.
	 *
	 * @param {string} query
	 */
	const leave = (query) => location.assign(location.pathname + query);

	client.start();
	void route();
	return element;
}
