// Asks for the key of a server that wants one. It stays in this tab and goes only into a header.

import { onKeyWanted, useKey } from './api.js';
import { byId } from './dom.js';

/** `again` is called with a new key in use. */
export function setUpSignIn(again) {
  const dialog = byId('signin');
  const field = byId('key');
  onKeyWanted((wasRefused) => {
    byId('key-refused').hidden = !wasRefused;
    if (!dialog.open) dialog.showModal();
  });
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  dialog.querySelector('form').addEventListener('submit', (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (!key) return;
    useKey(key);
    field.value = '';
    dialog.close();
    again();
  });
}
