/** Tools for the Node tests of the page's modules: a clock that can be moved, a line that can be cut, and users. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import net from "node:net";

/** @import { Socket, Server } from "node:net" */
/** @import { TestContext } from "node:test" */
/** @import { Message } from "../../web/tandem.js" */

/**
 * A timer of the test's world; `handle` is the real timer.
 *
 * @typedef {{ work: () => void, delay: number, again: boolean, due: number, handle?: NodeJS.Timeout }} Timer
 */

/**
 * The modules of the page that import nothing.
 *
 * @typedef {{
 *   "tandem.js": typeof import("../../web/tandem.js"),
 *   "text.js": typeof import("../../web/text.js"),
 * }} Modules
 */

/** @typedef {{ near: Socket, far: Socket, up: Pipe, down: Pipe }} Connection */

/**
 * A frame. No frame has all of these keys.
 *
 * @typedef {{
 *   code: number, type: number, id: string, from: string, to: string, content: string, seq: number, time: number,
 *   messages?: Message[], received: number, read: number, online: boolean, after: Record<string, number>, dup?: boolean,
 * }} Frame
 */

/**
 * The frames of a socket, and ways to lose or add some.
 *
 * @typedef {object} Wire
 * @property {Frame[]} sent
 * @property {Frame[]} got
 * @property {number} opened sockets so far
 * @property {(frame: Frame) => unknown} lose whether a frame that comes is lost
 * @property {(frame: object) => void} forge takes a frame as if it came from the server
 */

/** @typedef {{ cookie: string }} Jar */

export const PATIENCE = Number(process.env.PATIENCE ?? 15) * 1000; // ms after which an awaited event counts as missing
const PAGE = 100; // messages
const HURRY = 0.001; // the random number in a hurry

/** The time, the timers and the random numbers of the client under test, and of nothing else. */
class World {
	#ahead = 0; // ms that were skipped
	#set = 0; // ms by which the time of day was set in addition
	/** @type {Set<Timer>} */
	#timers = new Set();
	random = HURRY;
	/** @type {number[]} */
	delays = []; // of all timeouts so far
	Date = { now: () => Date.now() + this.#ahead + this.#set };
	performance = { now: () => performance.now() + this.#ahead };
	Math = Object.create(Math, { random: { value: () => this.random } });
	/** @type {(work: () => void, delay: number) => Timer} */
	setTimeout = (work, delay) => {
		this.delays.push(delay);
		return this.#begin(work, delay, false);
	};
	/** @type {(work: () => void, delay: number) => Timer} */
	setInterval = (work, delay) => this.#begin(work, delay, true);
	/** @param {Timer} [timer] */
	clearTimeout = (timer) => {
		if (!timer) return;
		clearTimeout(timer.handle);
		this.#timers.delete(timer);
	};
	clearInterval = this.clearTimeout;

	/** Makes all random pauses short. */
	hurry() {
		this.random = HURRY;
	}

	/**
	 * Sets only the time of day; a negative number sets it back.
	 *
	 * @param {number} ms
	 */
	adjust(ms) {
		this.#set += ms;
	}

	/**
	 * Skips some time.
	 *
	 * @param {number} ms
	 */
	elapse(ms) {
		this.#ahead += ms;
		for (const timer of this.#timers) this.#arm(timer);
	}

	/**
	 * @param {() => void} work
	 * @param {number} delay
	 * @param {boolean} again
	 */
	#begin(work, delay, again) {
		/** @type {Timer} */
		const timer = { work, delay, again, due: this.performance.now() + delay };
		this.#timers.add(timer);
		this.#arm(timer);
		return timer;
	}

	/** @param {Timer} timer */
	#arm(timer) {
		clearTimeout(timer.handle);
		const fire = () => {
			this.#timers.delete(timer);
			if (timer.again) {
				timer.due = this.performance.now() + timer.delay;
				this.#timers.add(timer);
				this.#arm(timer);
			}
			timer.work();
		};
		timer.handle = setTimeout(fire, Math.max(0, timer.due - this.performance.now()));
	}
}

export const world = new World();
/** @type {object[]} */
const scenes = [];
Object.assign(globalThis, { scenes });
// The client times requests out by the machine's time, and the machine may be busy.
const patient = { timeout: (/** @type {number} */ ms) => AbortSignal.timeout(Math.max(ms, PATIENCE)) };

/**
 * Loads a module of the page that imports nothing into that world, with `globals`; `variable` may name another file.
 *
 * @template {keyof Modules} Name
 * @param {Name} name
 * @param {string} variable
 * @param {object} [globals]
 * @returns {Promise<Modules[Name]>}
 */
export async function load(name, variable, globals) {
	const { Date, Math, performance, setTimeout, clearTimeout, setInterval, clearInterval } = world;
	const timing = { Date, Math, performance, setTimeout, clearTimeout, setInterval, clearInterval, AbortSignal: patient };
	const scene = { ...timing, ...globals };
	const source = await readFile(process.env[variable] ?? new URL(`../../web/${name}`, import.meta.url), "utf8");
	const prelude = `const { ${Object.keys(scene).join()} } = globalThis.scenes[${scenes.push(scene) - 1}];`;
	return import(`data:text/javascript,${encodeURIComponent(`${prelude} ${source}\n//# sourceURL=${name}`)}`);
}

/**
 * Waits until a condition holds, and returns its value.
 *
 * @template T
 * @param {() => T} condition
 */
export async function until(condition) {
	const end = performance.now() + PATIENCE;
	for (;;) {
		const result = await condition();
		if (result) return result;
		assert.ok(performance.now() < end, `does not come: ${condition.toString()}`);
		await new Promise((done) => setTimeout(done, 2));
	}
}

/**
 * Numbers from 0 to below 1, the same for each run of a seed (mulberry32).
 *
 * @param {number} seed
 */
export function seeded(seed) {
	return () => {
		seed = (seed + 0x6d2b79f5) | 0;
		let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
	};
}

/** One direction of a connection. */
class Pipe {
	held = false;
	pauses = false; // whether it pauses after the first chunk
	left = Infinity; // bytes that will still be forwarded
	/** @type {Buffer[]} */
	#waiting = [];

	/** @param {Socket} to */
	constructor(to) {
		this.to = to;
	}

	/** @param {Buffer} chunk */
	take(chunk) {
		if (this.held) this.#waiting.push(chunk);
		else if (chunk.length <= this.left) {
			this.left -= chunk.length;
			this.to.write(chunk);
			if (this.pauses) this.held = true;
		} else {
			this.to.end(chunk.subarray(0, this.left));
			this.held = true;
		}
	}

	release() {
		this.held = this.pauses = false;
		for (const chunk of this.#waiting.splice(0)) this.take(chunk);
	}
}

/** A relay between client and server. Each of its connections can be cut, or pause without being closed. */
export class Line {
	closed = false; // whether no connection is accepted
	accepted = 0; // connections so far
	/** @type {(connection: Connection) => void} */
	prepare = () => {}; // is called with each new connection
	url = "";
	/** @type {Set<Connection>} */
	#connections = new Set();

	/**
	 * @param {TestContext} t
	 * @param {string} url
	 */
	static async to(t, url) {
		const line = new Line();
		const server = net.createServer((near) => line.#join(near, Number(new URL(url).port)));
		await new Promise((done) => server.listen(0, "127.0.0.1", () => done(null)));
		line.url = `http://127.0.0.1:${/** @type {net.AddressInfo} */ (server.address()).port}`;
		t.after(() => {
			server.close();
			line.close();
		});
		return line;
	}

	/**
	 * @param {Socket} near
	 * @param {number} port
	 */
	#join(near, port) {
		this.accepted++;
		near.on("error", () => {});
		if (this.closed) {
			near.destroy();
			return;
		}
		const far = net.connect(port, "127.0.0.1").on("error", () => {});
		const connection = { near, far, up: new Pipe(far), down: new Pipe(near) };
		this.prepare(connection);
		this.#connections.add(connection);
		near.on("data", (chunk) => connection.up.take(chunk)).on("close", () => this.#part(connection));
		far.on("data", (chunk) => connection.down.take(chunk)).on("close", () => this.#part(connection));
	}

	/** @param {Connection} connection */
	#part(connection) {
		this.#connections.delete(connection);
		connection.near.destroy();
		connection.far.destroy();
	}

	/** Cuts all connections. */
	cut() {
		for (const connection of this.#connections) this.#part(connection);
	}

	/** Cuts all connections, and accepts none until it is opened. */
	close() {
		this.closed = true;
		this.cut();
	}

	open() {
		this.closed = false;
	}

	/**
	 * Holds the data of the current connections in these directions, without closing them.
	 *
	 * @param {("up" | "down")[]} directions
	 */
	hold(...directions) {
		for (const connection of this.#connections) for (const each of directions) connection[each].held = true;
	}

	/** Forwards the held data. */
	release() {
		for (const { up, down } of this.#connections) for (const pipe of [up, down]) pipe.release();
	}
}

/**
 * Requests an action of pytest.
 *
 * @param {string} what
 * @returns {Promise<any>}
 */
export async function control(what) {
	const response = await fetch(`${process.env.CONTROL}/${what}`, { method: "POST" });
	const answer = await response.text();
	assert.ok(response.ok, answer);
	return JSON.parse(answer);
}

/**
 * Creates so many users, and returns their ids.
 *
 * @type {(count: number) => Promise<string[]>}
 */
export const people = (count) => control(`people/${count}`);

/**
 * Returns all messages of two users, as the server has them.
 *
 * @param {string} url
 * @param {string} user
 * @param {string} peer
 */
export async function stored(url, user, peer) {
	/** @type {Message[]} */
	const all = [];
	for (let complete = false; !complete; ) {
		const after = all.at(-1)?.seq ?? 0;
		const response = await fetch(`${url}/messages?uid=${user}&toUid=${peer}&after=${after}&limit=${PAGE}`);
		const { data } = await response.json();
		all.push(...data.messages);
		complete = data.complete;
	}
	return all;
}

/** @type {(messages: { content: string }[]) => string[]} */
export const contents = (messages) => messages.map(({ content }) => content);

/**
 * Returns a wire without frames.
 *
 * @returns {Wire}
 */
export const wire = () => ({ sent: [], got: [], opened: 0, lose: () => false, forge: () => assert.fail("no socket") });

/**
 * Returns a socket class that records its frames in `wire`; `wire.lose` drops frames, and `wire.forge` adds some.
 *
 * @param {Wire} wire
 * @param {Jar} [browser]
 */
export function tapped(wire, browser) {
	return class {
		#socket;

		/** @param {string} url */
		constructor(url) {
			// Node's WebSocket accepts headers, unlike a browser's.
			const options = /** @type {any} */ (browser && { headers: { Cookie: browser.cookie } });
			this.#socket = new WebSocket(url, options);
			wire.opened++;
		}

		/** @param {string} data */
		send(data) {
			wire.sent.push(/** @type {Frame} */ (JSON.parse(data)));
			this.#socket.send(data);
		}

		close() {
			this.#socket.close();
		}

		/** @param {(event: { data: string }) => void} listener */
		set onmessage(listener) {
			this.#socket.onmessage = (event) => {
				const frame = /** @type {Frame} */ (JSON.parse(/** @type {string} */ (event.data)));
				wire.got.push(frame);
				if (!wire.lose(frame)) listener(event);
			};
			wire.forge = (frame) => listener({ data: JSON.stringify(frame) });
		}

		/** @param {WebSocket["onclose"]} listener */
		set onclose(listener) {
			this.#socket.onclose = listener;
		}

		/** @param {WebSocket["onerror"]} listener */
		set onerror(listener) {
			this.#socket.onerror = listener;
		}
	};
}

/** A user with only a socket, apart from the client under test. */
export class Peer {
	/** @type {Frame[]} */
	frames = []; // all frames that are no answers
	/** @type {Map<string, (frame: Frame) => void>} */
	#answers = new Map(); // by request id

	/**
	 * @param {string} url
	 * @param {string} user
	 */
	constructor(url, user) {
		this.user = user;
		this.socket = new WebSocket(`${url.replace(/^http/, "ws")}/ws?uid=${user}&v=2&lang=en`);
		this.socket.onmessage = ({ data }) => this.#take(/** @type {Frame} */ (JSON.parse(/** @type {string} */ (data))));
	}

	/**
	 * @param {TestContext} t
	 * @param {string} url
	 * @param {string} user
	 */
	static async at(t, url, user) {
		const peer = new Peer(url, user);
		t.after(() => peer.socket.close());
		await until(() => peer.frames.length);
		return peer;
	}

	/** @param {Frame} frame */
	#take(frame) {
		const answer = frame.code === 50001 ? undefined : this.#answers.get(frame.id);
		if (answer) answer(frame);
		else this.frames.push(frame);
	}

	/**
	 * @param {object} frame
	 * @returns {Promise<Frame>}
	 */
	ask(frame) {
		const id = crypto.randomUUID();
		const answer = new Promise((done) => this.#answers.set(id, done));
		this.socket.send(JSON.stringify({ ...frame, id }));
		return answer;
	}

	/**
	 * Sends a message, and waits until it is stored.
	 *
	 * @param {string} to
	 * @param {string} content
	 */
	async say(to, content) {
		const answer = await this.ask({ type: 1, to, content });
		assert.ok(answer.code === 50004 || answer.code === 50005, JSON.stringify(answer));
		return answer;
	}

	/**
	 * Sends several messages, one after the other, without waiting.
	 *
	 * @param {string} to
	 * @param {string[]} texts
	 */
	all(to, texts) {
		return Promise.all(texts.map((text) => this.say(to, text)));
	}

	/** @param {number} code */
	got(code) {
		return this.frames.filter((frame) => frame.code === code);
	}
}
