/** Drafts in the browser's storage, so that they outlive the page; in memory where the browser allows none. */

/** The storage, or null: a browser that blocks a site's data throws, others have none. */
function reachable() {
	try {
		window.localStorage?.getItem("tandem");
		return window.localStorage;
	} catch {
		return null;
	}
}

/**
 * The drafts of `user` at the installation with the id `log`, by peer.
 *
 * Those of earlier versions do not say which installation they are for: with `inherit` they are taken over, else deleted.
 */
export function drafts({ log, user, inherit }) {
	const storage = reachable();
	const unsaved = new Map(); // by peer: what the storage did not take
	const prefix = `tandem draft ${log} ${user} `;

	/** Calls `work` with each key that begins so, and with what follows. */
	function each(start, work) {
		const keys = Object.keys(storage ?? {}).filter((key) => key.startsWith(start));
		for (const key of keys) work(key, key.slice(start.length));
	}

	each(`tandem draft ${user} `, (key, peer) => {
		if (peer.includes(" ")) return; // of an installation that has this name
		const text = storage.getItem(key);
		storage.removeItem(key);
		if (inherit) write(peer, text);
	});

	/** The draft for a peer; null if there never was one, or if the browser has deleted it. */
	function read(peer) {
		return unsaved.get(peer) ?? storage?.getItem(prefix + peer) ?? null;
	}

	function write(peer, text) {
		unsaved.delete(peer);
		try {
			storage.setItem(prefix + peer, text); // an empty one too: other tabs see that it is at its end
		} catch {
			unsaved.set(peer, text); // blocked, or no room
		}
	}

	/** Deletes all of them. */
	function clear() {
		unsaved.clear();
		each(prefix, (key) => storage.removeItem(key));
	}

	return { read, write, clear };
}
