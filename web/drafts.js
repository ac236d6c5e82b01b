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
 *
 * @param {{ log: string, user: string, inherit: boolean }} options
 */
export function drafts({ log, user, inherit }) {
	const storage = reachable();
	/** @type {Map<string, string>} */
	const unsaved = new Map(); // by peer: what the storage did not take
	const prefix = `tandem draft ${log} ${user} `;

	/**
	 * Calls `work` with the storage, each key that begins so, and what follows.
	 *
	 * @param {string} start
	 * @param {(storage: Storage, key: string, rest: string) => void} work
	 */
	function each(start, work) {
		if (!storage) return;
		const keys = Object.keys(storage).filter((key) => key.startsWith(start));
		for (const key of keys) work(storage, key, key.slice(start.length));
	}

	each(`tandem draft ${user} `, (storage, key, peer) => {
		if (peer.includes(" ")) return; // of an installation that has this name
		const text = storage.getItem(key);
		storage.removeItem(key);
		if (inherit && text !== null) write(peer, text);
	});

	/**
	 * The draft for a peer; null if there never was one, or if the browser has deleted it.
	 *
	 * @param {string} peer
	 */
	function read(peer) {
		return unsaved.get(peer) ?? storage?.getItem(prefix + peer) ?? null;
	}

	/**
	 * @param {string} peer
	 * @param {string} text
	 */
	function write(peer, text) {
		unsaved.set(peer, text);
		if (!storage) return;
		try {
			storage.setItem(prefix + peer, text); // an empty one too: other tabs see that it is at its end
			unsaved.delete(peer);
		} catch {
			// the browser has no space left
		}
	}

	/** Deletes all of them. */
	function clear() {
		unsaved.clear();
		each(prefix, (storage, key) => storage.removeItem(key));
	}

	return { read, write, clear };
}
