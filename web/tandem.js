/** A client of Tandem's dialect 2 without any DOM: see docs/client.md. */

const MESSAGE = 50001;
const SUCCESS = 50002;
const STORED = [50004, 50005];
const POSITIONS = 50007;
const TYPING = 50008;
const PRESENCE = 50009;
const PASSING = [40001, 429, 500]; // answers after which the same is tried again
const POLICY = 1008; // closes a socket whose token is no longer good
const TOO_BIG = 1009; // closes a socket with a frame that is too long

// In milliseconds. The server answers within 5 s; after three times as long the connection counts as dead.
const ANSWER = 15_000;
const QUIET = 60_000; // nothing heard: is the connection alive?
const SHORT = 5_000; // for a trial, between looks, until a connection is steady
const KEPT = 3_000; // for the outbox to answer, before it goes on without
const TYPING_EVERY = 1_000;
const BASE = 500;
const CAP = 30_000;

const PAGE = 100; // messages
const RESUMED = 200; // conversations in one request

/** Exponential back-off with full jitter: milliseconds before attempt `n`, counted from 0. */
export const backoff = (n) => Math.random() * Math.min(CAP, BASE * 2 ** n);

// Intervals are measured on a clock that is never set.
const clock = () => performance.now();

let last = 0; // when the last id was made

const hex = (number, digits) => number.toString(16).padStart(digits, "0");

/** When an id was made, in milliseconds, if it is a UUIDv7; else 0. */
const madeAt = (id) => (/^[\da-f]{8}-[\da-f]{4}-7/.test(id) ? parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : 0);

/** An id that rises with each call (UUIDv7, RFC 9562, section 5.7); no two have the same millisecond. */
export function newId() {
	last = Math.max(Date.now(), last + 1);
	const [version, variant, ...rest] = crypto.getRandomValues(new Uint16Array(5));
	const random = [0x7000 | (version & 0xfff), 0x8000 | (variant & 0x3fff), ...rest].map((part) => hex(part, 4));
	return (hex(last, 12) + random.join("")).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** What a server refused: an HTTP status or a code of the protocol; 0: it was not reached. */
export class TandemError extends Error {
	constructor(code, message, retryAfter = 0) {
		super(message);
		this.code = code;
		this.retryAfter = retryAfter; // seconds
	}
}

/** Parses an answer. The server's ids are numbers; they become strings, since JavaScript has none above 2^53 exactly. */
const parsed = (text) => JSON.parse(text.replace(/("id"\s*:\s*)(\d+)/g, '$1"$2"')); // in a string the quotes have slashes

const lostError = () => new TandemError(0, "not connected");

/** An outbox for as long as the program runs; `outbox.js` has one that lasts. */
export function memoryOutbox() {
	const items = new Map();
	return {
		/** A user's items, oldest first. */
		all: async (user) => [...items.values()].filter((item) => item.user === user),
		put: async (item) => void items.set(item.id, { ...item }),
		delete: async (id) => void items.delete(id),
	};
}

/** The server's HTTP, for the bearer of `token`, or of the page's cookie, or for `uid` where that is believed. */
export class Api {
	constructor({ url, token = "", uid = "" }) {
		Object.assign(this, { url: url.replace(/\/$/, ""), token, uid });
	}

	session = () => this.request("GET", "/session");
	register = (user_name, nick_name, password) =>
		this.request("POST", "/user/register", {}, { user_name, nick_name, password });
	signIn = (user_name, password) => this.request("POST", "/user/login", {}, { user_name, password });
	signOut = (everywhere = false) =>
		this.request("POST", `/user/logout${everywhere ? "/everywhere" : ""}`).catch((error) => {
			if (error.code !== 401) throw error;
		});
	conversations = (query = {}) => this.request("GET", "/conversations", query);
	find = (user_name) => this.request("GET", "/users", { user_name });
	block = (peer, on) => this.request(on ? "PUT" : "DELETE", `/user/blocks/${peer}`);

	/** Where a socket with all of the user's conversations can be opened. */
	async socket(lang) {
		const query = new URLSearchParams({ v: "2", lang });
		if (this.uid) query.set("uid", this.uid);
		if (this.token) query.set("ticket", (await this.request("POST", "/ws/ticket")).ticket);
		return `${this.url.replace(/^http/, "ws")}/ws?${query}`;
	}

	/** The data of an answer. Throws a TandemError. */
	async request(method, path, query = {}, body = undefined) {
		const all = new URLSearchParams(this.uid ? { ...query, uid: this.uid } : query);
		const headers = body ? { "Content-Type": "application/json" } : {};
		if (this.token) headers.Authorization = `Bearer ${this.token}`;
		const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(ANSWER) };
		let response, answer;
		try {
			response = await fetch(`${this.url}${path}?${all}`, options);
			answer = parsed(await response.text());
		} catch (error) {
			throw new TandemError(0, String(error));
		}
		if (response.ok) return answer.data;
		throw new TandemError(response.status, answer.error, Number(response.headers.get("Retry-After")));
	}
}

/**
 * The connection of a `user`, and what has to outlive it: an EventTarget with the methods named at the end.
 *
 * `log` is the installation's id, which a session tells; without it, that of the first connection counts.
 */
export function tandem({ api, user: who, log = "", lang = "zh", outbox = memoryOutbox() }) {
	const user = String(who);
	const events = new EventTarget();
	const asked = new Map(); // by request id: { resolve, reject, timer }
	const chats = new Map(); // by peer: { held, busy, aside: what comes until a read is answered }
	const items = new Map(); // by id: what waits or has failed
	const lanes = new Map(); // by peer: { queue, busy, timer, attempts }
	const positions = new Map(); // by peer: { received, read, told, busy }
	const typed = new Map(); // by peer: when that was last told, by the clock
	let socket = null;
	let opened = 0; // when, by the clock; 0: it is not open
	let heard = 0; // when the last frame came, by the clock
	let ahead = 0; // what the time of day is ahead of the clock
	let slow = false; // whether the outbox was late with its last answer
	let failures = 0;
	let requests = 0;
	let looking;
	let retrying;
	let late;

	/** What is not acknowledged, in the order of sending; of one peer or of all. */
	const pending = (peer) => [...items.values()].filter((item) => !peer || item.peer === peer);

	// Its life

	/** Connects, and stays connected until `stop`, or for as long as the token is good. */
	function start() {
		end("connecting");
		ahead = Date.now() - clock();
		looking = setInterval(look, SHORT);
		connect();
	}

	/** Wakes where nothing was heard for long, or where the machine has slept: the clock may stand still then. */
	function look() {
		const now = Date.now() - clock();
		const slept = now - ahead > SHORT;
		ahead = now;
		if (slept || (opened && clock() - heard > QUIET)) wake();
	}

	/** Disconnects. What waits in the outbox stays there. */
	const stop = () => end("stopped");

	/** Looks whether the connection is alive, and for what other programs left in the outbox. */
	function wake() {
		if (opened) ask({ type: 6, after: {} }, SHORT).then(loadOutbox, () => {});
		else if (retrying) connect();
	}

	function end(next) {
		clearInterval(looking);
		retrying = clearTimeout(retrying);
		drop();
		say(next);
	}

	async function connect() {
		retrying = clearTimeout(retrying);
		let mine = (socket = {}); // stands in while a ticket is fetched
		const current = (work) => (event) => mine === socket && work(event);
		late = setTimeout(() => lost(false), ANSWER);
		try {
			const url = await api.socket(lang);
			if (mine !== socket) return;
			mine = socket = new WebSocket(url);
		} catch (error) {
			if (mine === socket) lost(error.code > 0);
			return;
		}
		mine.onmessage = current(({ data }) => (opened ? take : greeted)(JSON.parse(data)));
		mine.onerror = () => {}; // a close follows
		mine.onclose = current(({ code }) => {
			for (const { queue, busy } of lanes.values()) if (code === TOO_BIG && busy) refuse(queue[0], 400);
			lost(code === POLICY || !opened);
		});
	}

	/** Begins once the server has said who it is. What waits for one installation is never sent to another. */
	function greeted({ code, log: theirs }) {
		if (code !== SUCCESS) return; // a server that is about to end says that first
		clearTimeout(late);
		log ||= theirs ?? "";
		if (theirs && theirs !== log) return end("ended");
		opened = heard = clock();
		say("online");
		catchUp();
		loadOutbox();
		for (const peer of positions.keys()) tellMarks(peer);
		emit("open");
	}

	/** The connection is gone; `doubtful`: perhaps because we may no longer come in, which no browser tells. */
	async function lost(doubtful) {
		if (opened && clock() - opened > SHORT) failures = 0;
		drop();
		say("connecting");
		retrying = setTimeout(() => connect(), backoff(failures++));
		if (!doubtful) return;
		const session = await api.session().catch(() => null);
		const another = session && (String(session.user?.id) !== user || (log && session.log && session.log !== log));
		if (another && events.state === "connecting") end("ended");
	}

	/** Lets go of the socket without waiting for it, since a dead one takes a minute to close. */
	function drop() {
		clearTimeout(late);
		opened = 0;
		const old = socket;
		socket = null; // first: Node ends within `close`
		old?.close?.();
		for (const { reject, timer } of asked.values()) {
			clearTimeout(timer);
			reject(lostError());
		}
		asked.clear();
		for (const lane of lanes.values()) free(lane);
		for (const marks of positions.values()) marks.busy = false;
	}

	// Frames

	function write(frame) {
		socket.send(JSON.stringify(frame));
	}

	function ask(frame, timeout = ANSWER) {
		return new Promise((resolve, reject) => {
			if (!opened) throw lostError();
			const id = `r${++requests}`;
			asked.set(id, { resolve, reject, timer: setTimeout(() => lost(false), timeout) });
			write({ ...frame, id });
		});
	}

	/** Asks until there is an answer, for as long as this connection lasts. Throws what will not pass. */
	async function insist(frame) {
		const mine = socket;
		for (let attempts = 1; ; attempts++) {
			try {
				return await ask(frame);
			} catch (error) {
				if (!PASSING.includes(error.code)) throw error;
				await new Promise((done) => setTimeout(done, 1000 * error.retryAfter || backoff(attempts)));
				if (mine !== socket) throw lostError();
			}
		}
	}

	function take(frame) {
		heard = clock();
		const { code, id, from: peer, received, read, online } = frame;
		const item = items.get(id);
		const request = asked.get(id);
		if (code === MESSAGE) came(frame);
		else if (code === POSITIONS) emit("positions", { peer, received, read });
		else if (code === TYPING) emit("typing", { peer });
		else if (code === PRESENCE) emit("presence", { peer, online });
		else if (item) answered(item, frame);
		else if (request) {
			asked.delete(id);
			clearTimeout(request.timer);
			if (code === SUCCESS) request.resolve(frame);
			else request.reject(new TandemError(code, frame.content, frame.retry_after));
		}
	}

	// Messages in

	/** The newest messages of a conversation, `{ messages, complete }`; from then on all further ones are events. */
	async function open(peer, limit = 50) {
		const chat = { held: 0, busy: true, aside: [] };
		chats.set(peer, chat);
		try {
			const { messages, complete } = await insist({ type: 2, to: peer, limit });
			chat.held = messages.at(-1)?.seq ?? 0;
			messages.push(...setAside(chat));
			chat.held = messages.at(-1)?.seq ?? 0;
			for (const message of messages) seen(message);
			return { messages, complete };
		} catch (error) {
			if (chats.get(peer) === chat) chats.delete(peer);
			throw error;
		}
	}

	/** Messages before a `seq`, ascending; `complete`: there are none before these. */
	const before = (peer, seq, limit = 50) => insist({ type: 2, to: peer, before: seq, limit });

	/** The peer's first messages that were not read, at most 100. */
	async function unread(peer) {
		return (await insist({ type: 3, to: peer })).messages;
	}

	function came({ seq, time, from, to, content, id }) {
		const peer = from === user ? to : from;
		const message = { seq, time, from, to, content, id };
		const chat = chats.get(peer);
		if (chat && seq > chat.held + 1 && !chat.busy) {
			chat.busy = true;
			fill(peer, chat).catch(() => {}); // the connection is gone: resuming does it
		}
		if (chat?.busy) chat.aside.push(message);
		else show(message, true);
	}

	function show(message, live) {
		const peer = message.from === user ? message.to : message.from;
		const chat = chats.get(peer);
		seen(message);
		if (chat && message.seq <= chat.held) return;
		if (chat) chat.held = message.seq;
		emit("message", { peer, message, live });
	}

	/** One of our own that came otherwise than as an acknowledgement is out of the outbox as well. */
	function seen(message) {
		const item = message.from === user && items.get(message.id);
		if (item) forget(item);
	}

	/** What was set aside while a conversation was not in step, as far as it is not held; now it is in step. */
	function setAside(chat) {
		const kept = new Map(chat.aside.filter(({ seq }) => seq > chat.held).map((message) => [message.seq, message]));
		chat.aside = [];
		chat.busy = false;
		return [...kept.values()].sort((a, b) => a.seq - b.seq);
	}

	/** Asks for all that is missing in each conversation that was opened. */
	function catchUp() {
		const peers = [...chats.keys()];
		for (const chat of chats.values()) chat.busy = true;
		for (let i = 0; i < peers.length; i += RESUMED) resume(peers.slice(i, i + RESUMED)).catch(() => {});
	}

	async function resume(peers) {
		const chat = Object.fromEntries(peers.map((peer) => [peer, chats.get(peer)]));
		const after = Object.fromEntries(peers.map((peer) => [peer, chat[peer].held]));
		try {
			const { messages, more } = await insist({ type: 6, after });
			for (const message of messages) show(message, false);
			await Promise.all(peers.map((peer) => fill(peer, chat[peer], !more?.includes(peer))));
		} catch (error) {
			if (!error.code) throw error;
			for (const peer of peers) chats.delete(peer);
			emit("reset", { peers });
		}
	}

	/** Reads what is missing behind what is held, until it is `complete`, or refused. */
	async function fill(peer, chat, complete = false) {
		while (!complete && chat === chats.get(peer)) {
			const page = await insist({ type: 2, to: peer, after: chat.held, limit: PAGE }).catch((error) => {
				if (!error.code) throw error;
				return { messages: [], complete: true };
			});
			for (const message of page.messages) show(message, false);
			complete = page.complete;
		}
		if (chat === chats.get(peer)) for (const message of setAside(chat)) show(message, true); // else it is opened anew
	}

	// Messages out

	/** Sends a message, now or as soon as it can be; the item that stands for it until it is stored. */
	function send(peer, content) {
		const item = { id: newId(), user, peer, content: content.toWellFormed(), time: Date.now(), state: "pending" };
		put(item);
		return item;
	}

	/** Tries once more what has failed. */
	function retry(id) {
		const item = items.get(id);
		if (item?.state !== "failed") return;
		items.delete(id);
		put({ ...item, state: "pending", code: undefined });
	}

	/** Gives up what has failed. */
	function discard(id) {
		const item = items.get(id);
		if (item?.state === "failed") forget(item);
	}

	function put(item) {
		items.set(item.id, item);
		emit("outbox", { item });
		const kept = keep(item);
		turn = turn.then(() => kept).then(() => items.get(item.id) === item && queue(item)); // else it is stored already
	}

	/**
	 * Keeps an item in the outbox, as it is now. Where that fails or is late, the message is sent all the same; as long as
	 * it is in this program alone, the item says so: `kept` is false.
	 */
	function keep(item) {
		const { kept: _, ...now } = item;
		const tell = (kept) => {
			if (kept === (item.kept ?? true)) return;
			item.kept = kept;
			if (items.get(item.id) === item) emit("outbox", { item });
		};
		const putting = outbox.put(now);
		putting.then(() => tell(true), () => {});
		return soon(putting).catch(() => tell(false));
	}

	/** What the outbox promises, if it does not take too long; one that was late is not waited for again. */
	function soon(promise) {
		return new Promise((resolve, reject) => {
			const giveUp = () => {
				slow = true;
				reject(new Error("the outbox does not answer"));
			};
			const timer = setTimeout(giveUp, slow ? 0 : KEPT);
			const done = (settle) => (result) => {
				clearTimeout(timer);
				slow = false;
				settle(result);
			};
			promise.then(done(resolve), done(reject));
		});
	}

	function queue(item) {
		if (!lanes.has(item.peer)) lanes.set(item.peer, { queue: [], busy: false, timer: 0, attempts: 0 });
		lanes.get(item.peer).queue.push(item);
		pump(item.peer);
	}

	/** Takes over what this program left before it ended, or another one with the same outbox. */
	async function loadOutbox() {
		const left = outbox.all(user).then((all) => {
			for (const item of all) {
				last = Math.max(last, madeAt(item.id)); // what is written from now on is sent behind it
				if (items.has(item.id)) continue;
				items.set(item.id, item);
				emit("outbox", { item });
				if (item.state === "pending") queue(item);
			}
		});
		await soon(left).catch(() => {});
		for (const peer of lanes.keys()) pump(peer);
	}

	function pump(peer) {
		const lane = lanes.get(peer);
		const item = lane.queue[0];
		if (!item || lane.busy || !opened) return;
		lane.busy = true;
		lane.timer = setTimeout(() => lost(false), ANSWER);
		write({ type: 1, id: item.id, to: peer, content: item.content });
	}

	function free(lane) {
		clearTimeout(lane.timer);
		lane.busy = false;
	}

	function answered(item, { code, seq, time, retry_after }) {
		const { id, peer, content } = item;
		const lane = lanes.get(peer);
		if (STORED.includes(code)) {
			unqueue(item);
			came({ seq, time, from: user, to: peer, content, id });
		} else if (PASSING.includes(code)) {
			const again = () => {
				free(lane);
				pump(peer);
			};
			clearTimeout(lane.timer);
			lane.timer = setTimeout(again, 1000 * retry_after || backoff(++lane.attempts));
		} else refuse(item, code);
	}

	function refuse(item, code) {
		Object.assign(item, { state: "failed", code });
		unqueue(item);
		keep(item);
		emit("outbox", { item });
	}

	function forget(item) {
		items.delete(item.id);
		outbox.delete(item.id).catch(() => {});
		unqueue(item);
		emit("outbox", { item: { ...item, state: "gone" } });
	}

	function unqueue(item) {
		const lane = lanes.get(item.peer);
		const place = lane?.queue.indexOf(item) ?? -1;
		if (place >= 0) lane.queue.splice(place, 1);
		if (place) return;
		lane.attempts = 0;
		free(lane);
		pump(item.peer);
	}

	// What else there is to tell

	/** Says up to which `seq` the peer's messages were received or read, and says it again until it is known. */
	function mark(peer, { received = 0, read = 0 }) {
		const marks = positions.get(peer) ?? { received: 0, read: 0, told: "", busy: false };
		marks.received = Math.max(marks.received, received, read);
		marks.read = Math.max(marks.read, read);
		positions.set(peer, marks);
		tellMarks(peer);
	}

	async function tellMarks(peer) {
		const marks = positions.get(peer);
		const { received, read } = marks;
		const told = `${received} ${read}`;
		if (marks.busy || !opened || marks.told === told) return;
		marks.busy = true;
		try {
			await insist({ type: 4, to: peer, received, read });
		} catch (error) {
			if (!error.code) return; // the connection is gone: told after the next opening
		}
		marks.told = told;
		marks.busy = false;
		tellMarks(peer);
	}

	/** Tells the peer that the user is typing, once a second at most. */
	function typing(peer) {
		const now = clock();
		if (!opened || now - (typed.get(peer) ?? -TYPING_EVERY) < TYPING_EVERY) return;
		typed.set(peer, now);
		write({ type: 5, to: peer });
	}

	function say(next) {
		if (next === events.state) return;
		events.state = next;
		emit("state", next);
	}

	function emit(type, detail) {
		events.dispatchEvent(new CustomEvent(type, { detail }));
	}

	outbox.addEventListener?.("lost", () => items.forEach(keep)); // what it had is perhaps gone
	let turn = loadOutbox(); // what was left goes first
	// Who has a peer's id as a number is understood as well.
	const named = (method) => (peer, ...rest) => method(String(peer), ...rest);
	const byPeer = { open: named(open), before: named(before), unread: named(unread), send: named(send) };
	const methods = { start, stop, wake, pending, retry, discard, ...byPeer, mark: named(mark), typing: named(typing) };
	return Object.assign(events, { user, state: "stopped", ...methods });
}
