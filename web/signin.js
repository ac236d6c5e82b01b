/** Signing in, signing up, and, where the server believes it, being one of its users. */

import { fill, h, portrait } from "./dom.js";
import { person } from "./list.js";
import { words } from "./words.js";

function explained({ code, message, retryAfter }) {
	if (code === 401) return words.wrong;
	if (code === 409) return words.taken;
	if (code === 429) return words.tooOften(retryAfter);
	return code === 400 ? words.invalid(message) : words.unavailable;
}

const choice = (peer) => h("li", h("a", { href: `?uid=${peer.id}` }, portrait(peer), h("bdi", peer.name)));
const field = (label, properties) => h("label", label, h("input", { required: true, ...properties }));

/** The form; `entered` is called once somebody is in, `notice` says why that is needed. */
export function signIn({ api, users, notice, entered }) {
	const element = h("main.alone");
	const problem = h("p.error", { role: "alert" }, notice);

	async function submit(event, isNew) {
		event.preventDefault();
		const { name, nick, password } = event.target.elements;
		event.submitter.disabled = true;
		problem.textContent = "";
		try {
			if (isNew) await api.register(name.value, nick.value, password.value);
			const { token } = await api.signIn(name.value, password.value);
			await entered(token);
		} catch (error) {
			problem.textContent = explained(error);
		}
		event.submitter.disabled = false;
	}

	function show(isNew) {
		const [title, other] = isNew ? [words.signUp, words.signIn] : [words.signIn, words.signUp];
		const least = (minLength) => (isNew ? { minLength } : {});
		const change = () => {
			problem.textContent = "";
			show(!isNew);
			element.querySelector("input").focus();
		};
		fill(
			element,
			h("h1", "Tandem"),
			h(
				"form",
				{ onsubmit: (event) => submit(event, isNew), ariaLabel: title },
				field(words.userName, { name: "name", autocomplete: "username", maxLength: 15, ...least(5) }),
				isNew && field(words.nickName, { name: "nick", autocomplete: "nickname", maxLength: 10, ...least(2) }),
				field(words.password, {
					name: "password",
					type: "password",
					autocomplete: isNew ? "new-password" : "current-password",
					maxLength: 72,
					...least(8),
				}),
				problem,
				h("button.strong", title),
				h("button", { type: "button", onclick: change }, other),
			),
			users.length > 0 &&
				h("nav", { ariaLabel: words.pick }, h("h2", words.pick), h("ul", users.map(person).map(choice))),
		);
	}

	show(false);
	return element;
}
