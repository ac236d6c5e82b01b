/** What is in a message's text: links, and whether it is emoji alone. Nothing here makes HTML of it. */

// Up to what cannot be part of a URL, or would make it look like another one: spaces, controls, bidi marks.
const LINK = /https?:\/\/[^\s<>"`\p{Cc}\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+/giu;
const TRAILING = /[.,:;!?'*_~\u3001\u3002\uff01\uff09\uff0c\uff1a\uff1b\uff1f\u300b\u300d\u300f\u3011]+$/u;
const EMOJI = /^(?:\p{RGI_Emoji}\s*){1,3}$/v;

const count = (text, character) => text.split(character).length - 1;

/** A link without the punctuation of the sentence around it, and without a bracket that was opened before it. */
function trimmed(link) {
	for (;;) {
		const shorter = link.replace(TRAILING, "");
		const closing = shorter.endsWith(")") && count(shorter, ")") > count(shorter, "(");
		const next = closing ? shorter.slice(0, -1) : shorter;
		if (next === link) return link;
		link = next;
	}
}

/** The text in pieces: `{ text }`, or `{ text, href }` for an http or https link that is whole. */
export function pieces(text) {
	const found = [];
	let end = 0;
	for (const { 0: match, index } of text.matchAll(LINK)) {
		const link = trimmed(match);
		if (!URL.canParse(link)) continue;
		if (index > end) found.push({ text: text.slice(end, index) });
		found.push({ text: link, href: new URL(link).href });
		end = index + link.length;
	}
	if (end < text.length) found.push({ text: text.slice(end) });
	return found;
}

/** Whether a text is one to three emoji and nothing else. */
export const isEmoji = (text) => text.length < 100 && EMOJI.test(text);

/** How many characters the server counts. */
export const length = (text) => [...text].length;
