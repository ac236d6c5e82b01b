/** The outbox of `tandem.js` in IndexedDB: it outlives the page, and all tabs have the same. */

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

export function outbox() {
	const database = opened().catch(() => null); // each use fails then

	async function run(mode, work) {
		const transaction = (await database).transaction("items", mode);
		const request = work(transaction.objectStore("items"));
		transaction.commit(); // or what was asked just before the page goes would go with it
		return new Promise((resolve, reject) => {
			transaction.oncomplete = () => resolve(request.result);
			transaction.onabort = () => reject(transaction.error);
		});
	}

	return {
		/** The items of a user, oldest first: ids rise with time. */
		all: (user) => run("readonly", (items) => items.index("user").getAll(user)),
		put: (item) => run("readwrite", (items) => items.put(item)),
		delete: (id) => run("readwrite", (items) => items.delete(id)),
	};
}
