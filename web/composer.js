/** Where a message is written: keys, drafts, and how much room is left. */

import { h, sign } from "./dom.js";
import { length } from "./text.js";
import { words } from "./words.js";

const NEAR = 200; // characters before the end from which on they are counted
const BEYOND = 4; // times what may be sent: so much the field takes, since browsers need minutes to lay out a book

/**
 * The form: `{ element, focus, follow }`.
 *
 * `draft` reads and writes what is kept of the text, `most` characters may be sent, `typing` is told of what is typed.
 *
 * @param {object} options
 * @param {{ read: () => string | null, write: (text: string) => void }} options.draft
 * @param {number} options.most
 * @param {(content: string) => void} options.send
 * @param {() => void} options.typing
 */
export function composer({ draft, most, send, typing }) {
	const bound = BEYOND * most;
	let kept = (draft.read() ?? "").slice(0, bound); // as it was last read or written here
	const left = h("span.quiet", { role: "status" });
	const text = h("textarea", {
		rows: 1,
		dir: "auto",
		placeholder: words.write,
		ariaLabel: words.write,
		enterKeyHint: "send",
		value: kept,
		onbeforeinput: (event) => {
			const { data, dataTransfer } = event;
			const added = (data ?? dataTransfer?.getData("text/plain") ?? "").length;
			const size = text.value.length - (text.selectionEnd - text.selectionStart) + added;
			if (!added || size <= bound) return;
			event.preventDefault(); // nothing is lost of what was there, and it can be undone
			left.textContent = words.tooLong(size, most);
		},
		oninput: () => {
			const size = text.value.length;
			if (size > bound) text.value = kept; // what came otherwise, before it is laid out
			changed();
			if (size > bound) left.textContent = words.tooLong(size, most);
			else if (size) typing();
		},
		onkeydown: (event) => {
			// While an input method composes, Enter chooses a word.
			if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) submit(event);
		},
	});

	/** @param {Event} event */
	function submit(event) {
		event.preventDefault();
		const content = text.value.trimEnd();
		if (!content || length(content) > most) return;
		text.value = "";
		changed();
		send(content);
		text.focus();
	}

	function changed() {
		if (text.value !== kept) draft.write((kept = text.value));
		show();
	}

	/** Takes over what another tab has made of the draft, unless it was changed here since. */
	function follow() {
		const now = draft.read()?.slice(0, bound) ?? kept; // what the browser has deleted stays in the field
		if (now === kept || text.value !== kept) return;
		text.value = kept = now;
		show();
	}

	function show() {
		const rest = most - length(text.value.trimEnd());
		left.textContent = rest < NEAR ? words.left(rest) : "";
		text.ariaInvalid = String(rest < 0);
		if (CSS.supports("field-sizing", "content")) return; // style.css does it
		text.style.height = "auto";
		text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`; // with its border
	}

	setTimeout(show); // once it has a size
	const button = h("button.strong.round", sign("send", words.send));
	return { element: h("form.composer", { onsubmit: submit }, text, left, button), focus: () => text.focus(), follow };
}
