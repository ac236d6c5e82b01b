/** The outbox of `tandem.js` in IndexedDB: it outlives the page, and all tabs have the same. */

const STORE = "items";

const done = (request) =>
	new Promise((resolve, reject) => {
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});

export class Outbox {
	#database;

	constructor(name = "tandem") {
		const request = indexedDB.open(name, 1);
		request.onupgradeneeded = () => {
			request.result.createObjectStore(STORE, { keyPath: "id" }).createIndex("user", "user");
		};
		this.#database = done(request);
		this.#database.catch(() => {}); // each use says so
	}

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
