/** The page's beginning: who is here, and what that one sees. */

import { chat } from "./chat.js";
import { h } from "./dom.js";
import { signIn } from "./signin.js";
import { Api, backoff } from "./tandem.js";
import { lang, words } from "./words.js";

document.documentElement.lang = lang;

const query = new URLSearchParams(location.search);

/** Shows the chat to whoever is signed in, and a form to whoever is not. */
async function begin() {
	const api = new Api({ url: location.origin, uid: query.get("uid") ?? "" });
	let session;
	for (let attempts = 0; !(session = await api.session().catch(() => null)); attempts++) {
		document.body.replaceChildren(h("main.alone", { role: "status" }, words.connecting));
		await new Promise((done) => setTimeout(done, backoff(attempts)));
	}
	const { auth, user, users, max_content: most } = session;
	if (!user && api.uid && auth === "token") location.replace(location.pathname);
	else if (!user) {
		const notice = query.has("ended") ? words.ended : "";
		document.body.replaceChildren(signIn({ api, users, notice, entered: begin }));
	} else {
		// Each request says whom it means from now on: another tab may sign in as somebody else.
		api.uid = String(user.id);
		document.body.replaceChildren(chat({ api, user, most }));
	}
}

begin();
