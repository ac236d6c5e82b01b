/** What is in a message's text: links, and whether it is emoji alone. Nothing here makes HTML of it. */

// Up to what cannot be part of a URL, or would make it look like another one.
const LINK = /https?:\/\/[^\s<>"`\p{C}\u3000-\u303f\uff01-\uff1f]+/giu;
const TRAILING = /[^\p{L}\p{M}\p{N}\p{Cs}/=&#%+$@)-]/u;
const EMOJI = emoji();

/** One to three emoji. A literal of this kind would keep an older browser from loading the page. */
function emoji() {
	try {
		return new RegExp("^(?:\\p{RGI_Emoji}\\s*){1,3}$", "v");
	} catch {
		return /^(?:\p{Emoji_Presentation}\s*){1,3}$/u;
	}
}

/**
 * A piece of a text. One with `href` is a link; `host` is where it leads if a reader could take it for a link to elsewhere.
 *
 * @typedef {{ text: string, href?: string, host?: string }} Piece
 */

/**
 * A link without the punctuation around it, and without a bracket that was opened before it.
 *
 * @param {string} link
 */
function trimmed(link) {
	let end = link.length;
	let open = link.split("(").length - link.split(")").length;
	for (let last; (last = link[end - 1]); end--) {
		if (last === ")" ? open >= 0 : !TRAILING.test(last)) break;
		if (last === ")") open++;
	}
	return link.slice(0, end);
}

/**
 * What a link leads to as its text does not show it: the host, in punycode; "" if the text shows just that.
 *
 * @param {string} link
 * @param {URL} url
 */
function hidden(link, { hostname }) {
	const shown = /^[^/]*\/\/([^/?#]*?)(?::\d*)?(?:[/?#]|$)/.exec(link)?.[1];
	return shown?.toLowerCase() === hostname ? "" : hostname;
}

/**
 * The text in pieces. Links are whole, and http or https.
 *
 * @param {string} text
 */
export function pieces(text) {
	/** @type {Piece[]} */
	const found = [];
	let end = 0;
	for (const { 0: match, index } of text.matchAll(LINK)) {
		const link = trimmed(match);
		if (!URL.canParse(link)) continue;
		if (index > end) found.push({ text: text.slice(end, index) });
		const url = new URL(link);
		const host = hidden(link, url);
		found.push({ text: link, href: url.href, ...(host && { host }) });
		end = index + link.length;
	}
	if (end < text.length) found.push({ text: text.slice(end) });
	return found;
}

/**
 * Whether a text is one to three emoji.
 *
 * @param {string} text
 */
export const isEmoji = (text) => text.length < 100 && EMOJI.test(text);

/**
 * How many characters the server counts.
 *
 * @param {string} text
 */
export function length(text) {
	let count = 0;
	for (const _ of text) count++;
	return count;
}
