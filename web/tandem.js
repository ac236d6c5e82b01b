/** A client of Tandem's protocol v2 without any DOM: see docs/client.md. */

/**
 * A user as the server describes one. Only an answer about an account has `nickname`, which repeats `nick_name`.
 *
 * @typedef {object} User
 * @property {string} id
 * @property {string} user_name empty if the account is gone
 * @property {string} nick_name
 * @property {string} [nickname]
 * @property {string} [avatar]
 */

/**
 * The answer of `session()`.
 *
 * @typedef {object} Session
 * @property {"local" | "open" | "token"} auth how the server knows who sends a request
 * @property {User | null} user who sent this one
 * @property {User[]} users from whom a page can offer to choose where `uid` is believed
 * @property {number} max_content characters that a message can have
 * @property {string} log the id of the installation's messages
 * @property {boolean} registration whether users can register
 */

/**
 * The answer of `signIn()`.
 *
 * @typedef {object} SignedIn
 * @property {User} user
 * @property {string | null} token null where tokens are issued elsewhere
 */

/**
 * A message that is stored.
 *
 * @typedef {object} Message
 * @property {number} seq its number in the conversation, from 1
 * @property {number} time milliseconds since the epoch
 * @property {string} from a user's id
 * @property {string} to a user's id
 * @property {string} content
 * @property {string} [id] what its sender has called it
 */

/**
 * Messages of a conversation, ascending. `complete`: there are no more in the direction that was asked for.
 *
 * @typedef {{ messages: Message[], complete: boolean }} Page
 */

/**
 * An entry of the answer of `conversations()`.
 *
 * @typedef {object} Conversation
 * @property {User} peer
 * @property {Message} last its newest message, or the first 256 characters of it
 * @property {number | "100+"} unread messages of the peer
 * @property {number} received the `seq` up to which the peer has received the conversation
 * @property {number} read the `seq` up to which the peer has read it
 * @property {boolean} online
 * @property {boolean} blocked whether the user has blocked the peer
 */

/**
 * Where a page of `conversations()` begins, and how many entries it has at most.
 *
 * @typedef {{ before?: number, before_peer?: string, limit?: number }} ConversationsQuery
 */

/**
 * A message of the user's own that is not acknowledged yet.
 *
 * @typedef {object} Item
 * @property {string} id
 * @property {string} user
 * @property {string} peer
 * @property {string} content
 * @property {number} time when it was written, in milliseconds since the epoch
 * @property {"pending" | "failed" | "gone"} state "gone": it is stored, or discarded
 * @property {number} [code] why it has failed
 * @property {boolean} [kept] false while it is in this program alone; undefined until the outbox has failed once
 */

/**
 * Where items are kept. One that is an EventTarget tells by the event "lost" that it has lost them.
 *
 * @typedef {object} Outbox
 * @property {(user: string) => Promise<Item[]>} all a user's items, oldest first
 * @property {(item: Item) => Promise<unknown>} put
 * @property {(id: string) => Promise<unknown>} delete
 * @property {(type: "lost", listener: () => void) => void} [addEventListener]
 */

/** @typedef {"connecting" | "online" | "stopped" | "ended"} State */

/**
 * The events of a client, and what each has as its `detail`.
 *
 * @typedef {object} TandemEvents
 * @property {State} state
 * @property {undefined} open
 * @property {{ peer: string, message: Message, live: boolean }} message
 * @property {{ item: Item }} outbox
 * @property {{ peer: string, received: number, read: number }} positions
 * @property {{ peer: string }} typing
 * @property {{ peer: string, online: boolean }} presence
 * @property {{ peers: string[] }} reset
 */

/**
 * An EventTarget whose events have the details of `Events`.
 *
 * @template Events
 * @typedef {{
 *   addEventListener<Type extends keyof Events>(
 *     type: Type,
 *     listener: (event: CustomEvent<Events[Type]>) => void,
 *     options?: AddEventListenerOptions,
 *   ): void,
 * } & EventTarget} Emitter
 */

/**
 * What `tandem()` returns; docs/client.md explains the methods.
 *
 * @typedef {object} Methods
 * @property {string} user
 * @property {State} state
 * @property {() => void} start
 * @property {() => void} stop
 * @property {() => void} wake
 * @property {(peer?: string) => Item[]} pending
 * @property {(id: string) => void} retry
 * @property {(id: string) => void} discard
 * @property {(peer: string | number, limit?: number) => Promise<Page>} open
 * @property {(peer: string | number, seq: number, limit?: number) => Promise<Page>} before
 * @property {(peer: string | number) => Promise<Message[]>} unread
 * @property {(peer: string | number, content: string) => Item} send
 * @property {(peer: string | number, marks: { received?: number, read?: number }) => void} mark
 * @property {(peer: string | number) => void} typing
 */

/** @typedef {Emitter<TandemEvents> & Methods} Tandem */

/**
 * What the server sends. A frame has those of the keys that docs/protocol.md names for its code and request.
 *
 * @typedef {Message & Page & { received: number, read: number, online: boolean, code: number }
 *   & { log?: string, more?: string[], retry_after?: number }} Frame
 */

/** @typedef {ReturnType<typeof setTimeout>} Timer */

/**
 * A conversation that was opened. `held` is the `seq` up to which its messages are known; while it is `busy` what comes
 * is set `aside`.
 *
 * @typedef {{ held: number, busy: boolean, aside: Message[] }} Chat
 */

/**
 * What is to be sent to a peer: the first item of `queue` is on its way while it is `busy`.
 *
 * @typedef {{ queue: Item[], busy: boolean, timer: Timer | undefined, attempts: number }} Lane
 */

/**
 * How far the user is, and what of that the server was told last.
 *
 * @typedef {{ received: number, read: number, told: string, busy: boolean }} Marks
 */

/** @typedef {{ resolve: (frame: Frame) => void, reject: (error: unknown) => void, timer: Timer }} Request */

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

/**
 * Exponential back-off with full jitter: milliseconds before attempt `n`, counted from 0.
 *
 * @param {number} n
 */
export const backoff = (n) => Math.random() * Math.min(CAP, BASE * 2 ** n);

// Intervals are measured on a clock that is never set.
const clock = () => performance.now();

let last = 0; // when the last id was made

/** @type {(number: number, digits: number) => string} */
const hex = (number, digits) => number.toString(16).padStart(digits, "0");

/**
 * When an id was made, in milliseconds, if it is a UUIDv7; else 0.
 *
 * @param {string} id
 */
const madeAt = (id) => (/^[\da-f]{8}-[\da-f]{4}-7/.test(id) ? parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : 0);

/** An id that rises with each call (UUIDv7, RFC 9562, section 5.7); no two have the same millisecond. */
export function newId() {
	last = Math.max(Date.now(), last + 1);
	const [version = 0, variant = 0, ...rest] = crypto.getRandomValues(new Uint16Array(5));
	const random = [0x7000 | (version & 0xfff), 0x8000 | (variant & 0x3fff), ...rest].map((part) => hex(part, 4));
	return (hex(last, 12) + random.join("")).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** What a server refused: an HTTP status or a code of the protocol; 0: it was not reached. */
export class TandemError extends Error {
	/**
	 * @param {number} code
	 * @param {string} message
	 */
	constructor(code, message, retryAfter = 0) {
		super(message);
		this.code = code;
		this.retryAfter = retryAfter; // seconds
	}
}

/**
 * What an error says of a refusal; code 0 if it is not about one.
 *
 * @param {unknown} error
 */
export function refusal(error) {
	const { code = 0, message = "", retryAfter = 0 } = /** @type {Partial<TandemError>} */ (error);
	return { code, message, retryAfter };
}

/**
 * Parses an answer. The server's ids are numbers; they become strings, since JavaScript has none above 2^53 exactly.
 *
 * @type {(text: string) => { data: unknown, error: string }}
 */
const parsed = (text) => JSON.parse(text.replace(/("id"\s*:\s*)(\d+)/g, '$1"$2"')); // in a string the quotes have slashes

const lostError = () => new TandemError(0, "not connected");

/**
 * An outbox for as long as the program runs; `outbox.js` has one that lasts.
 *
 * @returns {Outbox}
 */
export function memoryOutbox() {
	/** @type {Map<string, Item>} */
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
	/** @param {{ url: string, token?: string | null, uid?: string }} options */
	constructor({ url, token = "", uid = "" }) {
		this.url = url.replace(/\/$/, "");
		/** @type {string | null} */
		this.token = token;
		this.uid = uid;
	}

	/** @returns {Promise<Session>} */
	session = () => this.request("GET", "/session");

	/** @type {(userName: string, nickName: string, password: string) => Promise<User>} */
	register = (user_name, nick_name, password) =>
		this.request("POST", "/user/register", {}, { user_name, nick_name, password });

	/** @type {(userName: string, password: string) => Promise<SignedIn>} */
	signIn = (user_name, password) => this.request("POST", "/user/login", {}, { user_name, password });

	/** @type {(everywhere?: boolean) => Promise<void>} */
	signOut = (everywhere = false) =>
		this.request("POST", `/user/logout${everywhere ? "/everywhere" : ""}`).catch((error) => {
			if (refusal(error).code !== 401) throw error;
		});

	/** @type {(query?: ConversationsQuery) => Promise<Conversation[]>} */
	conversations = (query = {}) => this.request("GET", "/conversations", query);

	/** @type {(userName: string) => Promise<User>} */
	find = (user_name) => this.request("GET", "/users", { user_name });

	/** @type {(peer: string | number, on: boolean) => Promise<void>} */
	block = (peer, on) => this.request(on ? "PUT" : "DELETE", `/user/blocks/${peer}`);

	/**
	 * Where a socket with all of the user's conversations can be opened.
	 *
	 * @param {string} lang
	 */
	async socket(lang) {
		const query = new URLSearchParams({ v: "2", lang });
		if (this.uid) query.set("uid", this.uid);
		if (this.token) {
			/** @type {{ ticket: string }} */
			const { ticket } = await this.request("POST", "/ws/ticket");
			query.set("ticket", ticket);
		}
		return `${this.url.replace(/^http/, "ws")}/ws?${query}`;
	}

	/**
	 * The data of an answer. Throws a TandemError.
	 *
	 * @template T what the data is
	 * @param {string} method
	 * @param {string} path
	 * @param {Record<string, any>} query
	 * @param {object} [body]
	 * @returns {Promise<T>}
	 */
	async request(method, path, query = {}, body) {
		const all = new URLSearchParams(this.uid ? { ...query, uid: this.uid } : query);
		/** @type {Record<string, string>} */
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
		if (response.ok) return /** @type {T} */ (answer.data);
		throw new TandemError(response.status, answer.error, Number(response.headers.get("Retry-After")));
	}
}

/**
 * The connection of a `user`, and what has to outlive it: an EventTarget with the methods named at the end.
 *
 * `log` is the installation's id, which a session tells; without it, that of the first connection counts.
 *
 * @param {object} options
 * @param {Api} options.api
 * @param {string | number} options.user
 * @param {string} [options.log]
 * @param {string} [options.lang]
 * @param {Outbox} [options.outbox]
 * @returns {Tandem}
 */
export function tandem({ api, user: who, log = "", lang = "zh", outbox = memoryOutbox() }) {
	const user = String(who);
	const events = Object.assign(new EventTarget(), { user, state: /** @type {State} */ ("stopped") });
	/** @type {Map<string, Request>} */
	const asked = new Map(); // by request id
	/** @type {Map<string, Chat>} */
	const chats = new Map(); // by peer
	/** @type {Map<string, Item>} */
	const items = new Map(); // by id: pending and failed messages
	/** @type {Map<string, Lane>} */
	const lanes = new Map(); // by peer
	/** @type {Map<string, Marks>} */
	const positions = new Map(); // by peer
	/** @type {Map<string, number>} */
	const typed = new Map(); // by peer: when that was last told, by the clock
	/** @type {Partial<WebSocket> | null} */
	let socket = null; // without methods while a ticket is fetched
	let opened = 0; // when, by the clock; 0: it is not open
	let heard = 0; // when the last frame came, by the clock
	let ahead = 0; // what the time of day is ahead of the clock
	let slow = false; // whether the outbox was late with its last answer
	let failures = 0;
	let requests = 0;
	/** @type {Timer | undefined} */
	let looking;
	/** @type {Timer | undefined} */
	let retrying;
	/** @type {Timer | undefined} */
	let late;

	/**
	 * What is not acknowledged, in the order of sending; of one peer or of all.
	 *
	 * @param {string} [peer]
	 */
	const pending = (peer) => [...items.values()].filter((item) => !peer || item.peer === peer);

	// Its life

	/** Connects, and stays connected until `stop`, or for as long as the token is good. */
	function start() {
		end("connecting");
		ahead = Date.now() - clock();
		looking = setInterval(look, SHORT);
		void connect();
	}

	/** Wakes where nothing was heard for long, or where the machine has slept: the clock may stand still then. */
	function look() {
		const now = Date.now() - clock();
		const slept = now - ahead > SHORT;
		ahead = now;
		if (slept || (opened && clock() - heard > QUIET)) wake();
	}

	/** Disconnects. Pending messages stay in the outbox. */
	const stop = () => end("stopped");

	/** Looks whether the connection is alive, and for what other programs left in the outbox. */
	function wake() {
		if (opened) ask({ type: 6, after: {} }, SHORT).then(loadOutbox, () => {});
		else if (retrying) void connect();
	}

	/** @param {State} next */
	function end(next) {
		clearInterval(looking);
		unschedule();
		drop();
		say(next);
	}

	/** Connects at no later time, unless that is said anew. */
	function unschedule() {
		clearTimeout(retrying);
		retrying = undefined;
	}

	async function connect() {
		unschedule();
		/** @type {Partial<WebSocket>} */
		let mine = (socket = {}); // stands in while a ticket is fetched
		/** @type {<E>(work: (event: E) => void) => (event: E) => void} */
		const current = (work) => (event) => {
			if (mine === socket) work(event);
		};
		late = setTimeout(() => lost(false), ANSWER);
		try {
			const url = await api.socket(lang);
			if (mine !== socket) return;
			mine = socket = new WebSocket(url);
		} catch (error) {
			if (mine === socket) void lost(refusal(error).code > 0);
			return;
		}
		mine.onmessage = current(({ data }) => {
			const frame = /** @type {Frame} */ (JSON.parse(data));
			if (opened) take(frame);
			else greeted(frame);
		});
		mine.onerror = () => {}; // a close follows
		mine.onclose = current(({ code }) => {
			for (const { queue, busy } of lanes.values()) {
				const [sent] = queue;
				if (code === TOO_BIG && busy && sent) refuse(sent, 400);
			}
			void lost(code === POLICY || !opened);
		});
	}

	/**
	 * Begins once the server has said who it is. Messages of one installation are never sent to another.
	 *
	 * @param {Frame} frame
	 */
	function greeted({ code, log: theirs }) {
		if (code !== SUCCESS) return; // a server that is about to end says that first
		clearTimeout(late);
		log ||= theirs ?? "";
		if (theirs && theirs !== log) return end("ended");
		opened = heard = clock();
		say("online");
		catchUp();
		void loadOutbox();
		for (const [peer, marks] of positions) void tellMarks(peer, marks);
		emit("open");
	}

	/**
	 * The connection is gone; `doubtful`: perhaps because we may no longer come in, which no browser tells.
	 *
	 * @param {boolean} doubtful
	 */
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

	/**
	 * Sends a frame; to be called while a connection is open.
	 *
	 * @param {object} frame
	 */
	function write(frame) {
		/** @type {WebSocket} */ (socket).send(JSON.stringify(frame));
	}

	/**
	 * @param {object} frame
	 * @returns {Promise<Frame>}
	 */
	function ask(frame, timeout = ANSWER) {
		return new Promise((resolve, reject) => {
			if (!opened) throw lostError();
			const id = `r${++requests}`;
			asked.set(id, { resolve, reject, timer: setTimeout(() => lost(false), timeout) });
			write({ ...frame, id });
		});
	}

	/**
	 * Asks until there is an answer, for as long as this connection lasts. Throws what will not pass.
	 *
	 * @param {object} frame
	 */
	async function insist(frame) {
		const mine = socket;
		for (let attempts = 1; ; attempts++) {
			try {
				return await ask(frame);
			} catch (error) {
				const { code, retryAfter } = refusal(error);
				if (!PASSING.includes(code)) throw error;
				await new Promise((done) => setTimeout(done, 1000 * retryAfter || backoff(attempts)));
				if (mine !== socket) throw lostError();
			}
		}
	}

	/** @param {Frame} frame */
	function take(frame) {
		heard = clock();
		const { code, id = "", from: peer, received, read, online } = frame;
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

	/**
	 * The newest messages of a conversation; from then on all further ones are events.
	 *
	 * @param {string} peer
	 */
	async function open(peer, limit = 50) {
		/** @type {Chat} */
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

	/**
	 * Messages before a `seq`, ascending; `complete`: there are none before these.
	 *
	 * @type {(peer: string, seq: number, limit?: number) => Promise<Page>}
	 */
	const before = (peer, seq, limit = 50) => insist({ type: 2, to: peer, before: seq, limit });

	/**
	 * The peer's first messages that were not read, at most 100.
	 *
	 * @param {string} peer
	 */
	async function unread(peer) {
		return (await insist({ type: 3, to: peer })).messages;
	}

	/** @param {Message} message */
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

	/**
	 * @param {Message} message
	 * @param {boolean} live
	 */
	function show(message, live) {
		const peer = message.from === user ? message.to : message.from;
		const chat = chats.get(peer);
		seen(message);
		if (chat && message.seq <= chat.held) return;
		if (chat) chat.held = message.seq;
		emit("message", { peer, message, live });
	}

	/**
	 * One of our own that came otherwise than as an acknowledgement is out of the outbox as well.
	 *
	 * @param {Message} message
	 */
	function seen(message) {
		const item = message.from === user && items.get(message.id ?? "");
		if (item) forget(item);
	}

	/**
	 * What was set aside while a conversation was not in step, as far as it is not held; now it is in step.
	 *
	 * @param {Chat} chat
	 */
	function setAside(chat) {
		/** @type {Map<number, Message>} */
		const kept = new Map();
		for (const message of chat.aside) if (message.seq > chat.held) kept.set(message.seq, message);
		chat.aside = [];
		chat.busy = false;
		return [...kept.values()].sort((a, b) => a.seq - b.seq);
	}

	/** Asks for all that is missing in each conversation that was opened. */
	function catchUp() {
		const all = [...chats];
		for (const [, chat] of all) chat.busy = true;
		for (let i = 0; i < all.length; i += RESUMED) resume(all.slice(i, i + RESUMED)).catch(() => {});
	}

	/** @param {[peer: string, chat: Chat][]} part */
	async function resume(part) {
		const after = Object.fromEntries(part.map(([peer, { held }]) => [peer, held]));
		try {
			const { messages, more } = await insist({ type: 6, after });
			for (const message of messages) show(message, false);
			await Promise.all(part.map(([peer, chat]) => fill(peer, chat, !more?.includes(peer))));
		} catch (error) {
			if (!refusal(error).code) throw error;
			const peers = part.map(([peer]) => peer);
			for (const peer of peers) chats.delete(peer);
			emit("reset", { peers });
		}
	}

	/**
	 * Reads what is missing behind what is held, until it is `complete`, or refused.
	 *
	 * @param {string} peer
	 * @param {Chat} chat
	 */
	async function fill(peer, chat, complete = false) {
		while (!complete && chat === chats.get(peer)) {
			/** @type {Page} */
			const page = await insist({ type: 2, to: peer, after: chat.held, limit: PAGE }).catch((error) => {
				if (!refusal(error).code) throw error;
				return { messages: [], complete: true };
			});
			for (const message of page.messages) show(message, false);
			complete = page.complete;
		}
		if (chat === chats.get(peer)) for (const message of setAside(chat)) show(message, true); // else it is opened anew
	}

	// Messages out

	/**
	 * Sends a message, now or as soon as it can be; the item that stands for it until it is stored.
	 *
	 * @param {string} peer
	 * @param {string} content
	 */
	function send(peer, content) {
		/** @type {Item} */
		const item = { id: newId(), user, peer, content: content.toWellFormed(), time: Date.now(), state: "pending" };
		put(item);
		return item;
	}

	/**
	 * Tries once more what has failed.
	 *
	 * @param {string} id
	 */
	function retry(id) {
		const item = items.get(id);
		if (item?.state !== "failed") return;
		items.delete(id);
		put({ ...item, state: "pending", code: undefined });
	}

	/**
	 * Gives up what has failed.
	 *
	 * @param {string} id
	 */
	function discard(id) {
		const item = items.get(id);
		if (item?.state === "failed") forget(item);
	}

	/** @param {Item} item */
	function put(item) {
		items.set(item.id, item);
		emit("outbox", { item });
		const kept = keep(item);
		turn = turn
			.then(() => kept)
			.then(() => {
				if (items.get(item.id) === item) queue(item); // else it is stored already
			});
	}

	/**
	 * Keeps an item in the outbox, as it is now. Where that fails or is late, the message is sent all the same; as long as
	 * it is in this program alone, the item says so: `kept` is false.
	 *
	 * @param {Item} item
	 */
	function keep(item) {
		const { kept: _, ...now } = item;
		/** @param {boolean} kept */
		const tell = (kept) => {
			if (kept === (item.kept ?? true)) return;
			item.kept = kept;
			if (items.get(item.id) === item) emit("outbox", { item });
		};
		const putting = outbox.put(now);
		putting.then(() => tell(true), () => {});
		return soon(putting).catch(() => tell(false));
	}

	/**
	 * What the outbox promises, if it does not take too long; one that was late is not waited for again.
	 *
	 * @param {Promise<unknown>} promise
	 */
	function soon(promise) {
		return new Promise((resolve, reject) => {
			const giveUp = () => {
				slow = true;
				reject(new Error("the outbox does not answer"));
			};
			const timer = setTimeout(giveUp, slow ? 0 : KEPT);
			/** @type {(settle: (result: unknown) => void) => (result: unknown) => void} */
			const done = (settle) => (result) => {
				clearTimeout(timer);
				slow = false;
				settle(result);
			};
			promise.then(done(resolve), done(reject));
		});
	}

	/** @param {Item} item */
	function queue(item) {
		const lane = lanes.get(item.peer) ?? { queue: [], busy: false, timer: undefined, attempts: 0 };
		lanes.set(item.peer, lane);
		lane.queue.push(item);
		pump(item.peer, lane);
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
		for (const [peer, lane] of lanes) pump(peer, lane);
	}

	/**
	 * Sends the next item to a peer, unless one is on its way.
	 *
	 * @param {string} peer
	 * @param {Lane} lane
	 */
	function pump(peer, lane) {
		const item = lane.queue[0];
		if (!item || lane.busy || !opened) return;
		lane.busy = true;
		lane.timer = setTimeout(() => lost(false), ANSWER);
		write({ type: 1, id: item.id, to: peer, content: item.content });
	}

	/** @param {Lane} lane */
	function free(lane) {
		clearTimeout(lane.timer);
		lane.busy = false;
	}

	/**
	 * @param {Item} item
	 * @param {Frame} answer
	 */
	function answered(item, { code, seq, time, retry_after = 0 }) {
		const { id, peer, content } = item;
		const lane = lanes.get(peer);
		if (!lane) return; // it was never sent
		if (STORED.includes(code)) {
			unqueue(item);
			came({ seq, time, from: user, to: peer, content, id });
		} else if (PASSING.includes(code)) {
			const again = () => {
				free(lane);
				pump(peer, lane);
			};
			clearTimeout(lane.timer);
			lane.timer = setTimeout(again, 1000 * retry_after || backoff(++lane.attempts));
		} else refuse(item, code);
	}

	/**
	 * @param {Item} item
	 * @param {number} code
	 */
	function refuse(item, code) {
		Object.assign(item, { state: "failed", code });
		unqueue(item);
		void keep(item);
		emit("outbox", { item });
	}

	/** @param {Item} item */
	function forget(item) {
		items.delete(item.id);
		outbox.delete(item.id).catch(() => {});
		unqueue(item);
		emit("outbox", { item: { ...item, state: "gone" } });
	}

	/** @param {Item} item */
	function unqueue(item) {
		const lane = lanes.get(item.peer);
		if (!lane) return;
		const place = lane.queue.indexOf(item);
		if (place >= 0) lane.queue.splice(place, 1);
		if (place) return;
		lane.attempts = 0;
		free(lane);
		pump(item.peer, lane);
	}

	// What else there is to tell

	/**
	 * Says up to which `seq` the peer's messages were received or read, and says it again until it is known.
	 *
	 * @param {string} peer
	 * @param {{ received?: number, read?: number }} upTo
	 */
	function mark(peer, { received = 0, read = 0 }) {
		const marks = positions.get(peer) ?? { received: 0, read: 0, told: "", busy: false };
		marks.received = Math.max(marks.received, received, read);
		marks.read = Math.max(marks.read, read);
		positions.set(peer, marks);
		void tellMarks(peer, marks);
	}

	/**
	 * @param {string} peer
	 * @param {Marks} marks
	 */
	async function tellMarks(peer, marks) {
		const { received, read } = marks;
		const told = `${received} ${read}`;
		if (marks.busy || !opened || marks.told === told) return;
		marks.busy = true;
		try {
			await insist({ type: 4, to: peer, received, read });
		} catch (error) {
			if (!refusal(error).code) return; // the connection is gone: told after the next opening
		}
		marks.told = told;
		marks.busy = false;
		void tellMarks(peer, marks);
	}

	/**
	 * Tells the peer that the user is typing, once a second at most.
	 *
	 * @param {string} peer
	 */
	function typing(peer) {
		const now = clock();
		if (!opened || now - (typed.get(peer) ?? -TYPING_EVERY) < TYPING_EVERY) return;
		typed.set(peer, now);
		write({ type: 5, to: peer });
	}

	/** @param {State} next */
	function say(next) {
		if (next === events.state) return;
		events.state = next;
		emit("state", next);
	}

	/**
	 * @template {keyof TandemEvents} Type
	 * @param {Type} type
	 * @param {TandemEvents[Type]} [detail]
	 */
	function emit(type, detail) {
		events.dispatchEvent(new CustomEvent(type, { detail }));
	}

	outbox.addEventListener?.("lost", () => items.forEach((item) => void keep(item))); // what it had is perhaps gone
	let turn = loadOutbox(); // what was left goes first
	// Who has a peer's id as a number is understood as well.
	/**
	 * @template {unknown[]} Rest
	 * @template Result
	 * @param {(peer: string, ...rest: Rest) => Result} method
	 * @returns {(peer: string | number, ...rest: Rest) => Result}
	 */
	const named = (method) => (peer, ...rest) => method(String(peer), ...rest);
	const byPeer = { open: named(open), before: named(before), unread: named(unread), send: named(send) };
	const methods = { start, stop, wake, pending, retry, discard, ...byPeer, mark: named(mark), typing: named(typing) };
	return /** @type {Tandem} */ (Object.assign(events, methods));
}
