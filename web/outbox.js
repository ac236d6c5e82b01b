/** The outbox of `tandem.js` in IndexedDB: it outlives the page, and all tabs have the same. */

const STORE = "items";

const done = (request) =>
	new Promise((resolve, reject) => {
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});

async function opened() {
	const request = indexedDB.open("tandem", 1);
	request.onupgradeneeded = () => {
		request.result.createObjectStore(STORE, { keyPath: "id" }).createIndex("user", "user");
	};
	return done(request);
}

export class Outbox {
	#database = opened().catch(() => null); // each use fails then

	/** The items of a user, oldest first: ids rise with time. */
	async all(user) {
		return done((await this.#store("readonly")).index("user").getAll(user));
	}

	async put(item) {
		await done((await this.#store("readwrite")).put(item));
	}

	async delete(id) {
		await done((await this.#store("readwrite")).delete(id));
	}

	async #store(mode) {
		return (await this.#database).transaction(STORE, mode).objectStore(STORE);
	}
}
