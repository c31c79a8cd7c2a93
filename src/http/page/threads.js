// The list of conversations: paged, searched, renamed, pinned, deleted.

import { json, request } from './api.js';
import { byId, el, icon, iconButton, toast } from './dom.js';
import { when } from './words.js';

const PAGE = 50;
// How many more pages a search looks through.
const SEARCH_PAGES_MAX = 20;
const UNDO_MS = 6000;

export class Threads {
  #threads = new Map();
  #next = null;
  #isLoading = false;
  #deleted = new Map();
  #query = '';
  #current = null;
  #hooks;

  /** `hooks`: `open(threadId)`, `closed(threadId)` after a deletion, `renamed(thread)`. */
  constructor(hooks) {
    this.#hooks = hooks;
    this.list = byId('threads');
    this.more = byId('more');
    byId('search').addEventListener('input', (event) => this.#search(event.target.value));
    byId('search').addEventListener('keydown', (event) => this.#fromSearch(event));
    this.more.addEventListener('click', () => this.#loadMore());
    this.list.addEventListener('keydown', (event) => this.#walk(event));
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.#loadMore();
    }).observe(this.more);
    // A deletion that could still be undone is carried out when the page goes.
    addEventListener('pagehide', () => {
      for (const id of this.#deleted.keys()) this.#delete(id, true);
    });
  }

  /** Loads the newest page again. */
  async refresh() {
    const { threads, next } = await this.#page();
    if (this.#threads.size === 0) this.#next = next;
    for (const thread of threads) this.#threads.set(thread.id, thread);
    this.#draw();
  }

  async #page(before) {
    const query = before ? `&before=${encodeURIComponent(before)}` : '';
    const response = await request('GET', `/api/threads?limit=${PAGE}${query}`);
    return { threads: await response.json(), next: response.headers.get('X-Next-Cursor') };
  }

  async #loadMore() {
    if (!this.#next || this.#isLoading) return;
    this.#isLoading = true;
    try {
      const { threads, next } = await this.#page(this.#next);
      this.#next = next;
      for (const thread of threads) this.#threads.set(thread.id, thread);
    } catch {
      // The button stays; the next try may do better.
    } finally {
      this.#isLoading = false;
    }
    this.#draw();
  }

  async #search(query) {
    this.#query = query.trim().toLocaleLowerCase();
    this.#draw();
    const asked = this.#query;
    for (let pages = 0; asked && asked === this.#query && this.#next && pages < SEARCH_PAGES_MAX; pages++) {
      await this.#loadMore();
    }
  }

  #fromSearch(event) {
    const first = this.list.querySelector('a');
    if (event.key === 'Escape' && event.target.value) {
      event.target.value = '';
      event.stopPropagation();
      this.#search('');
    } else if (event.key === 'ArrowDown' && first) {
      event.preventDefault();
      first.focus();
    } else if (event.key === 'Enter' && first) {
      first.click();
    }
  }

  /** Arrow keys go from one conversation to the next. */
  #walk(event) {
    if (!event.target.matches('a') || !['ArrowDown', 'ArrowUp'].includes(event.key)) return;
    const links = [...this.list.querySelectorAll('a')];
    const at = links.indexOf(event.target) + (event.key === 'ArrowDown' ? 1 : -1);
    event.preventDefault();
    (links[at] ?? (at < 0 ? byId('search') : event.target)).focus();
  }

  add(thread) {
    this.#threads.set(thread.id, { ...this.#threads.get(thread.id), ...thread });
    this.#draw();
  }

  select(threadId) {
    this.#current = threadId;
    this.#draw();
  }

  #draw() {
    const matches = (thread) => !this.#query || (thread.title || '').toLocaleLowerCase().includes(this.#query);
    const shown = [...this.#threads.values()].filter((thread) => !this.#deleted.has(thread.id) && matches(thread));
    const time = (thread) => thread.updated_at ?? thread.created_at ?? 0;
    shown.sort((a, b) => Number(b.pinned ?? false) - Number(a.pinned ?? false) || time(b) - time(a));
    const focused = document.activeElement?.closest?.('#threads li')?.dataset.id;
    const rows = [];
    let heading = null;
    for (const thread of shown) {
      const group = thread.pinned ? 'Pinned' : when(time(thread));
      if (group !== heading) rows.push(el('li', { class: 'group', text: group }));
      heading = group;
      rows.push(this.#row(thread));
    }
    if (rows.length === 0) rows.push(el('li', { class: 'none', text: this.#query ? 'Nothing found.' : 'No conversations yet.' }));
    this.list.replaceChildren(...rows);
    this.more.hidden = !this.#next;
    if (focused) this.list.querySelector(`li[data-id="${CSS.escape(focused)}"] a`)?.focus();
  }

  #row(thread) {
    const title = thread.title || 'Untitled';
    const link = el('a', { href: `#${thread.id}`, dir: 'auto', text: title, title });
    if (thread.id === this.#current) link.setAttribute('aria-current', 'page');
    const menu = iconButton('more', `Actions for ${title}`, () => this.#menu(thread, menu), { 'aria-haspopup': 'menu' });
    return el('li', { class: 'thread', data: { id: thread.id } }, thread.pinned ? icon('pin') : null, link, menu);
  }

  #menu(thread, button) {
    const menu = byId('menu');
    const item = (name, text, run) => el('button', { type: 'button', role: 'menuitem', onclick: () => { menu.hidePopover(); run(); } },
      icon(name), el('span', { text }));
    menu.replaceChildren(
      item('edit', 'Rename', () => this.#rename(thread)),
      item('pin', thread.pinned ? 'Unpin' : 'Pin', () => this.#patch(thread, { pinned: !thread.pinned })),
      item('trash', 'Delete', () => this.remove(thread.id)));
    const place = button.getBoundingClientRect();
    menu.style.left = `${Math.max(8, Math.min(place.left, innerWidth - 180))}px`;
    menu.style.top = `${Math.min(place.bottom + 4, innerHeight - 150)}px`;
    menu.onkeydown = (event) => walkMenu(event, menu);
    menu.ontoggle = (event) => { if (event.newState === 'closed' && menu.contains(document.activeElement)) button.focus(); };
    menu.showPopover();
    menu.firstElementChild.focus();
  }

  #rename(thread) {
    const row = this.list.querySelector(`li[data-id="${CSS.escape(thread.id)}"]`);
    if (!row) return;
    const field = el('input', { type: 'text', value: thread.title, maxlength: '200', 'aria-label': 'New title', dir: 'auto' });
    let isOver = false;
    const end = (keep) => {
      if (isOver) return;
      isOver = true;
      const title = field.value.trim();
      if (keep && title && title !== thread.title) this.#patch(thread, { title });
      else this.#draw();
    };
    field.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== 'Escape') return;
      event.stopPropagation();
      end(event.key === 'Enter');
    });
    field.addEventListener('blur', () => end(true));
    row.replaceChildren(field);
    field.focus();
    field.select();
  }

  async #patch(thread, change) {
    this.add({ ...thread, ...change });
    try {
      const changed = await json('PATCH', `/api/threads/${thread.id}`, { body: change });
      this.add(changed);
      this.#hooks.renamed(changed);
    } catch (failure) {
      this.add(thread);
      toast(failure.message);
    }
  }

  /** Deletes a conversation, unless somebody changes their mind. */
  remove(id) {
    const undo = () => {
      clearTimeout(this.#deleted.get(id));
      this.#deleted.delete(id);
      this.#draw();
      this.#hooks.open(id);
    };
    this.#deleted.set(id, setTimeout(() => this.#delete(id), UNDO_MS));
    this.#draw();
    if (id === this.#current) this.#hooks.closed(id);
    toast('Conversation deleted.', { label: 'Undo', run: undo }, UNDO_MS - 500);
  }

  async #delete(id, keepalive = false) {
    try {
      await request('DELETE', `/api/threads/${id}`, { keepalive });
      this.#threads.delete(id);
    } catch (failure) {
      if (failure.status === 404) this.#threads.delete(id);
      else toast('The conversation could not be deleted.');
    }
    this.#deleted.delete(id);
    this.#draw();
  }
}

function walkMenu(event, menu) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === 'Tab') menu.hidePopover();
  if (!step) return;
  event.preventDefault();
  const items = [...menu.children];
  items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
}
