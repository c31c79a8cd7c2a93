// Answers as HTML. The server renders and cleans it; this file is the only one that puts HTML into the page.

import { copy, el, icon } from './dom.js';

// Browsers that enforce trusted types let only this policy make HTML.
const policy = globalThis.trustedTypes?.createPolicy('weir-answers', { createHTML: (html) => html });

/** Puts the server's HTML of an answer into `root`. */
export function render(root, html, citations) {
  root.innerHTML = policy ? policy.createHTML(html) : html;
  for (const block of root.querySelectorAll('p, li, h1, h2, h3, h4, h5, h6, blockquote, th, td')) block.dir = 'auto';
  for (const pre of root.querySelectorAll('pre')) frameCode(pre);
  for (const table of root.querySelectorAll('table')) frameTable(table);
  if (citations?.length) linkCitations(root, citations);
}

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
