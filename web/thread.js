/** The open conversation: its messages as bubbles, and where in them the reader is. */

import { fill, h, sign } from "./dom.js";
import { isEmoji, pieces } from "./text.js";
import { dayOf, fullTime, reason, sameDay, timeOfDay, words } from "./words.js";

/** @import { Entry } from "./list.js" */
/** @import { Item, Message, Page, Tandem } from "./tandem.js" */

/** @typedef {"stored" | "received" | "read"} Progress */

/**
 * A message on the page; one of the peer has no mark.
 *
 * @typedef {{ message: Message, item: HTMLLIElement, mark: Progress | "" }} Row
 */

const BLOCK = 50; // messages that are laid out, or left alone, together
const NEAR = 40; // pixels from the end that are the end
const EARLY = 1500; // pixels from the beginning at which older ones are asked for
const APART = 300_000; // ms after which the same sender begins anew
const CALM = 1000; // ms after which it is said that pending messages are not kept

const attentive = () => !document.hidden && document.hasFocus();

/**
 * A bubble: the text as it is, with links that can be followed, the time, and a mark.
 *
 * @param {{ content: string, time: number }} message
 * @param {Progress | "pending" | "failed" | ""} mark
 */
function bubble({ content, time }, mark) {
	const text = pieces(content).map(({ text, href, host }) => {
		if (!href) return text;
		const link = h("a", { href, target: "_blank", rel: "noopener noreferrer" }, text);
		if (host) link.dataset.host = host;
		return link;
	});
	const at = h("time", { dateTime: new Date(time).toISOString(), title: fullTime(time) }, timeOfDay(time));
	return h(
		"div.bubble",
		h("div", { className: isEmoji(content) ? "text emoji" : "text", dir: "auto" }, text),
		h("span.foot", at, mark && sign(mark, words[mark])),
	);
}

/**
 * The thread of an `entry` of the list; `seen` is told up to where it was read, and how many are left.
 *
 * @param {{ client: Tandem, entry: Entry, seen: (seq: number, left: number) => void }} options
 */
export function thread({ client, entry, seen }) {
	const { peer } = entry;
	/** @type {Row[]} */
	const rows = []; // ascending
	/** @type {Map<string, HTMLElement>} */
	const waiting = new Map(); // by id in the outbox
	/** @type {Map<number, Element>} */
	const visible = new Map(); // by seq: the peer's messages on the screen that were not read
	let complete = false;
	let reading = false;
	let loaded = false;
	let placed = false; // where reading goes on
	let divider = 0; // seq of the first message that was unread
	let readTo = 0;
	let missed = 0; // messages that came below what is shown
	let atEnd = true;
	let height = 0;

	const top = h("p.quiet", { role: "status" }, words.loading);
	const blocks = h("div");
	const outgoing = h("ol");
	const unkept = h("p.why", { role: "status" });
	const region = { tabIndex: 0, role: "region", ariaLabel: words.messages, onscroll: scrolled };
	const scroller = h("div.scroller", region, top, blocks, outgoing, unkept);
	const jump = h("button.jump.round", { hidden: true, onclick: toEnd });
	const sights = new IntersectionObserver(sighted, { root: scroller });
	const sizes = new ResizeObserver(resized);
	sizes.observe(scroller);
	client.pending(peer.id).forEach(wait);

	// Messages

	/** Reads the newest messages, back to the first unread one. */
	async function load() {
		if (placed || reading) return;
		await read(async () => {
			if (!loaded) {
				const news = entry.unread ? await client.unread(peer.id) : [];
				const page = await client.open(peer.id); // last: what comes from then on is added
				loaded = true;
				divider = news[0]?.seq ?? 0;
				readTo = divider ? divider - 1 : (entry.last?.seq ?? 0);
				entry.last = page.messages.at(-1) ?? entry.last;
				prepend(page);
			}
			while (divider && !complete && firstSeq() > divider) await older();
			placed = true;
		});
		const first = /** @type {HTMLElement | null} */ (blocks.querySelector(".divider"));
		if (first) scroller.scrollTop = first.offsetTop - scroller.clientHeight / 4;
		else toEnd();
		if (!placed) return;
		for (const item of blocks.querySelectorAll("[data-seq]")) sights.observe(item);
	}

	/** @param {() => Promise<unknown>} work */
	async function read(work) {
		reading = true;
		await work().catch(() => {}); // the connection is gone: asked again with the next, or when scrolling
		reading = false;
	}

	const firstSeq = () => rows[0]?.message.seq ?? 0;

	const older = async () => prepend(await client.before(peer.id, firstSeq()));

	/** @param {Page} page */
	function prepend(page) {
		complete = page.complete;
		const fresh = page.messages.filter(({ seq }) => !rows.length || seq < firstSeq()).map(row);
		const fromEnd = scroller.scrollHeight - scroller.scrollTop;
		rows.unshift(...fresh);
		for (let i = 0; i <= fresh.length && i < rows.length; i++) dress(i);
		for (let end = fresh.length; end > 0; end -= BLOCK) {
			const items = fresh.slice(Math.max(0, end - BLOCK), end).map(({ item }) => item);
			blocks.prepend(h("ol", items));
		}
		tellTop();
		settle();
		scroller.scrollTop = scroller.scrollHeight - fromEnd;
	}

	function tellTop() {
		top.textContent = !complete ? words.loading : rows.length ? "" : words.empty;
	}

	/**
	 * Adds a message at the end.
	 *
	 * @param {Message} message
	 */
	function add(message) {
		const stay = atEnd;
		if (!loaded || message.seq <= (rows.at(-1)?.message.seq ?? 0)) return;
		const mine = message.from !== peer.id;
		if (mine) divide(0);
		else if (!attentive() && divider <= readTo) divide(message.seq);
		let block = blocks.lastElementChild;
		if (!block || block.children.length >= BLOCK) block = blocks.appendChild(h("ol"));
		const added = row(message);
		rows.push(added);
		dress(rows.length - 1);
		block.append(added.item);
		settle();
		tellTop();
		if (!stay && !mine) missed++;
		if (stay) toEnd();
		else scrolled();
	}

	/**
	 * @param {Message} message
	 * @returns {Row}
	 */
	function row(message) {
		const mine = message.from !== peer.id;
		const mark = mine ? markOf(message) : "";
		const item = h("li", { className: mine ? "me" : "you" }, bubble(message, mark));
		if (!mine && message.seq > readTo) {
			item.dataset.seq = String(message.seq);
			if (placed) sights.observe(item);
		}
		return { message, item, mark };
	}

	/**
	 * What stands above a message depends on the one before it.
	 *
	 * @param {number} index in `rows`
	 */
	function dress(index) {
		const shown = rows[index];
		if (!shown) return;
		const { message, item } = shown;
		const before = rows[index - 1]?.message;
		const newDay = !before || !sameDay(before.time, message.time);
		const divided = message.seq === divider;
		const begins = newDay || divided || before.from !== message.from || message.time - before.time > APART;
		item.classList.toggle("begins", begins);
		fill(
			item,
			newDay && h("h3.day", dayOf(message.time)),
			divided && h("p.divider", words.newMessages),
			begins && h("span.hidden", message.from === peer.id ? peer.name : words.you),
			item.lastChild,
		);
	}

	/** @param {number} seq of the first message that is new; 0: none is */
	function divide(seq) {
		const old = rows.findIndex(({ message }) => message.seq === divider);
		divider = seq;
		if (old >= 0) dress(old);
	}

	/** Full blocks far from the screen are not laid out, since their height is known. */
	function settle() {
		for (const block of /** @type {Iterable<HTMLElement>} */ (blocks.children)) {
			if (block.className || (block === blocks.lastElementChild && block.children.length < BLOCK)) continue;
			block.style.containIntrinsicBlockSize = `auto ${block.getBoundingClientRect().height}px`;
			block.className = "settled";
		}
	}

	// Pending messages, and the peer's positions

	/**
	 * Shows an item of the outbox, and what can be done about one that has failed.
	 *
	 * @param {Item} item
	 */
	function wait(item) {
		const { id, state, code } = item;
		const why = () =>
			h(
				"div.why",
				{ role: "alert" },
				reason(code),
				h("button", { onclick: () => client.retry(id) }, words.again),
				h("button", { onclick: () => client.discard(id) }, words.discard),
			);
		if (item.kept === false) setTimeout(warn, CALM); // most are sent by then
		if (unkept.textContent) warn();
		if (waiting.get(id)?.classList.contains(state)) return;
		waiting.get(id)?.remove();
		waiting.delete(id);
		if (state === "gone" || rows.some(({ message }) => message.id === id)) return;
		const element = h("li", { className: `me begins ${state}` }, bubble(item, state), state === "failed" && why());
		waiting.set(id, element);
		outgoing.append(element);
		if (atEnd || state === "pending") toEnd();
	}

	/** Says whether something waits that would be lost with the page. */
	function warn() {
		const some = client.pending(peer.id).some(({ kept }) => kept === false);
		unkept.textContent = some ? words.unkept : "";
		if (some && atEnd) toEnd();
	}

	/** The peer's positions have moved. */
	function positions() {
		for (const each of rows) {
			const mark = each.mark && markOf(each.message);
			if (mark && mark !== each.mark) each.item.querySelector(".sign")?.replaceWith(sign(mark, words[mark]));
			each.mark = mark;
		}
	}

	/** @type {(message: Message) => Progress} */
	const markOf = ({ seq }) => (seq <= entry.read ? "read" : seq <= entry.received ? "received" : "stored");

	// Where the reader is

	function toEnd() {
		scroller.scrollTop = scroller.scrollHeight;
		scrolled();
	}

	function scrolled() {
		const { scrollTop, scrollHeight, clientHeight } = scroller;
		if (clientHeight !== height) return; // `resized` follows, and needs to know how it was
		atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
		if (atEnd) missed = 0;
		jump.hidden = atEnd;
		fill(jump, sign("down", words.jump), missed && h("span.badge", String(missed)));
		if (scrollTop < EARLY && loaded && !complete && !reading) void read(older);
	}

	function resized() {
		height = scroller.clientHeight;
		if (atEnd) toEnd();
		else scrolled();
	}

	/** @param {IntersectionObserverEntry[]} changes */
	function sighted(changes) {
		for (const { target, isIntersecting } of changes) {
			const seq = Number(/** @type {HTMLElement} */ (target).dataset.seq);
			if (isIntersecting) visible.set(seq, target);
			else visible.delete(seq);
		}
		look();
	}

	/** Takes what is on the screen as read, if the user looks. */
	function look() {
		const to = Math.max(0, ...visible.keys());
		if (!attentive() || to <= readTo) return;
		readTo = to;
		client.mark(peer.id, { read: to });
		for (const item of visible.values()) sights.unobserve(item);
		visible.clear();
		seen(to, rows.filter(({ message }) => message.seq > to && message.from === peer.id).length);
	}

	return {
		element: h("div.thread", scroller, jump),
		load,
		add,
		wait,
		positions,
		look,
		close: () => {
			sights.disconnect();
			sizes.disconnect();
		},
	};
}
