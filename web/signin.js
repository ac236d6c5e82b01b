/** Signing in, signing up, and, where the server believes it, being one of its users. */

import { fill, h, portrait } from "./dom.js";
import { person } from "./list.js";
import { refusal } from "./tandem.js";
import { words } from "./words.js";

/** @import { Properties } from "./dom.js" */
/** @import { Person } from "./list.js" */
/** @import { Api, User } from "./tandem.js" */

/** @param {unknown} error */
function explained(error) {
	const { code, message, retryAfter } = refusal(error);
	if (code === 401) return words.wrong;
	if (code === 409) return words.taken;
	if (code === 429) return words.tooOften(retryAfter);
	return code === 400 ? words.invalid(message) : words.unavailable;
}

/** @type {(peer: Person) => HTMLElement} */
const choice = (peer) => h("li", h("a", { href: `?uid=${peer.id}` }, portrait(peer), h("bdi", peer.name)));
/** @type {(label: string, input: HTMLInputElement) => HTMLElement} */
const field = (label, input) => h("label", label, input);
/** @type {(properties: Properties) => HTMLInputElement} */
const input = (properties) => h("input", { required: true, ...properties });

/**
 * The form; `entered` is called once a user is signed in, `notice` says why that is needed.
 *
 * @param {object} options
 * @param {Api} options.api
 * @param {User[]} options.users whom one can choose to be
 * @param {string} options.notice
 * @param {(token: string | null) => Promise<void>} options.entered
 */
export function signIn({ api, users, notice, entered }) {
	const element = h("main.alone");
	const problem = h("p.error", { role: "alert" }, notice);

	/** @param {boolean} isNew */
	function show(isNew) {
		const [title, other] = isNew ? [words.signUp, words.signIn] : [words.signIn, words.signUp];
		/** @param {number} minLength */
		const least = (minLength) => (isNew ? { minLength } : {});
		const name = input({ name: "name", autocomplete: "username", maxLength: 15, ...least(5) });
		const nick = input({ name: "nick", autocomplete: "nickname", maxLength: 10, ...least(2) });
		const password = input({
			name: "password",
			type: "password",
			autocomplete: isNew ? "new-password" : "current-password",
			maxLength: 72,
			...least(8),
		});
		const button = h("button.strong", title);

		/** @param {Event} event */
		async function submit(event) {
			event.preventDefault();
			button.disabled = true;
			problem.textContent = "";
			try {
				if (isNew) await api.register(name.value, nick.value, password.value);
				const { token } = await api.signIn(name.value, password.value);
				await entered(token);
			} catch (error) {
				problem.textContent = explained(error);
			}
			button.disabled = false;
		}

		const change = () => {
			problem.textContent = "";
			show(!isNew).focus();
		};
		fill(
			element,
			h("h1", "Tandem"),
			h(
				"form",
				{ onsubmit: submit, ariaLabel: title },
				field(words.userName, name),
				isNew && field(words.nickName, nick),
				field(words.password, password),
				problem,
				button,
				h("button", { type: "button", onclick: change }, other),
			),
			users.length > 0 &&
				h("nav", { ariaLabel: words.pick }, h("h2", words.pick), h("ul", users.map(person).map(choice))),
		);
		return name;
	}

	show(false);
	return element;
}
