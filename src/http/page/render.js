// Answers as HTML. The server renders and cleans it; this file is the only one that puts HTML into the page.

import { copy, el, icon } from './dom.js';

// Browsers that enforce trusted types let only this policy make HTML.
const policy = globalThis.trustedTypes?.createPolicy('weir-answers', { createHTML: (html) => html });

/** The server's HTML of an answer, or of a part of it, as nodes of the page. */
export function made(html, citations) {
  const template = document.createElement('template');
  template.innerHTML = policy ? policy.createHTML(html) : html;
  const root = template.content;
  for (const node of [...root.childNodes]) if (node.nodeType === Node.TEXT_NODE && !node.data.trim()) node.remove();
  for (const block of root.querySelectorAll('p, h1, h2, h3, h4, h5, h6, th, td')) block.dir = 'auto';
  // `auto` looks past what has a direction of its own: blocks in blocks are told theirs.
  for (const block of root.querySelectorAll('ul, ol, li, blockquote, table')) block.dir = directionOf(block.textContent);
  for (const pre of root.querySelectorAll('pre')) frameCode(pre);
  for (const table of root.querySelectorAll('table')) frameTable(table);
  if (citations?.length) linkCitations(root, citations);
  return root;
}

/** Makes `root`'s nodes from the `from`th on those of `wanted`, and leaves alone what is right already. */
export function patch(root, from, wanted) {
  let old = root.childNodes[from] ?? null;
  for (const node of [...wanted.childNodes]) {
    const next = old?.nextSibling ?? null;
    if (!old) root.append(node);
    else if (!old.isEqualNode(node)) change(old, node);
    old = next;
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

function change(old, wanted) {
  const isAlike = old.nodeName === wanted.nodeName && old.className === wanted.className;
  if (!isAlike) old.replaceWith(wanted);
  else if (old.nodeType === Node.ELEMENT_NODE) {
    for (const { name } of [...old.attributes]) if (!wanted.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    patch(old, 0, wanted);
  } else if (wanted.data.startsWith(old.data)) old.appendData(wanted.data.slice(old.data.length));
  else old.data = wanted.data;
}

const RIGHT_TO_LEFT = /^[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;

/** The direction of a text: that of its first letter. */
const directionOf = (text) => (RIGHT_TO_LEFT.test(/\p{L}/u.exec(text)?.[0] ?? '') ? 'rtl' : 'ltr');

function frameCode(pre) {
  const language = /language-([\w+#.-]+)/.exec(pre.firstElementChild?.className ?? '')?.[1] ?? 'text';
  const button = el('button', { type: 'button', class: 'copy-code', title: 'Copy code' }, icon('copy'), el('span', { text: 'Copy' }));
  button.addEventListener('click', () => copy(pre.textContent, button));
  pre.tabIndex = 0;
  pre.dir = 'ltr';
  const frame = el('div', { class: 'code', role: 'group', 'aria-label': `Code, ${language}` });
  pre.replaceWith(frame);
  frame.append(el('div', { class: 'code-head' }, el('span', { text: language }), button), pre);
}

function frameTable(table) {
  const frame = el('div', { class: 'table', tabindex: '0', role: 'group', 'aria-label': 'Table' });
  table.replaceWith(frame);
  frame.append(table);
}

/** Turns `[2]` into a link to the second source. */
function linkCitations(root, citations) {
  const sources = new Map(citations.map((source) => [String(source.n), source]));
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const nodes = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (/\[\d+\]/.test(node.data) && !node.parentElement.closest('a, code, pre')) nodes.push(node);
  }
  for (const node of nodes) {
    const parts = node.data.split(/\[(\d+)\]/);
    const linked = parts.map((part, at) => {
      if (at % 2 === 0) return part;
      return sourceLink(sources.get(part), part, 'cite') ?? `[${part}]`;
    });
    node.replaceWith(...linked);
  }
}

/** A link to a source, if it has an address that may be opened. */
export function sourceLink(source, text, className) {
  if (!source || !isWebAddress(source.url)) return null;
  const title = source.title || source.url;
  return el('a', { class: className, href: source.url, target: '_blank', rel: 'noopener noreferrer nofollow', title, text });
}

export function isWebAddress(url) {
  try { return ['http:', 'https:'].includes(new URL(url).protocol); } catch { return false; }
}
