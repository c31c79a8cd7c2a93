// Signs in by the key of a server that wants one. The page hands the key over and forgets it; a cookie stays.

import { json, onKeyWanted, request } from './api.js';
import { byId, toast } from './dom.js';
import { sentence } from './words.js';

const PATH = '/api/session';

/** `again` is called when somebody has signed in. */
export function setUpSignIn(again) {
  const dialog = byId('signin');
  const field = byId('key');
  const refused = byId('key-refused');
  onKeyWanted(() => {
    if (!dialog.open) dialog.showModal();
  });
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  dialog.querySelector('form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (!key) return;
    field.value = '';
    refused.hidden = true;
    try {
      await request('POST', PATH, { body: { key } });
    } catch (failure) {
      refused.textContent = failure.status === 401 ? 'This key is not known here.' : sentence(failure);
      refused.hidden = false;
      return;
    }
    dialog.close();
    showAccount();
    again();
  });
  byId('signout').addEventListener('click', signOut);
  showAccount();
}

/** Only who has signed in can sign out. */
async function showAccount() {
  // Whoever is not known is asked for a key by then.
  const account = await json('GET', PATH).catch(() => null);
  const button = byId('signout');
  button.hidden = !account?.signed_in;
  button.title = account?.org ? `Sign out of ${account.org}` : 'Sign out';
}

async function signOut() {
  try {
    await request('DELETE', PATH);
  } catch (failure) {
    toast(sentence(failure));
    return;
  }
  forget();
  // What is on the screen was for whoever has left.
  location.replace(location.pathname);
}

/** Removes what was written and seen here. */
function forget() {
  try {
    for (const name of Object.keys(localStorage)) {
      if (name.startsWith('weir.draft.')) localStorage.removeItem(name);
    }
    sessionStorage.clear();
  } catch { /* Nothing was remembered. */ }
}
