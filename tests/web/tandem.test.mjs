/** Tests of tandem.js; test_tandem.py runs each by its name, and starts the servers. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { beforeEach, test } from "node:test";
import { promisify } from "node:util";

import {
	PATIENCE, contents, control, Line, load, Peer, people, seeded, stored, tapped, until, wire, world,
} from "./scene.mjs";

/** @import { TestContext } from "node:test" */
/** @import { Item, Message, Outbox, Tandem, TandemError, TandemEvents } from "../../web/tandem.js" */
/** @import { Frame, Wire } from "./scene.mjs" */

/**
 * The details of the events so far, by type.
 *
 * @typedef {{ [Type in keyof TandemEvents]: TandemEvents[Type][] }} Told
 */

/** @typedef {InstanceType<typeof Api>} AnApi */

/** @typedef {Tandem & { api: AnApi, wire: Wire, told: Told }} Client */

/**
 * How a client is made.
 *
 * @typedef {object} Options
 * @property {string | null} [token]
 * @property {string} [uid]
 * @property {Outbox} [outbox]
 * @property {Browser} [browser]
 * @property {string} [log]
 */

const { Api, backoff, memoryOutbox, newId } = await load("tandem.js", "CLIENT");
const { OPEN = "", TOKEN = "", STRICT = "" } = process.env;
const LIMIT = 3; // messages to a user who has never answered
const CONTENT = 8192; // characters of the longest message
const HALF_MINUTE = 30_000; // ms

/** @type {(what: string, count: number, first?: number) => string[]} */
const numbered = (what, count, first = 1) => Array.from({ length: count }, (_, n) => `${what} ${first + n}`);
/** @type {(count: number, first?: number) => number[]} */
const ascending = (count, first = 1) => Array.from({ length: count }, (_, n) => first + n);
/** @type {(messages: Message[]) => number[]} */
const sequence = (messages) => messages.map(({ seq }) => seq);
/** @type {(items: { id?: string }[]) => (string | undefined)[]} */
const ids = (items) => items.map(({ id }) => id);
/** @type {(promise: Promise<unknown>, code: number) => Promise<void>} */
const rejects = (promise, code) => assert.rejects(promise, (/** @type {TandemError} */ error) => {
	assert.deepEqual([error.constructor.name, error.code], ["TandemError", code]);
	return true;
});

beforeEach(() => world.hurry());

/**
 * Returns a client at `url` that records all its events, with an Api of its own; not started.
 *
 * @param {TestContext} t
 * @param {string} url
 * @param {string | number} user
 * @param {Options} options
 * @returns {Promise<Client>}
 */
async function client(t, url, user, { token = "", uid = String(user), outbox, browser, log } = {}) {
	const own = wire();
	const globals = { fetch: browser?.fetch ?? globalThis.fetch, WebSocket: tapped(own, browser) };
	const { Api, tandem } = await load("tandem.js", "CLIENT", globals);
	const api = new Api({ url, token, uid });
	/** @type {Told} */
	const told = { state: [], open: [], message: [], outbox: [], positions: [], typing: [], presence: [], reset: [] };
	const one = tandem({ api, user, log, lang: "en", outbox });
	for (const [type, details] of /** @type {[string, unknown[]][]} */ (Object.entries(told))) {
		one.addEventListener(type, (event) => details.push(/** @type {CustomEvent} */ (event).detail));
	}
	t.after(() => one.stop());
	return Object.assign(one, { api, wire: own, told });
}

/**
 * The same, started and online.
 *
 * @param {TestContext} t
 * @param {string} url
 * @param {string | number} user
 * @param {Options} [options]
 */
async function online(t, url, user, options) {
	const one = await client(t, url, user, options);
	one.start();
	await until(() => one.state === "online");
	return one;
}

/**
 * Returns the messages of a conversation that came as events.
 *
 * @type {(one: Client, peer: string) => Message[]}
 */
const came = (one, peer) => one.told.message.filter((each) => each.peer === peer).map(({ message }) => message);

/**
 * Waits until a client has reconnected.
 *
 * @param {Client} one
 * @param {() => unknown} work
 */
async function again(one, work) {
	const before = one.told.open.length;
	await work();
	await until(() => {
		if (one.state === "connecting") one.wake(); // however long it has backed off
		return one.told.open.length > before && one.state === "online";
	});
}

/**
 * Returns a user behind a line, and a peer with a direct connection; both have written.
 *
 * @param {TestContext} t
 * @param {Options} [options]
 */
async function two(t, options) {
	const [user, id] = await people(2);
	const line = await Line.to(t, OPEN);
	const [own, peer] = [await Peer.at(t, OPEN, user), await Peer.at(t, OPEN, id)];
	await own.say(id, "first");
	await peer.say(user, "second");
	own.socket.close();
	const one = await online(t, line.url, user, options);
	return { line, peer, user, one, id };
}

/**
 * Asserts that all messages came as events: each once, in order and without a gap, as the server has them.
 *
 * @param {Client} one
 * @param {string} peer
 * @param {number} first
 */
async function complete(one, peer, first) {
	const all = await stored(OPEN, one.user, peer);
	await until(() => came(one, peer).at(-1)?.seq === all.length);
	assert.deepEqual(sequence(came(one, peer)), ascending(all.length - first + 1, first));
	assert.deepEqual(contents(came(one, peer)), contents(all).slice(first - 1));
	assert.deepEqual(one.pending(), []);
	return all;
}

/** The handling of cookies in a browser. */
class Browser {
	cookie = "";
	/** @type {(url: string, options: RequestInit) => Promise<Response>} */
	fetch = async (url, options) => {
		const response = await fetch(url, { ...options, headers: { ...options.headers, Cookie: this.cookie } });
		// Without the port in the name, since a line to the server has a port of its own.
		for (const each of response.headers.getSetCookie()) this.cookie = each.split(";")[0].replace(/^tandem-\d+=/, "tandem=");
		return response;
	};

	/** An Api in a page. */
	async api(url = TOKEN) {
		const { Api } = await load("tandem.js", "CLIENT", { fetch: this.fetch });
		return new Api({ url });
	}
}

const name = () => `u${crypto.randomUUID().replaceAll("-", "").slice(0, 12)}`;

/** Registers a user with a password, and returns a browser that has signed in. */
async function account() {
	const browser = new Browser();
	const api = await browser.api();
	/** @type {[userName: string, password: string]} */
	const who = [name(), "a password"];
	const { id } = await api.register(who[0], "nick", who[1]);
	const { token } = await api.signIn(...who);
	return { who, id: String(id), token, api, browser };
}

// Authentication

test("registering, signing in and out changes the user", async () => {
	const api = await new Browser().api(`${TOKEN}/`);
	const { log, registration, ...session } = await api.session();
	assert.match(log, /^[0-9a-f]{16}$/);
	assert.equal(registration, true);
	assert.deepEqual(session, { auth: "token", user: null, users: [], max_content: CONTENT });
	const [userName, other] = [name(), name()];
	const user = await api.register(userName, "小明", "a password");
	assert.equal(user.nickname, "小明");
	const { id } = await api.register(other, "other", "a password");
	await rejects(api.register(userName, "小明", "a password"), 409);
	await rejects(api.signIn(userName, "no password"), 401);
	await rejects(api.conversations(), 401);
	const { token } = await api.signIn(userName, "a password");
	assert.equal((await api.session()).user?.id, user.id);
	const bearer = new Api({ url: TOKEN, token });
	assert.equal((await bearer.session()).user?.id, user.id);
	assert.equal((await bearer.find(other)).id, id);
	await api.block(id, true);
	assert.deepEqual(ids(await api.request("GET", "/user/blocks")), [id]);
	await bearer.block(id, false);
	assert.deepEqual(await api.request("GET", "/user/blocks"), []);
	assert.deepEqual(await bearer.conversations({ limit: 1 }), []);
	assert.match(await bearer.socket("en"), /^ws:.*\/ws\?v=2&lang=en&ticket=[^&]+$/);
	await api.signOut();
	assert.equal((await api.session()).user, null);
	await rejects(bearer.conversations(), 401);
	const tokens = [await api.signIn(userName, "a password"), await api.signIn(userName, "a password")];
	await new Api({ url: TOKEN, token: tokens[0].token }).signOut(true);
	await rejects(new Api({ url: TOKEN, token: tokens[1].token }).conversations(), 401);
	await rejects(new Api({ url: "http://127.0.0.1:1" }).session(), 0);
});

test("a trusted uid is sent with each request", async () => {
	const [user, id] = await people(2);
	const api = new Api({ url: OPEN, uid: user });
	const session = await api.session();
	assert.deepEqual([session.auth, String(session.user?.id)], ["open", user]);
	assert.ok(session.users.length > 0);
	assert.equal(await api.socket("zh"), `${OPEN.replace("http", "ws")}/ws?v=2&lang=zh&uid=${user}`);
	assert.deepEqual(await api.conversations(), []);
	await api.block(id, true);
});

test("it ends when it is signed out elsewhere", async (t) => {
	const { id, who, browser, api } = await account();
	for (const way of ["token", "cookie"]) {
		const { token } = await api.signIn(...who);
		const one = await online(t, TOKEN, id, way === "token" ? { token, uid: "" } : { browser });
		await new Api({ url: TOKEN, token }).signOut();
		await until(() => one.state === "ended");
		one.wake();
		assert.deepEqual(one.told.state, ["connecting", "online", "connecting", "ended"]);
		await until(() => one.told.state.length === 4);
		one.start();
		await until(() => one.state === "ended");
		assert.equal(one.told.open.length, 1);
	}
});

test("it ends when the token has ended while it was offline", async (t) => {
	for (const way of ["token", "cookie"]) {
		const { id, token, browser } = await account();
		const line = await Line.to(t, TOKEN);
		const one = await online(t, line.url, id, way === "token" ? { token, uid: "" } : { browser });
		line.close();
		await until(() => one.state === "connecting");
		await new Api({ url: TOKEN, token }).signOut();
		line.open();
		await until(() => one.state === "ended");
		assert.equal(one.told.open.length, 1);
	}
});

test("a server that is away ends nothing", async (t) => {
	const [user] = await people(1);
	const line = await Line.to(t, OPEN);
	line.close();
	const one = await client(t, line.url, user);
	one.start();
	await until(() => line.accepted > 20);
	line.open();
	await until(() => one.state === "online");
	assert.deepEqual(one.told.state, ["connecting", "online"]);
});

test("a client does not continue with the cookie of another user", async (t) => {
	const [one, other] = [await account(), await account()];
	const line = await Line.to(t, TOKEN);
	const mine = await online(t, line.url, one.id, { browser: one.browser });
	line.close();
	await until(() => mine.state === "connecting");
	one.browser.cookie = other.browser.cookie; // in another tab
	line.open();
	await until(() => {
		mine.wake(); // however long it has backed off
		return mine.state === "ended";
	});
	assert.equal(mine.told.open.length, 1);
	await rejects(mine.api.conversations(), 403);
	const stranger = await client(t, TOKEN, other.id, { token: one.token });
	stranger.start();
	await until(() => stranger.state === "ended");
	assert.deepEqual(stranger.told.state, ["connecting", "ended"]);
});

// Received messages

test("open, before and unread return messages in order", async (t) => {
	const { one, peer, user, id } = await two(t);
	await peer.all(user, numbered("m", 10, 3));
	await until(() => came(one, id).at(-1)?.seq === 12);
	const { messages, complete } = await one.open(id, 5);
	assert.deepEqual([sequence(messages), complete], [ascending(5, 8), false]);
	assert.deepEqual(contents(messages), numbered("m", 5, 8));
	assert.deepEqual(Object.keys(messages[0]).sort(), ["content", "from", "id", "seq", "time", "to"]);
	const page = await one.before(id, 8, 5);
	assert.deepEqual([sequence(page.messages), page.complete], [ascending(5, 3), false]);
	const first = await one.before(id, 3);
	assert.deepEqual([contents(first.messages), first.complete], [["first", "second"], true]);
	assert.deepEqual(sequence(await one.unread(id)), [2, ...ascending(10, 3)]);
	one.mark(id, { read: 10 });
	await until(() => peer.got(50007).length);
	assert.deepEqual(sequence(await one.unread(id)), [11, 12]);
	const [nobody] = await people(1);
	assert.deepEqual(await one.open(nobody), { messages: [], complete: true });
	await peer.say(user, "m 13");
	await until(() => came(one, id).at(-1)?.seq === 13);
	assert.deepEqual(sequence(came(one, id)), ascending(11, 3));
});

test("a request fails with the connection", async (t) => {
	const { one, line, id } = await two(t);
	line.hold("up");
	const requests = [one.open(id), one.before(id, 2), one.unread(id)];
	const failures = Promise.all(requests.map((request) => rejects(request, 0)));
	await again(one, () => line.cut());
	await failures;
	line.close();
	await until(() => one.state === "connecting");
	await rejects(one.open(id), 0);
	await again(one, () => line.open());
	assert.deepEqual(sequence((await one.open(id)).messages), [1, 2]);
});

test("nothing is lost, doubled or reordered, however often the line is cut", async (t) => {
	const random = seeded(Number(process.env.SEED ?? 20260101));
	const below = (/** @type {number} */ n) => Math.floor(random() * n);
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	/** @type {Item[]} */
	const sent = [];
	/** @type {Promise<Frame>[]} */
	const said = [];
	const CUTS = 40;
	for (let cuts = 0; cuts < CUTS; cuts++) {
		for (let n = below(6); n > 0; n--) {
			if (below(2)) sent.push(one.send(id, `mine ${sent.length}`));
			else said.push(peer.say(user, `theirs ${said.length}`));
		}
		const way = below(5);
		if (way === 0) line.hold(below(2) ? "up" : "down");
		if (way === 1) await until(() => one.state === "online");
		if (way === 2) await Promise.all(said);
		if (way === 3) await until(() => !one.pending().length);
		const direction = below(3) ? "down" : "up";
		const [left, accepted] = [below(900), line.accepted];
		line.prepare = (connection) => {
			if (way === 4) connection[direction].left = left;
			line.prepare = () => {};
		};
		line.cut();
		if (way === 4) await until(() => line.accepted > accepted);
	}
	await Promise.all(said);
	await until(() => !one.pending().length && one.state === "online");
	await again(one, () => line.cut()); // since the last one may be about to end in the middle of a frame
	const last = `mine ${sent.length}`;
	line.hold("down"); // so that one acknowledgement at least is lost
	sent.push(one.send(id, last));
	await until(() => peer.got(50001).some(({ content }) => content === last));
	line.cut();
	await until(() => !one.pending().length);
	const all = await complete(one, id, 3);
	const of = (/** @type {string} */ from) => contents(all.filter((message) => message.from === from)).slice(1);
	assert.deepEqual(of(user), contents(sent));
	assert.deepEqual(of(id), said.map((_, n) => `theirs ${n}`));
	assert.ok(one.told.open.length > 5);
	assert.ok(one.wire.got.some((frame) => frame.dup));
});

test("more than 100 missed messages come completely", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	line.close();
	await peer.all(user, numbered("m", 230));
	await again(one, () => line.open());
	await complete(one, id, 3);
	assert.ok(one.told.message.every(({ live }) => !live));
	await peer.say(user, "at last");
	await until(() => one.told.message.at(-1)?.live);
});

test("more than 256 KiB of missed messages come completely", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	line.close();
	for (let n = 0; n < 4; n++) await peer.all(user, Array(20).fill(String(n).repeat(CONTENT)));
	await again(one, () => line.open());
	await complete(one, id, 3);
});

test("more than 200 conversations are resumed", async (t) => {
	const COUNT = 205;
	const [user, ...peers] = await people(COUNT + 1);
	const line = await Line.to(t, OPEN);
	const one = await online(t, line.url, user);
	await Promise.all(peers.map((peer) => one.open(peer)));
	line.close();
	const elsewhere = await Peer.at(t, OPEN, user);
	await Promise.all(peers.map((peer) => elsewhere.say(peer, `to ${peer}`)));
	await again(one, () => line.open());
	await until(() => one.told.message.length >= COUNT);
	assert.deepEqual(one.told.message.map(({ peer }) => peer).sort(), [...peers].sort());
	const asked = one.wire.sent.filter(({ type }) => type === 6).map(({ after }) => Object.keys(after).length);
	assert.deepEqual(asked, [200, 5]);
	await Promise.all(peers.map((peer) => elsewhere.say(peer, "live")));
	await until(() => one.told.message.length >= 2 * COUNT);
	assert.equal(one.told.message.length, 2 * COUNT);
	assert.ok(one.told.message.slice(COUNT).every(({ message, live }) => live && message.seq === 2));
});

test("what comes before the answer to a resume request is told once, and in order", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	line.close();
	await peer.all(user, numbered("missed", 3));
	line.prepare = ({ up }) => (up.pauses = true); // after the handshake
	await again(one, () => line.open());
	await peer.all(user, numbered("early", 3));
	await until(() => one.wire.got.filter(({ code }) => code === 50001).length === 3);
	assert.deepEqual(came(one, id), []);
	const mine = one.send(id, "mine");
	line.prepare = () => {};
	line.release();
	await until(() => !one.pending().length);
	await peer.say(user, "late");
	const all = await complete(one, id, 3);
	assert.equal(all.at(-2)?.id, mine.id);
});

test("what comes before the answer to open is in it, or told, but not twice", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	line.hold("up");
	const opening = one.open(id);
	await peer.all(user, numbered("early", 3));
	await until(() => one.wire.got.filter(({ code }) => code === 50001).length === 3);
	line.release();
	const { messages } = await opening;
	await peer.all(user, numbered("late", 2));
	await until(() => came(one, id).at(-1)?.seq === 7);
	assert.deepEqual(sequence([...messages, ...came(one, id)]), ascending(7));
});

test("what comes after a gap waits until the gap is filled", async (t) => {
	const { one, peer, user, id } = await two(t);
	await one.open(id);
	one.wire.lose = ({ content }) => /^lost/.test(content);
	await peer.all(user, [...numbered("lost", 120), "here", "lost again", "there"]);
	await complete(one, id, 3);
});

test("a refusal while a gap is filled keeps nothing back", async (t) => {
	const { one, peer, user, id } = await two(t);
	await one.open(id);
	/** @type {string[]} */
	const asked = [];
	one.wire.lose = ({ content, messages, id: answered }) => content === "lost" || (messages && asked.push(answered));
	await peer.all(user, ["lost", "seen"]);
	await until(() => asked.length);
	one.wire.lose = () => false;
	one.wire.forge({ from: "", code: 404, content: "", id: asked[0], to: id });
	await until(() => came(one, id).at(-1)?.content === "seen");
	await peer.say(user, "next");
	await until(() => came(one, id).at(-1)?.content === "next");
});

test("conversations that are not open are told as well", async (t) => {
	const { one, peer, user, id } = await two(t);
	await peer.all(user, numbered("m", 3));
	const elsewhere = await Peer.at(t, OPEN, user);
	await elsewhere.say(id, "mine");
	await until(() => one.told.message.length === 4);
	const { peer: whose, message, live } = one.told.message[3];
	assert.deepEqual([whose, message.from, message.content, live], [id, user, "mine", true]);
	assert.deepEqual(sequence(came(one, id)), ascending(4, 3));
});

test("it is told when the server knows less than it did", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	const [nobody] = await people(1);
	await one.open(nobody);
	await one.open(id);
	await peer.say(user, "m");
	await until(() => one.told.message.length);
	// As after the databases were restored from an old copy: the client has more than the server.
	const message = one.told.message[0].message;
	one.wire.forge({ ...message, code: 50001, seq: message.seq + 1, content: "gone" });
	assert.equal(came(one, id).at(-1)?.content, "gone");
	await again(one, () => line.cut());
	await until(() => one.told.reset.length);
	assert.deepEqual(one.told.reset.map(({ peers }) => [...peers].sort()), [[nobody, id].sort()]);
	await one.open(id);
	await peer.say(user, "anew");
	await until(() => came(one, id).at(-1)?.content === "anew");
});

// Sent messages

test("an acknowledgement that is lost makes no second message", async (t) => {
	const { one, line, user, id } = await two(t);
	await one.open(id);
	line.hold("down");
	const item = one.send(id, "once");
	assert.deepEqual([item.state, one.pending(id)], ["pending", [item]]);
	await until(async () => (await stored(OPEN, user, id)).length === 3);
	await again(one, () => line.cut());
	await complete(one, id, 3);
	assert.equal(one.wire.sent.filter(({ id: each }) => each === item.id).length, 2);
	await until(() => one.wire.got.some(({ id: each, dup }) => each === item.id && dup));
	const told = one.told.outbox.map(({ item: { id: each, state } }) => [each, state]);
	assert.deepEqual(told, [[item.id, "pending"], [item.id, "gone"]]);
});

test("what is sent while it is offline is stored later, once and in order", async (t) => {
	const { one, line, user, id } = await two(t);
	const [other] = await people(1);
	line.close();
	await until(() => one.state === "connecting");
	const items = numbered("m", 40).map((text) => one.send(id, text));
	const others = numbered("o", LIMIT).map((text) => one.send(other, text));
	assert.deepEqual(one.pending(), [...items, ...others]);
	assert.deepEqual(one.pending(other), others);
	line.open();
	await until(() => !one.pending().length);
	const all = (await stored(OPEN, user, id)).slice(2);
	assert.deepEqual(contents(all), contents(items));
	assert.deepEqual(ids(all), ids(items));
	assert.deepEqual(contents(await stored(OPEN, user, other)), contents(others));
	assert.deepEqual(sequence(came(one, id)), ascending(40, 3));
});

test("two clients of a user can have the same outbox", async (t) => {
	const outbox = memoryOutbox();
	const { one, line, user, id } = await two(t, { outbox });
	const other = await online(t, line.url, user, { outbox });
	await Promise.all([one.open(id), other.open(id)]);
	line.close();
	await until(() => one.state === "connecting" && other.state === "connecting");
	const items = numbered("m", 30).map((text, n) => (n % 2 ? one : other).send(id, text));
	line.open();
	await until(() => !one.pending().length && !other.pending().length);
	for (const each of [one, other]) await complete(each, id, 3);
	const all = (await stored(OPEN, user, id)).slice(2);
	assert.equal(all.length, items.length);
	for (const part of [0, 1]) {
		const own = ids(items.filter((_, n) => n % 2 === part));
		assert.deepEqual(ids(all).filter((id) => own.includes(id)), own);
	}
	assert.deepEqual(await outbox.all(user), []);
	const more = numbered("n", 20).map((text, n) => (n % 2 ? one : other).send(id, text));
	await until(() => !one.pending().length && !other.pending().length);
	for (const each of [one, other]) await complete(each, id, 3);
	assert.equal((await stored(OPEN, user, id)).length, 2 + items.length + more.length);
});

test("an outbox outlives its client", async (t) => {
	const outbox = memoryOutbox();
	const { one, line, user, id } = await two(t, { outbox });
	await outbox.put({ id: newId(), user: id, peer: user, content: "not ours", time: 0, state: "pending" });
	line.hold("down");
	const items = [one.send(id, "was stored")];
	await until(async () => (await stored(OPEN, user, id)).length === 3);
	items.push(one.send(id, "was not"), one.send(id, "nor this"));
	one.stop();
	assert.equal(one.state, "stopped");
	assert.deepEqual(ids(await outbox.all(user)), ids(items));
	const next = await client(t, OPEN, user, { outbox });
	next.start();
	await until(() => next.told.open.length && next.told.outbox.length === 6 && !next.pending().length);
	const all = (await stored(OPEN, user, id)).slice(2);
	assert.deepEqual(ids(all), ids(items));
	assert.deepEqual(sequence(came(next, id)), ascending(3, 3));
	assert.deepEqual(await outbox.all(user), []);
	assert.equal((await outbox.all(id)).length, 1);
});

test("what an earlier client has left goes before what is new", async (t) => {
	const [user, id] = await people(2);
	const outbox = memoryOutbox();
	(await client(t, OPEN, user, { outbox })).send(id, "old");
	const one = await client(t, OPEN, user, { outbox });
	one.send(id, "new");
	one.start();
	await until(() => one.told.message.length === 2);
	assert.deepEqual(contents(await stored(OPEN, user, id)), ["old", "new"]);
});

test("what another program has left is sent with the next connection", async (t) => {
	const outbox = memoryOutbox();
	const { one, line, user, id } = await two(t, { outbox });
	/** @type {Item} */
	const item = { id: newId(), user, peer: id, content: "left", time: 0, state: "pending" };
	await outbox.put(item);
	await again(one, () => line.cut());
	await until(() => came(one, id).length);
	assert.deepEqual(ids(await stored(OPEN, user, id)).at(-1), item.id);
	assert.deepEqual(await outbox.all(user), []);
});

test("an outbox that fails or is slow stops no message", async (t) => {
	const random = seeded(7);
	const slowly = () => new Promise((done) => setTimeout(done, 5 * random()));
	const failing = { all: () => Promise.reject(new Error()), put: slowly, delete: () => Promise.reject(new Error()) };
	const full = { ...failing, put: () => Promise.reject(new Error("full")) };
	for (const outbox of [full, failing]) {
		const { one, user, id } = await two(t, { outbox });
		const items = numbered("m", 20).map((text) => one.send(id, text));
		await until(() => !one.pending().length);
		assert.deepEqual(contents(await stored(OPEN, user, id)).slice(2), contents(items));
	}
});

test("an outbox that does not answer stops no message, and each says that it is not kept", async (t) => {
	const never = () => new Promise(() => {});
	const silent = { all: never, put: never, delete: never };
	for (const outbox of [silent, { ...memoryOutbox(), all: never }, { ...memoryOutbox(), put: never }]) {
		const { one, line, user, id } = await two(t, { outbox });
		const items = numbered("m", 5).map((text) => one.send(id, text));
		world.elapse(3_000);
		await until(() => !one.pending().length);
		assert.deepEqual(contents(await stored(OPEN, user, id)).slice(2), contents(items));
		if (outbox.put !== never) continue;
		line.close();
		await until(() => one.state === "connecting");
		const item = one.send(id, "waits"); // nothing is waited for again
		await until(() => item.kept === false);
		assert.ok(one.told.outbox.filter((each) => each.item === item).length >= 2);
		await again(one, () => line.open());
		await until(() => !one.pending().length);
	}
});

test("what an outbox keeps late is kept, and says so", async (t) => {
	const [user, id] = await people(2);
	const kept = memoryOutbox();
	const { promise: late, resolve: answer } = Promise.withResolvers();
	const one = await client(t, OPEN, user, { outbox: { ...kept, put: (item) => late.then(() => kept.put(item)) } });
	const item = one.send(id, "text");
	assert.equal(item.kept, undefined);
	await until(() => (world.elapse(3_000), item.kept === false));
	assert.deepEqual(await kept.all(user), []);
	answer(null);
	await until(() => item.kept);
	assert.deepEqual(contents(await kept.all(user)), ["text"]);
	assert.deepEqual(Object.keys((await kept.all(user))[0]).sort(), ["content", "id", "peer", "state", "time", "user"]);
});

test("pending messages are put again into an outbox that has lost them", async (t) => {
	for (const full of [false, true]) {
		const [user, id] = await people(2);
		const kept = memoryOutbox();
		let put = kept.put;
		const outbox = Object.assign(new EventTarget(), { ...kept, put: (/** @type {Item} */ item) => put(item) });
		const one = await client(t, OPEN, user, { outbox });
		const items = numbered(String(full), 3).map((text) => one.send(id, text));
		await until(async () => (await kept.all(user)).length === 3);
		for (const item of items) await kept.delete(item.id);
		if (full) put = () => Promise.reject(new Error("full"));
		outbox.dispatchEvent(new Event("lost"));
		if (full) await until(() => items.every((item) => item.kept === false));
		else await until(async () => (await kept.all(user)).length === 3);
		one.start();
		await until(() => !one.pending().length);
		assert.deepEqual(contents(await stored(OPEN, user, id)), contents(items));
	}
});

test("nothing is sent to another installation, where the ids are other users", async (t) => {
	const outbox = memoryOutbox();
	const { one, line, user, id } = await two(t, { outbox });
	const { log } = await one.api.session();
	assert.match(log, /^[0-9a-f]+$/);
	const before = (await stored(OPEN, user, id)).length;
	for (const known of ["0".repeat(log.length), "another"]) {
		const other = await client(t, OPEN, user, { outbox, log: known });
		other.send(id, "to whom?");
		other.start();
		await until(() => other.state === "ended");
		assert.deepEqual([other.wire.sent, other.told.open], [[], []]);
	}
	line.close(); // afterwards another server has the same address
	await until(() => one.state === "connecting");
	one.send(id, "to the same");
	const parse = JSON.parse;
	t.after(() => (JSON.parse = parse));
	JSON.parse = (text, ...rest) => {
		const frame = parse(text, ...rest);
		return frame?.log === log ? { ...frame, log: "another" } : frame;
	};
	line.open();
	const sent = one.wire.sent.length;
	await until(() => {
		if (one.state === "connecting") one.wake();
		return one.state === "ended";
	});
	assert.equal(one.wire.sent.length, sent);
	JSON.parse = parse;
	assert.equal((await stored(OPEN, user, id)).length, before);
	const same = await online(t, OPEN, user, { outbox, log });
	await until(() => !same.pending().length);
	assert.equal((await stored(OPEN, user, id)).length, before + 3);
});

test("a user and a peer may be given as numbers", async (t) => {
	const [user, id] = await people(2);
	const one = await online(t, OPEN, Number(user), { uid: user });
	one.send(Number(id), "text");
	await until(() => !one.pending().length);
	const { messages } = await one.open(Number(id));
	assert.deepEqual([one.user, contents(messages), messages[0].from], [user, ["text"], user]);
	assert.deepEqual((await one.before(Number(id), 2)).messages, messages);
	assert.deepEqual(await one.unread(Number(id)), []);
	one.send(id, "next");
	await until(() => came(one, id).length === 2);
});

test("an id that no number holds is the same wherever it is read", async () => {
	const great = ["9007199254740993", "9223372036854775807", "18446744073709551615"];
	for (const id of great) {
		const body = `{"data":{"user":{"id":${id},"nickname":"\\"id\\":5"},"users":[{ "id" : ${id} }],"seq":7,"name":"id"}}`;
		const globals = { fetch: async () => new Response(body) };
		const { Api } = await load("tandem.js", "CLIENT", globals);
		assert.deepEqual(await new Api({ url: "http://127.0.0.1:1" }).session(), {
			user: { id, nickname: '"id":5' }, users: [{ id }], seq: 7, name: "id",
		});
	}
	for (const { id } of (await new Api({ url: OPEN }).session()).users) assert.equal(typeof id, "string");
});

test("the fourth message to a stranger fails, and is sent when asked for", async (t) => {
	const [user, id] = await people(2);
	const outbox = memoryOutbox();
	const one = await online(t, OPEN, user, { outbox });
	const items = numbered("m", LIMIT + 2).map((text) => one.send(id, text));
	await until(() => items.slice(LIMIT).every(({ state }) => state === "failed"));
	const [fourth, fifth] = items.slice(LIMIT);
	assert.deepEqual([fourth.code, fifth.code], [50006, 50006]);
	assert.deepEqual(one.pending(), [fourth, fifth]);
	assert.deepEqual((await outbox.all(user)).map(({ state, code }) => [state, code]), Array(2).fill(["failed", 50006]));
	one.retry(fourth.id);
	await until(() => one.pending().at(-1)?.id === fourth.id && one.pending().at(-1)?.state === "failed");
	// It has failed for a later client too, which does not send it without a retry.
	const next = await online(t, OPEN, user, { outbox });
	await until(() => next.pending().length === 2);
	await (await Peer.at(t, OPEN, id)).say(user, "an answer");
	one.discard(fifth.id);
	one.discard("nothing");
	one.retry("nothing");
	assert.deepEqual(ids(one.pending()), [fourth.id]);
	one.retry(fourth.id);
	const [retried] = one.pending();
	assert.deepEqual([retried.state, retried.code], ["pending", undefined]);
	one.discard(fourth.id); // it is on its way
	await until(() => !one.pending().length && next.pending().length === 1);
	assert.deepEqual(contents(await stored(OPEN, user, id)), ["m 1", "m 2", "m 3", "an answer", "m 4"]);
	next.discard(fifth.id);
	assert.deepEqual([next.pending(), await outbox.all(user)], [[], []]);
});

test("what is blocked, too long or to an unknown user fails, and the next goes on", async (t) => {
	const { one, peer, user, id } = await two(t);
	await peer.say(user, "m");
	const long = one.send(id, "x".repeat(CONTENT + 1));
	const fits = one.send(id, "\u{1f600}".repeat(CONTENT));
	const nobody = one.send("4000000000", "is there somebody?");
	await until(() => nobody.state === "failed" && long.state === "failed" && one.pending().length === 2);
	assert.deepEqual([nobody.code, long.code], [404, 400]);
	assert.equal((await stored(OPEN, user, id)).at(-1)?.content, fits.content);
	await new Api({ url: OPEN, uid: id }).block(user, true);
	const blocked = one.send(id, "blocked");
	await until(() => blocked.state === "failed");
	assert.equal(blocked.code, 403);
	await new Api({ url: OPEN, uid: id }).block(user, false);
	one.retry(blocked.id);
	await until(() => !one.pending(id).includes(blocked) && one.pending(id).length === 1);
	assert.equal((await stored(OPEN, user, id)).at(-1)?.content, "blocked");
});

test("half a character stops no message that comes after it", async (t) => {
	const { one, user, id } = await two(t);
	one.send(id, "half a \ud83d");
	const next = one.send(id, "next");
	await until(() => !one.pending().includes(next));
	assert.equal((await stored(OPEN, user, id)).at(-1)?.content, "next");
});

test("what is too long for a frame fails, and the next goes on", async (t) => {
	const { one, user, id } = await two(t);
	const item = one.send(id, "x".repeat(70_000));
	const next = one.send(id, "next");
	await until(() => !one.pending().includes(next));
	assert.deepEqual([item.state, item.code, one.pending()], ["failed", 400, [item]]);
	assert.equal((await stored(OPEN, user, id)).at(-1)?.content, "next");
});

test("a conversation with a deleted user stops no other", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	const api = new Api({ url: OPEN });
	const gone = await api.register(name(), "gone", "a password");
	await one.open(String(gone.id));
	await one.open(id);
	await new Api({ url: OPEN, uid: gone.id }).request("DELETE", "/user/me", {}, { password: "a password" });
	line.close();
	await peer.say(user, "missed");
	await again(one, () => line.open());
	await peer.say(user, "live");
	await complete(one, id, 3);
});

test("what is open is opened again without harm while it is being resumed", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	line.close();
	await peer.all(user, numbered("missed", 150));
	line.prepare = ({ up }) => (up.pauses = true);
	await again(one, () => line.open());
	const opening = one.open(id);
	line.prepare = () => {};
	line.release();
	const { messages } = await opening;
	assert.deepEqual(sequence(messages), ascending(50, 103));
	const before = one.told.message.length;
	await peer.all(user, numbered("late", 3));
	await until(() => one.told.message.at(-1)?.message.seq === 155);
	assert.deepEqual(sequence(came(one, id).slice(before)), ascending(3, 153));
});

test("a client that is too fast goes on when it may", async (t) => {
	const [user, id] = await people(2);
	const one = await online(t, STRICT, user);
	const peer = await Peer.at(t, STRICT, id);
	one.send(id, "first");
	await until(() => !one.pending().length);
	await peer.say(user, "second");
	const items = numbered("m", 30).map((text) => one.send(id, text));
	const pages = Array.from({ length: 12 }, () => one.before(id, 3));
	for (const { messages } of await Promise.all(pages)) assert.deepEqual(contents(messages), ["first", "second"]);
	await until(() => !one.pending().length);
	const refused = one.wire.got.filter(({ code }) => code === 429).map((frame) => frame.id);
	assert.ok(refused.some((each) => items.some((item) => item.id === each)));
	assert.ok(refused.some((each) => /^r/.test(each)));
	assert.deepEqual(contents(came(one, id)), ["first", "second", ...contents(items)]);
	assert.equal(one.wire.opened, 1);
	const api = new Api({ url: STRICT, uid: user });
	const asked = await Promise.allSettled(Array.from({ length: 40 }, () => api.conversations()));
	const refusals = asked.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
	const tooFast = refusals.filter(({ code }) => code === 429);
	assert.ok(tooFast.length);
	// How long one has to wait depends on how many were refused before it.
	for (const { retryAfter } of tooFast) assert.ok(Number.isInteger(retryAfter) && retryAfter > 0);
	// On a busy machine the databases may not answer so many requests in time.
	for (const { code } of refusals) assert.ok(code === 429 || code === 40001, `code ${code}`);
});

test("a database that stands still makes no second message", async (t) => {
	const [user, id] = await people(2);
	const one = await online(t, STRICT, user);
	await one.open(id);
	t.after(() => control("thaw"));
	await control("freeze");
	const items = numbered("m", LIMIT).map((text) => one.send(id, text));
	const page = one.before(id, 1);
	const unknown = () => one.wire.got.filter(({ code }) => code === 40001).length;
	await until(() => unknown() > 2);
	await control("thaw");
	await until(() => !one.pending().length);
	const all = await stored(STRICT, user, id);
	assert.deepEqual(ids(all), ids(items));
	assert.deepEqual(ids(came(one, id)), ids(items));
	assert.deepEqual(await page, { ...(await page), messages: [], complete: true });
	assert.equal(one.wire.opened, 1);
});

test("a bug of the server leaves an outcome open", async (t) => {
	const { one, id } = await two(t);
	await one.open(id);
	/** @type {string[]} */
	const lost = [];
	one.wire.lose = (frame) => frame.id && !lost.length && lost.push(frame.id);
	const item = one.send(id, "once");
	await until(() => lost.length);
	one.wire.forge({ from: "", code: 500, content: "fail", id: lost[0], to: id });
	await until(() => !one.pending().length);
	assert.equal(one.wire.sent.filter((frame) => frame.id === item.id).length, 2);
	await complete(one, id, 3);
	lost.pop();
	const page = one.before(id, 3);
	await until(() => lost.length);
	one.wire.forge({ from: "", code: 500, content: "fail", id: lost[0], to: id });
	assert.equal((await page).messages.length, 2);
});

test("a server that is killed loses nothing", async (t) => {
	const [user, id] = await people(2);
	const [one, other] = [await online(t, OPEN, user), await online(t, OPEN, id)];
	t.after(() => control("start"));
	one.send(id, "first");
	await until(() => came(other, user).length);
	other.send(user, "second");
	await until(() => came(one, id).length === 2 && came(other, user).length === 2);
	await Promise.all([one.open(id), other.open(user)]);
	/** @type {Item[]} */
	const ones = [];
	/** @type {Item[]} */
	const others = [];
	const speak = (/** @type {number} */ count) => {
		for (; count > 0; count--) {
			ones.push(one.send(id, `one ${ones.length}`));
			others.push(other.send(user, `other ${others.length}`));
		}
	};
	for (let n = 0; n < 2; n++) {
		speak(10);
		await until(() => came(one, id).length > 4);
		speak(10);
		await control("kill");
		await until(() => one.state === "connecting" && other.state === "connecting");
		speak(10);
		await control("start");
		await until(() => !one.pending().length && !other.pending().length);
	}
	for (const [each, peer] of /** @type {[Client, string][]} */ ([[one, id], [other, user]])) {
		const all = await stored(OPEN, user, id);
		await until(() => came(each, peer).length >= all.length);
		assert.deepEqual(sequence(came(each, peer)), ascending(all.length));
		const of = (/** @type {string} */ from) => contents(all.filter((message) => message.from === from)).slice(1);
		assert.deepEqual([of(user), of(id)], [contents(ones), contents(others)]);
	}
});

// The connection

test("it notices a connection that is dead when it is woken", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	one.wake();
	await until(() => one.wire.sent.some(({ type }) => type === 6) && one.wire.got.length > 2);
	world.elapse(HALF_MINUTE); // an answer has come: nothing ends
	line.hold("up", "down");
	await peer.say(user, "missed");
	one.wake();
	assert.equal(one.wire.opened, 1);
	await again(one, () => world.elapse(5_000));
	await complete(one, id, 3);
});

test("it notices by itself that nothing is heard any more", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	line.hold("up", "down");
	await peer.say(user, "missed");
	const sent = one.wire.sent.length;
	world.elapse(2 * HALF_MINUTE + 5_000);
	await until(() => one.wire.sent.length > sent);
	await again(one, () => world.elapse(5_000));
	await complete(one, id, 3);
});

test("a clock that is set changes no interval", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	one.typing(id);
	world.adjust(-86_400_000);
	world.elapse(1_000);
	one.typing(id);
	assert.equal(one.wire.sent.filter(({ type }) => type === 5).length, 2);
	line.hold("up", "down");
	await peer.say(user, "missed");
	const sent = one.wire.sent.length;
	world.elapse(2 * HALF_MINUTE + 5_000);
	await until(() => one.wire.sent.length > sent);
	await again(one, () => world.elapse(5_000));
	await complete(one, id, 3);
	world.adjust(86_400_000);
});

test("it notices that the machine has slept", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	line.hold("up", "down");
	await peer.say(user, "missed");
	const sent = one.wire.sent.length;
	world.adjust(3_600_000); // the clock of intervals may stand still meanwhile
	world.elapse(5_000);
	await until(() => one.wire.sent.length > sent);
	await again(one, () => world.elapse(5_000));
	await complete(one, id, 3);
	world.adjust(-3_600_000);
});

test("what is written after the clock was set back goes behind what waited", async (t) => {
	const [user, id] = await people(2);
	const outbox = memoryOutbox();
	const first = await client(t, OPEN, user, { outbox });
	first.send(id, "one");
	await until(async () => (await outbox.all(user)).length === 1);
	world.adjust(-86_400_000);
	const second = await client(t, OPEN, user, { outbox });
	await until(() => second.pending().length === 1);
	second.send(id, "two");
	const [one, two] = second.pending();
	assert.ok(one.id < two.id);
	world.adjust(86_400_000);
});

test("it waits for no answer longer than 15 seconds", async (t) => {
	const { one, line, user, id } = await two(t);
	const stand = () => line.hold("up", "down");
	stand();
	const request = rejects(one.open(id), 0);
	await again(one, () => world.elapse(15_000));
	await request;
	stand();
	one.send(id, "m");
	await until(() => one.wire.sent.at(-1)?.content === "m");
	await again(one, () => world.elapse(15_000));
	await until(() => !one.pending().length);
	assert.equal((await stored(OPEN, user, id)).length, 3);
	// A server that accepts the connection and sends nothing.
	line.prepare = ({ up }) => (up.held = true);
	line.cut();
	const opened = one.wire.opened;
	await until(() => one.wire.opened > opened);
	line.prepare = () => {};
	await again(one, () => world.elapse(15_000));
	assert.equal(one.wire.opened, opened + 2);
});

test("a back-off is waited for, unless it is woken", async (t) => {
	const { one, line } = await two(t);
	world.random = 1;
	for (let n = 0; n < 7; n++) {
		const waits = world.delays.length;
		line.close();
		const wait = Math.min(HALF_MINUTE, 500 * 2 ** n);
		await until(() => one.state === "connecting" && world.delays.length > waits && world.delays.at(-1) === wait);
		line.open();
		one.wake();
		one.wake(); // as well as once
		await until(() => one.state === "online");
	}
	assert.equal(one.wire.opened, 8);
	// After a connection that lasted for a while the back-off begins again.
	world.elapse(6_000);
	line.close();
	await until(() => one.state === "connecting");
	await until(() => world.delays.at(-1) === 500);
	line.open();
	world.elapse(499);
	assert.equal(one.wire.opened, 8);
	await again(one, () => world.elapse(1));
});

test("it starts again after it was stopped", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await one.open(id);
	one.stop();
	one.stop();
	one.wake();
	await rejects(one.unread(id), 0);
	one.typing(id);
	const item = one.send(id, "kept");
	await peer.say(user, "missed");
	assert.deepEqual([one.state, one.pending(id)], ["stopped", [item]]);
	await until(() => peer.got(50009).at(-1)?.online === false);
	assert.equal(line.accepted, 1);
	await again(one, () => one.start());
	one.start(); // anew
	await until(() => one.state === "online" && !one.pending().length);
	await complete(one, id, 3);
	assert.deepEqual(one.told.state.slice(0, 5), ["connecting", "online", "stopped", "connecting", "online"]);
});

test("what was stopped is not woken", async (t) => {
	const { one, line, user, id } = await two(t);
	line.close();
	await until(() => one.state === "connecting");
	one.stop();
	line.open();
	const { opened } = one.wire;
	one.wake();
	await stored(OPEN, user, id); // longer than opening a connection takes
	assert.deepEqual([one.wire.opened, one.state], [opened, "stopped"]);
});

test("nothing of a client that was stopped keeps Node alive", async (t) => {
	const { line, user, id } = await two(t);
	const program = `
		import { load, until } from ${JSON.stringify(new URL("scene.mjs", import.meta.url))};
		const { Api, tandem } = await load("tandem.js", "CLIENT");
		const one = tandem({ api: new Api({ url: "${line.url}", uid: "${user}" }), user: "${user}" });
		one.start();
		await until(() => one.state === "online");
		one.send("${id}", "m");
		one.mark("${id}", { read: 1 });
		one.unread("${id}").catch(() => {});
		one.wake();
		one.stop();
		console.log("stopped");
	`;
	// Node ends by itself if no work is left; otherwise it is killed, and this test fails.
	const options = { timeout: PATIENCE, env: process.env };
	const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], options);
	assert.equal(stdout, "stopped\n");
});

// Typing, positions and presence

test("typing is told once a second at most", async (t) => {
	const { one, peer, user, id } = await two(t);
	one.typing(id);
	one.typing(id);
	await until(() => peer.got(50008).length);
	world.elapse(500);
	one.typing(id);
	assert.equal(one.wire.sent.filter(({ type }) => type === 5).length, 1);
	world.elapse(500);
	one.typing(id);
	one.typing("1");
	assert.deepEqual(one.wire.sent.filter(({ type }) => type === 5).map(({ to }) => to), [id, id, "1"]);
	peer.socket.send(JSON.stringify({ type: 5, to: user }));
	await until(() => one.told.typing.length);
	assert.deepEqual(one.told.typing, [{ peer: id }]);
});

test("positions and presence of the peer are told", async (t) => {
	const { one, peer, user, id } = await two(t);
	await peer.ask({ type: 4, to: user, received: 1 });
	await until(() => one.told.positions.length);
	assert.deepEqual(one.told.positions, [{ peer: id, received: 1, read: 0 }]);
	await new Api({ url: OPEN, uid: user }).conversations(); // changes of presence are told from this answer on
	peer.socket.close();
	await until(() => one.told.presence.length);
	await Peer.at(t, OPEN, id);
	await until(() => one.told.presence.length === 2);
	assert.deepEqual(one.told.presence, [{ peer: id, online: false }, { peer: id, online: true }]);
});

test("what was read is told until it is known", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await peer.all(user, numbered("m", 6));
	const told = () => peer.got(50007).map(({ received, read }) => [received, read]);
	one.mark(id, { received: 3 });
	await until(() => told().length === 1);
	// While it is offline, and while an answer is awaited.
	line.close();
	await until(() => one.state === "connecting");
	one.mark(id, { read: 4 });
	one.mark(id, { received: 2 });
	await again(one, () => line.open());
	await until(() => told().length === 2 && one.wire.got.some(({ read }) => read === 4));
	line.hold("up");
	one.mark(id, { read: 5 });
	one.mark(id, { read: 6 });
	one.mark(id, { received: 7 });
	await again(one, () => line.cut());
	await until(() => told().at(-1)?.[0] === 7 && one.wire.got.some(({ read }) => read === 6));
	assert.deepEqual(told(), [[3, 0], [4, 4], [7, 6]]);
	const marks = () => one.wire.sent.filter(({ type }) => type === 4).map(({ received, read }) => [received, read]);
	const last = [[5, 5], [7, 6]];
	assert.deepEqual(marks(), [[3, 0], [4, 4], ...last]);
	// A confirmed position is not sent again, and a refused one does not stop the next.
	await again(one, () => line.cut());
	one.mark(id, { received: 100 });
	await until(() => one.wire.got.some(({ code }) => code === 400));
	await one.unread(id);
	assert.deepEqual(marks().slice(4), [[100, 6]]);
});

test("what is marked while an answer is awaited is told after it", async (t) => {
	const { one, line, peer, user, id } = await two(t);
	await peer.all(user, numbered("m", 6));
	line.hold("up");
	for (let seq = 3; seq <= 6; seq++) one.mark(id, { received: seq });
	line.release();
	await until(() => peer.got(50007).at(-1)?.received === 6);
	assert.equal(one.wire.sent.filter(({ type }) => type === 4).length, 2);
});

// Ids and random numbers

test("ids are UUIDs of version 7, and rise", () => {
	const before = world.Date.now();
	const first = newId();
	const time = (/** @type {string} */ id) => Number.parseInt(id.replace("-", "").slice(0, 12), 16);
	assert.ok(time(first) >= before && time(first) <= world.Date.now());
	let last = first;
	const variants = new Set();
	for (let n = 0; n < 10_000; n++) {
		if (n === 5_000) world.adjust(-86_400_000);
		if (n === 7_000) world.adjust(2 * 86_400_000);
		const id = newId();
		assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
		assert.ok(id > last && time(id) > time(last), `${last} ${id}`);
		variants.add(id[19]);
		last = id;
	}
	assert.equal(variants.size, 4);
	assert.ok(time(last) >= before + 86_400_000);
});

test("a back-off doubles up to half a minute, and is anything below that", () => {
	const most = { 0: 500, 1: 1_000, 2: 2_000, 5: 16_000, 6: HALF_MINUTE, 1_000: HALF_MINUTE, 5_000: HALF_MINUTE };
	for (const [n, ms] of Object.entries(most)) {
		for (const random of [0, 0.5, 1]) {
			world.random = random;
			assert.equal(backoff(Number(n)), random * ms);
		}
	}
});
