/** The outbox of `tandem.js` in IndexedDB: it outlives the page, and all tabs have the same. */

/** @import { Emitter, Item, Outbox } from "./tandem.js" */

/** @typedef {{ dropped: number, lost: undefined }} OutboxEvents */

/**
 * Opens the database. Rejects where the browser allows none; some browsers never answer.
 *
 * @returns {Promise<IDBDatabase>}
 */
function opened() {
	return new Promise((resolve, reject) => {
		const request = indexedDB.open("tandem", 1);
		request.onupgradeneeded = () => {
			request.result.createObjectStore("items", { keyPath: "id" }).createIndex("user", "user");
		};
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});
}

/**
 * The outbox for one installation, by its id `log`: users of another one have the same numbers, but are other people.
 *
 * Items of earlier versions do not say which installation they are for. With `inherit` the first
 * user who signs in takes them over, else they are deleted, and the event "dropped" tells how many. The event "lost" tells that the browser
 * has closed the database, perhaps to delete it.
 *
 * @param {{ log: string, inherit: boolean }} options
 */
export function outbox({ log, inherit }) {
	const events = new EventTarget();
	/** @type {(user: string) => string} */
	const owner = (user) => `${log} ${user}`; // earlier versions had `user` alone
	/** @type {Promise<IDBDatabase> | null} */
	let opening = null; // the connection
	/** @type {Promise<void> | null} */
	let inherited = null;

	function connection() {
		if (opening) return opening;
		const mine = opened().then((database) => {
			const closed = () => {
				database.close();
				if (opening !== mine) return;
				opening = null;
				events.dispatchEvent(new Event("lost"));
			};
			return Object.assign(database, { onclose: closed, onversionchange: closed });
		});
		mine.catch(() => drop(mine));
		return (opening = mine);
	}

	/**
	 * Lets go of a connection, so that the next use opens another one.
	 *
	 * @param {Promise<IDBDatabase>} mine
	 */
	function drop(mine) {
		if (opening === mine) opening = null;
		mine.then((database) => database.close()).catch(() => {});
	}

	/**
	 * What `work` asks of the items, that being the `whole` of it; tried again once, on another connection.
	 *
	 * @template T
	 * @param {IDBTransactionMode} mode
	 * @param {(items: IDBObjectStore) => IDBRequest<T>} work
	 */
	async function run(mode, work, whole = true) {
		for (let last = false; ; last = true) {
			const mine = connection();
			try {
				return await attempt(await mine, mode, work, whole);
			} catch (error) {
				drop(mine); // a browser may have closed it without telling
				if (last) throw error;
			}
		}
	}

	/**
	 * @template T
	 * @param {IDBDatabase} database
	 * @param {IDBTransactionMode} mode
	 * @param {(items: IDBObjectStore) => IDBRequest<T>} work
	 * @param {boolean} whole
	 * @returns {Promise<T>}
	 */
	function attempt(database, mode, work, whole) {
		return new Promise((resolve, reject) => {
			const transaction = database.transaction("items", mode);
			const request = work(transaction.objectStore("items"));
			transaction.oncomplete = () => resolve(request.result);
			transaction.onabort = () => reject(transaction.error);
			if (whole) transaction.commit(); // or what was asked just before the page goes would go with it
		});
	}

	/**
	 * Takes over what earlier versions kept for a user, or deletes it.
	 *
	 * @param {string} user
	 */
	async function inheritFor(user) {
		let dropped = 0;
		/** @type {(items: IDBObjectStore) => IDBRequest<IDBCursorWithValue | null>} */
		const walk = (items) => {
			dropped = 0;
			const request = items.index("user").openCursor(user);
			request.onsuccess = () => {
				const cursor = request.result;
				if (!cursor) return;
				if (inherit) cursor.update({ ...cursor.value, user: owner(user) });
				else {
					cursor.delete();
					dropped++;
				}
				cursor.continue();
			};
			return request;
		};
		await run("readwrite", walk, false);
		if (dropped) events.dispatchEvent(new CustomEvent("dropped", { detail: dropped }));
	}

	const methods = {
		/**
		 * The items of a user, oldest first: ids rise with time.
		 *
		 * @param {string} user
		 */
		async all(user) {
			inherited ??= inheritFor(user).catch(() => {
				inherited = null; // asked again next time
			});
			await inherited;
			/** @type {Item[]} */
			const items = await run("readonly", (items) => items.index("user").getAll(owner(user)));
			return items.map((item) => ({ ...item, user }));
		},
		/** @param {Item} item */
		put: (item) => run("readwrite", (items) => items.put({ ...item, user: owner(item.user) })),
		/** @param {string} id */
		delete: (id) => run("readwrite", (items) => items.delete(id)),
	};
	return /** @type {Emitter<OutboxEvents> & Outbox} */ (Object.assign(events, methods));
}
