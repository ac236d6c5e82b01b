/** The outbox of `tandem.js` in IndexedDB: it outlives the page, and all tabs have the same. */

/** Opens the database. Rejects where the browser allows none; some browsers never answer. */
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
 * Items of earlier versions do not say which installation they are for. With `inherit` they are taken over for the user
 * who asks first, else they are deleted, and the event "dropped" tells how many. The event "lost" tells that the browser
 * has closed the database, perhaps to delete it.
 */
export function outbox({ log, inherit }) {
	const events = new EventTarget();
	const owner = (user) => `${log} ${user}`; // earlier versions had `user` alone
	let opening = null; // a promise of the connection
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

	/** Lets go of a connection, so that the next use opens another one. */
	function drop(mine) {
		if (opening === mine) opening = null;
		mine.then((database) => database.close()).catch(() => {});
	}

	/** What `work` asks of the items, that being the `whole` of it; tried again once, on another connection. */
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

	function attempt(database, mode, work, whole) {
		return new Promise((resolve, reject) => {
			const transaction = database.transaction("items", mode);
			const request = work(transaction.objectStore("items"));
			transaction.oncomplete = () => resolve(request.result);
			transaction.onabort = () => reject(transaction.error);
			if (whole) transaction.commit(); // or what was asked just before the page goes would go with it
		});
	}

	/** Takes over what earlier versions kept for a user, or deletes it. */
	async function inheritFor(user) {
		let dropped = 0;
		const walk = (items) => {
			dropped = 0;
			const request = items.index("user").openCursor(user);
			request.onsuccess = () => {
				const cursor = request.result;
				if (!cursor) return;
				if (inherit) cursor.update({ ...cursor.value, user: owner(user) });
				else dropped += Boolean(cursor.delete());
				cursor.continue();
			};
			return request;
		};
		await run("readwrite", walk, false);
		if (dropped) events.dispatchEvent(new CustomEvent("dropped", { detail: dropped }));
	}

	return Object.assign(events, {
		/** The items of a user, oldest first: ids rise with time. */
		async all(user) {
			inherited ??= inheritFor(user).catch(() => {
				inherited = null; // asked again next time
			});
			await inherited;
			const items = await run("readonly", (items) => items.index("user").getAll(owner(user)));
			return items.map((item) => ({ ...item, user }));
		},
		put: (item) => run("readwrite", (items) => items.put({ ...item, user: owner(item.user) })),
		delete: (id) => run("readwrite", (items) => items.delete(id)),
	});
}
