/** The page's beginning: who is signed in, and what that user sees. */

import { chat } from "./chat.js";
import { h } from "./dom.js";
import { signIn } from "./signin.js";
import { Api, backoff } from "./tandem.js";
import { lang, words } from "./words.js";

const query = new URLSearchParams(location.search);

/**
 * Asks who is signed in until the server answers.
 *
 * @param {Api} api
 */
async function asked(api) {
	for (let attempts = 0; ; attempts++) {
		const session = await api.session().catch(() => null);
		if (session) return session;
		document.body.replaceChildren(h("main.alone", { role: "status" }, words.connecting));
		await new Promise((done) => setTimeout(done, backoff(attempts)));
	}
}

/**
 * Shows the chat to a user who is signed in, and else a form; `token` is what signing in there has given.
 *
 * @param {string | null} token
 */
async function begin(token = null) {
	const api = new Api({ url: location.origin, uid: query.get("uid") ?? "" });
	let session = await asked(api);
	const cookieless = Boolean(token) && !session.user;
	if (token && cookieless) {
		api.token = token; // the browser keeps no cookie, so this page alone is signed in
		session = await asked(api);
	}
	const { auth, user, users, max_content: most, log } = session;
	if (!user && api.uid && auth === "token") location.replace(location.pathname);
	else if (!user) {
		const notice = navigator.cookieEnabled ? query.has("ended") && words.ended : words.cookies;
		document.body.replaceChildren(signIn({ api, users, notice: notice || "", entered: begin }));
	} else {
		// Each request says whom it means from now on: another tab may sign in as another user.
		api.uid = user.id;
		// A cookie from before proves that what an older page has left is this user's, of this installation.
		const inherit = auth === "token" && !token;
		const notice = cookieless ? words.cookies : "";
		document.body.replaceChildren(chat({ api, user, most, log, inherit, notice }));
	}
}

/** What cannot be mended here is said, and stays in the browser's log. */
async function run() {
	try {
		document.documentElement.lang = lang;
		await begin();
	} catch (error) {
		document.body.replaceChildren(h("main.alone", { role: "alert" }, words.broken));
		throw error;
	}
}

void run();
