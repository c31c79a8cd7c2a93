// Small helpers around the DOM. Text always goes in as text; `render.js` is the only place where HTML does.

/** Makes an element. Properties starting with `on` are listeners, `class`, `text` and `data` are what they say. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') element.className = value;
    else if (name === 'text') element.textContent = value;
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** Makes an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** One of the page's icons. It says nothing to screen readers; its button does. */
export function icon(name) {
  return svg('svg', { class: 'icon', 'aria-hidden': 'true' }, svg('use', { href: `#i-${name}` }));
}

export function iconButton(name, label, onclick, properties = {}) {
  return el('button', { type: 'button', class: 'icon-button', title: label, 'aria-label': label, onclick, ...properties },
    icon(name));
}

export const byId = (id) => document.getElementById(id);

/** Tells screen readers what has happened, once. */
export function announce(text) {
  const region = byId('status');
  region.textContent = '';
  // A region that gets the same text twice says it once: the change has to be seen.
  setTimeout(() => { region.textContent = text; }, 50);
}

/** Shows a passing message, with an action if there is one. Returns what takes it away. */
export function toast(text, action, millis = 6000) {
  const note = el('div', { class: 'toast' }, el('span', { text }));
  let timer = 0;
  const remove = () => { clearTimeout(timer); note.remove(); };
  if (action) {
    note.append(el('button', { type: 'button', text: action.label, onclick: () => { remove(); action.run(); } }));
  }
  byId('toasts').append(note);
  timer = setTimeout(remove, millis);
  return remove;
}

/** Copies text, and says so on the button. */
export async function copy(text, button) {
  const said = button.title;
  try {
    await navigator.clipboard.writeText(text);
    button.title = 'Copied';
    button.classList.add('is-done');
    announce('Copied');
  } catch {
    toast('The browser does not let this page copy.');
  }
  setTimeout(() => { button.title = said; button.classList.remove('is-done'); }, 1500);
}

/** A stored value; private windows may have no storage. */
export const stored = {
  get(name, area = localStorage) { try { return area.getItem(name); } catch { return null; } },
  set(name, value, area = localStorage) {
    try { if (value) area.setItem(name, value); else area.removeItem(name); } catch { /* Nothing is remembered. */ }
  },
};
