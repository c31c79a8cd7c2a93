// The chat page: puts the parts together.

import { Composer } from './composer.js';
import { Conversation } from './conversation.js';
import { byId, toast } from './dom.js';
import { Picker } from './picker.js';
import { setUpSignIn } from './signin.js';
import { Threads } from './threads.js';

// Enough for somebody else's conversations to appear without anybody reloading.
const LIST_INTERVAL_MS = 20_000;

const picker = new Picker();
const threads = new Threads({
  open: (id) => go(id),
  closed: () => go(null),
  renamed: (thread) => { if (thread.id === conversation.threadId) showTitle(thread); },
});
const composer = new Composer({
  send: (text) => conversation.send(text),
  edit: (text) => conversation.edit(text),
  stop: () => conversation.stop(),
  last: () => conversation.lastText,
});
const conversation = new Conversation({
  choice: () => picker.choice(),
  running: (isRunning) => composer.running(isRunning),
  changed: () => refreshList(),
  draft: (...how) => composer.draft(...how),
  edit: (text) => composer.edit(text),
  sent: () => { composer.sent(); showEmpty(false); },
  opened,
});

/** A conversation is shown. `isNew`: it was just made for the message that is being sent. */
function opened(thread, isNew = false) {
  showTitle(thread);
  showEmpty(!thread);
  threads.select(thread?.id ?? null);
  if (thread) threads.add(summary(thread));
  if (!isNew) return;
  composer.moved(thread.id);
  history.replaceState(null, '', `#${thread.id}`);
}

const summary = ({ messages, active_request_id, ...thread }) => thread;

function showTitle(thread) {
  const title = thread ? thread.title || 'Untitled' : 'New conversation';
  byId('title').textContent = title;
  document.title = thread ? `${title} · weir` : 'weir';
}

function showEmpty(isEmpty) { byId('empty').hidden = !isEmpty; }

function go(id) {
  const hash = id ? `#${id}` : '';
  if (location.hash === hash) return show();
  if (hash) location.hash = hash;
  else {
    history.pushState(null, '', location.pathname);
    show();
  }
  return undefined;
}

async function show() {
  const id = decodeURIComponent(location.hash.slice(1)) || null;
  closeSidebar();
  composer.use(id);
  try {
    await conversation.open(id);
  } catch (failure) {
    if (failure.status === 401) return;
    conversation.leave();
    opened(null);
    if (failure.status === 404) {
      history.replaceState(null, '', location.pathname);
      composer.use(null);
      toast('This conversation does not exist any more.');
    } else {
      toast('The conversation cannot be loaded.', { label: 'Try again', run: show }, 60_000);
    }
  }
  if (!matchMedia('(pointer: coarse)').matches) composer.field.focus();
}

function refreshList() {
  return threads.refresh().catch(() => {});
}

async function start() {
  try {
    await Promise.all([picker.load(), threads.refresh(), show()]);
  } catch (failure) {
    if (failure.status !== 401) toast('The server cannot be reached.', { label: 'Try again', run: start }, 60_000);
  }
}

// --- The frame of the page ----------------------------------------------------

const narrow = matchMedia('(max-width: 47.99rem)');

function openSidebar() {
  document.body.classList.add('shows-sidebar');
  byId('menu-button').setAttribute('aria-expanded', 'true');
}

function closeSidebar() {
  document.body.classList.remove('shows-sidebar');
  byId('menu-button').setAttribute('aria-expanded', 'false');
}

function showOffline() { byId('offline').hidden = navigator.onLine; }

byId('new').addEventListener('click', () => go(null));
byId('menu-button').addEventListener('click', () => {
  openSidebar();
  byId('search').focus();
});
byId('shade').addEventListener('click', closeSidebar);
byId('keys-button').addEventListener('click', () => byId('keys').showModal());
for (const button of document.querySelectorAll('#examples button')) {
  button.addEventListener('click', () => composer.draft(button.textContent));
}
addEventListener('hashchange', show);
addEventListener('popstate', () => { if (!location.hash && conversation.threadId) show(); });
addEventListener('online', () => { showOffline(); refreshList(); });
addEventListener('offline', showOffline);
document.addEventListener('visibilitychange', () => { if (!document.hidden) refreshList(); });
setInterval(() => { if (!document.hidden && navigator.onLine) refreshList(); }, LIST_INTERVAL_MS);

document.addEventListener('keydown', (event) => {
  const command = event.ctrlKey || event.metaKey;
  const isTyping = event.target.matches('input, textarea, select');
  if (event.isComposing || document.querySelector('dialog[open]')) return;
  if (command && event.key.toLowerCase() === 'k') {
    event.preventDefault();
    if (narrow.matches) openSidebar();
    byId('search').focus();
  } else if (command && event.shiftKey && event.key.toLowerCase() === 'o') {
    event.preventDefault();
    go(null);
  } else if (event.key === 'Escape') {
    if (document.querySelector('[popover]:popover-open')) return;
    if (document.body.classList.contains('shows-sidebar')) closeSidebar();
    else if (conversation.isRunning) conversation.stop();
  } else if (event.key === '/' && !isTyping && !command) {
    event.preventDefault();
    composer.field.focus();
  } else if (event.key === '?' && !isTyping) {
    byId('keys').showModal();
  }
});

// The dashboard may be on another port, or only for others.
fetch('/admin', { cache: 'no-store' }).then((response) => { byId('admin').hidden = !response.ok; }, () => {});
setUpSignIn(start);
showOffline();
start();
