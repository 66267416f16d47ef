// What this tab looks at, kept for the time after a reload: the state in its session, its own photo in the browser's database.
// Gradio loads the page anew when its server was away, and browsers do so with a tab that slept. Browsers may forbid to keep.

const SESSION = 'lite-detr-run'; // of sessionStorage
const DATABASE = 'lite-detr';
const PHOTOS = 'photos';
const DAY = 86_400_000; // milliseconds, after which the photo of a tab that was closed goes at the next visit

let stored = { photo: null, key: null }; // what this tab has in the database

// run: '' while it is on its way; job: {photo} or {example}; computing: whether a view's own work is on its way.
export async function keep({ run, state, job, computing = false }) {
  const photo = job?.photo ?? null;
  try {
    if (photo !== stored.photo && (photo || job?.example)) {
      const old = stored.key;
      stored = { photo, key: photo && `${Date.now()}-${Math.random()}` };
      await within('readwrite', (photos) => {
        if (old) photos.delete(old);
        if (photo) photos.put({ photo, at: Date.now() }, stored.key);
      });
    }
    const { key } = stored;
    if (key || computing) window.sessionStorage.setItem(SESSION, JSON.stringify({ run, state, key, computing, example: job?.example }));
    else window.sessionStorage.removeItem(SESSION);
  } catch { /* then a reload begins anew */ }
}

// What was kept, as it was given; null where there is nothing.
export async function kept() {
  try {
    const { key, example, ...rest } = JSON.parse(window.sessionStorage.getItem(SESSION));
    if (!key) return { ...rest, job: { example } };
    const found = await within('readwrite', (photos) => {
      photos.openCursor().onsuccess = ({ target: { result } }) => {
        if (!result) return;
        if (Date.now() - result.value.at > DAY && result.key !== key) result.delete();
        result.continue();
      };
      return photos.get(key);
    });
    if (found) stored = { photo: found.photo, key };
    return { ...rest, job: { photo: found?.photo } };
  } catch {
    return null;
  }
}

// act(the store of photos) in one transaction; what the request that it returns gives.
function within(mode, act) {
  return new Promise((done, fail) => {
    const opening = window.indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(PHOTOS);
    opening.onerror = fail;
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction(PHOTOS, mode);
      const request = act(transaction.objectStore(PHOTOS));
      transaction.oncomplete = () => { database.close(); done(request?.result); };
      transaction.onabort = (event) => { database.close(); fail(event); };
    };
  });
}
