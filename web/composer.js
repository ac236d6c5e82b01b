/** Where a message is written: keys, drafts, and how much room is left. */

import { h, sign } from "./dom.js";
import { length } from "./text.js";
import { words } from "./words.js";

const NEAR = 200; // characters before the end from which on they are counted

/** The form; `key` names the draft, `most` characters may be sent, `typing` is told of what is typed. */
export function composer({ key, most, send, typing }) {
	const left = h("span.quiet", { role: "status" });
	const text = h("textarea", {
		rows: 1,
		dir: "auto",
		placeholder: words.write,
		ariaLabel: words.write,
		enterKeyHint: "send",
		value: localStorage.getItem(key) ?? "",
		oninput: () => {
			changed();
			if (text.value) typing();
		},
		onkeydown: (event) => {
			// While an input method composes, Enter chooses a word.
			if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) submit(event);
		},
	});

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
		const { value } = text;
		const rest = most - length(value.trimEnd());
		left.textContent = rest < NEAR ? words.left(rest) : "";
		text.ariaInvalid = String(rest < 0);
		try {
			if (value) localStorage.setItem(key, value);
			else localStorage.removeItem(key);
		} catch {
			// no room
		}
		if (CSS.supports("field-sizing", "content")) return; // style.css does it
		text.style.height = "auto";
		text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`; // with its border
	}

	setTimeout(changed); // once it has a size
	return h("form.composer", { onsubmit: submit }, text, left, h("button.strong.round", sign("send", words.send)));
}
