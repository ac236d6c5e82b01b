/** Tests of text.js; test_text.py runs each by its name. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { load, seeded } from "./scene.mjs";

/** @import { Piece } from "../../web/text.js" */

const { isEmoji, length, pieces } = await load("text.js", "TEXT");

/** @type {(text: string) => string[]} */
const links = (text) => pieces(text).filter(({ href }) => href).map((piece) => piece.text);

test("a link ends before the punctuation of the sentence", () => {
	const link = "http://a.example/b";
	for (const end of [
		".", ",", ":", ";", "!", "?", "'", "*", "_", "~", "...", "?!", ").", "\u3002", "\uff0c", "\u3001",
		"\uff01", "\uff1f", "\uff1b", "\uff1a", "\uff09", "\u300b", "\u300d", "\u300f", "\u3011", "\u201d",
		"\u2019", "\u2026", '"', ">", "`",
	]) {
		assert.deepEqual(links(`see ${link}${end}`), [link], end);
		assert.deepEqual(links(`see ${link}${end} and so on`), [link], end);
	}
	const chinese = [{ text: "\u770b" }, { text: link, href: link }, { text: "\u3002\u597d" }];
	assert.deepEqual(pieces(chinese.map(({ text }) => text).join("")), chinese);
	assert.deepEqual(links(`\u770b${link}\uff0c\u597d`), [link]);
});

test("what belongs to a link stays", () => {
	for (const link of [
		"http://a.example/", "https://a.example/b/", "http://a.example/b?c=d&e=%20#f",
		"http://a.example/b.c,d;e:f", "http://a.example:8080/~b", "http://user@a.example/",
		"http://127.0.0.1/", "http://[::1]/", "http://a.example/\u4e2d\u6587",
		"http://\u4e2d\u6587.example/b", "http://a.example/\u{1f600}/b", "HTTPS://A.example/",
		"http://a.example/a-", "http://a.example/c++",
	]) {
		const plain = (/** @type {Piece} */ { text, href }) => (href ? { text, href } : { text });
		assert.deepEqual(pieces(`x ${link} y`).map(plain), [{ text: "x " }, { text: link, href: new URL(link).href }, { text: " y" }]);
		assert.deepEqual(pieces(link).map(plain), [{ text: link, href: new URL(link).href }]);
	}
});

test("a bracket belongs to a link in which it was opened", () => {
	const link = "http://a.example/b_(c)";
	assert.deepEqual(links(`(see ${link})`), [link]);
	assert.deepEqual(links(`(${link}).`), [link]);
	assert.deepEqual(links(`${link}.`), [link]);
	assert.deepEqual(links("(http://a.example/b)"), ["http://a.example/b"]);
	assert.deepEqual(links("((http://a.example/b))"), ["http://a.example/b"]);
	assert.deepEqual(links("http://a.example/(b)/(c)"), ["http://a.example/(b)/(c)"]);
	assert.deepEqual(links("(http://a.example/b.) c"), ["http://a.example/b"]);
});

test("only http and https are links", () => {
	for (const text of [
		"javascript:alert(1)", "JavaScript://a.example/%0aalert(1)", "data:text/html,<b>",
		"ftp://a.example/", "file:///a", "//a.example/", "a.example", "mailto:a@a.example", "vbscript:x",
		"http:/a.example", "http://", "https://?", "http://[", "http://a.example:99999/", "blob:null/x",
	])
		assert.deepEqual(pieces(text), [{ text }], text);
	assert.deepEqual(links("javascript:http://a.example/"), ["http://a.example/"]);
	assert.deepEqual(links("<a href='http://a.example/'>"), ["http://a.example/"]);
	assert.deepEqual(links("two: http://a.example/ https://b.example/"), ["http://a.example/", "https://b.example/"]);
});

test("a link that does not show where it leads names the host", () => {
	for (const [link, host] of Object.entries({
		"https://apple.com@evil.example/": "evil.example",
		"https://apple.com:443@evil.example/": "evil.example",
		"https://apple.com%2f@evil.example/a": "evil.example",
		"https://\u0430\u0440\u0440\u04cf\u0435.com/": "xn--80ak6aa92e.com",
		"http://\u4e2d\u6587.example/b": "xn--fiq228c.example",
		"http://stra\u00dfe.example": "xn--strae-oqa.example",
		"http://%61pple.example/": "apple.example",
		"http://2130706433/": "127.0.0.1",
		"http:////evil.example/": "evil.example",
		"http://user@a.example/": "a.example",
	})) {
		assert.deepEqual(pieces(link), [{ text: link, href: new URL(link).href, host }]);
	}
	for (const link of [
		"http://a.example", "HTTPS://A.Example/", "http://a.example:80/", "http://a.example:8080?b", "http://a.example#b",
		"http://127.0.0.1:3000/", "http://[::1]:3000/", "http://a.example/b@c.example", "http://a.example/?u=http://b.example/",
		"http://xn--fiq228c.example/",
	]) {
		assert.deepEqual(pieces(link), [{ text: link, href: new URL(link).href }]);
	}
});

test("what makes a link look like another one ends it", () => {
	const ends = [
		"\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\u200e",
		"\u200f", "\u061c", "\u200b", "\u200c", "\u2060", "\ufeff", "\u00ad", "\u0000", "\u0007", "\u0085",
		"\u2028", "\u2029", "\u00a0", "\u3000", "\t", "\n", "\u{e0061}",
	];
	for (const end of ends) {
		assert.deepEqual(links(`http://a.example/b${end}moc.elpmaxe`), ["http://a.example/b"], JSON.stringify(end));
	}
});

test("one to three emoji alone are found", () => {
	for (const text of [
		"\u{1f600}", "\u{1f600}\u{1f600}\u{1f600}", "\u{1f468}\u200d\u{1f469}\u200d\u{1f467}\u200d\u{1f466}",
		"\u{1f1e8}\u{1f1f3}", "\u{1f44d}\u{1f3fd} \u2764\ufe0f", "1\ufe0f\u20e3", "\u{1f600}\n",
		"\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
	])
		assert.equal(isEmoji(text), true, text);
	for (const text of [
		"", " ", "a", "1", "#", "\u00a9", "\u{1f600}a", "a\u{1f600}", "\u{1f600}".repeat(4), "\u4f60\u597d",
		"\u{1f600} ".repeat(40), " \u{1f600}",
	])
		assert.equal(isEmoji(text), false, text);
});

test("a length is that in code points", () => {
	for (const [text, count] of /** @type {[string, number][]} */ ([
		["", 0], ["abc", 3], ["\u4f60\u597d", 2], ["\u{1f600}", 1], ["\u{1f44d}\u{1f3fd}", 2],
		["e\u0301", 2], ["\ud83d", 1],
	]))
		assert.equal(length(text), count);
});

test("pieces give the text back, whatever it is", () => {
	const random = seeded(Number(process.env.SEED ?? 20260102));
	const below = (/** @type {number} */ n) => Math.floor(random() * n);
	const parts = [
		"http://", "https://", "HTTP://", "a.example", "/", "b", "(", ")", ".", ",", "?", "\u3002", "\uff09",
		" ", "\n", "\u202e", "\ud83d", "\ude00", "\u{1f600}", "\u4e2d", "[", "]", ":", "javascript:", "<",
		'"', "&", "%", "#", "@", "\u0000",
	];
	const any = () => (below(3) ? parts[below(parts.length)] : String.fromCharCode(below(0x10000)));
	let found = 0;
	for (let n = 0; n < 20_000; n++) {
		const text = Array.from({ length: below(12) }, any).join("");
		const all = pieces(text);
		assert.equal(all.map((piece) => piece.text).join(""), text);
		for (const [place, piece] of all.entries()) {
			assert.ok(piece.text, JSON.stringify(text));
			assert.ok(piece.href || !all[place + 1] || all[place + 1].href, JSON.stringify(text));
			if (!piece.href) continue;
			found++;
			assert.match(piece.href, /^https?:\/\/[^\s<>"]+$/);
			assert.match(piece.text, /^https?:\/\//i);
			assert.equal(piece.href, new URL(piece.text).href);
			assert.deepEqual(links(piece.text), [piece.text]);
		}
		assert.equal(typeof isEmoji(text), "boolean");
		assert.equal(length(text), Array.from(text).length);
	}
	assert.ok(found > 1_000);
});

test("a long text takes no long time", () => {
	for (const text of [
		`http://a.example/${")".repeat(1_000_000)}`, `http://a.example/${".".repeat(1_000_000)}`,
		`http://a.example/${".".repeat(1_000_000)}a`, "http://".repeat(150_000), "\u{1f600} ".repeat(300_000),
	]) {
		// A time that grows with the square of the length would not end before Node is ended.
		assert.equal(pieces(text).map((piece) => piece.text).join(""), text);
		assert.equal(isEmoji(text), false);
	}
});
