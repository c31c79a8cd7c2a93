// An answer's text while it grows and when it has ended: plain words at once, Markdown as soon as the server has made
// HTML of it. What is settled is rendered once; only the block at the end is sent again, and not too often.

import { json } from './api.js';
import { el } from './dom.js';
import { GrowingText, schedule } from './growing.js';
import { made, patch } from './render.js';

// The least time between two requests, and in a tab that nobody sees.
const PACE_MS = 100;
const HIDDEN_PACE_MS = 2000;
// A longer open block is rendered again when it has grown by an eighth: all its renderings together stay linear.
const OFTEN_CHARS = 8192;
// How long words that may be markup are held back for their rendering.
const HOLD_MS = 400;
// How long the server is left alone after a failure, and how long it may take.
const REST_MS = 2000;
const TIMEOUT_MS = 8000;
// What has grown by this much while rendering fails stays plain until the end.
const PLAIN_CHARS = 8192;

// A frame puts about so many elements into the page: more would keep keys waiting. The rest comes in the next ones.
const FRAME_ELEMENTS = 400;

const CONTAINERS = 'p, li, ul, ol, blockquote, pre, pre > code, table, thead, tbody, tr, td, th, h1, h2, h3, h4, h5, h6, .code, .table';

export class RichText {
  #root;
  #citations;
  #pieces = [];
  /** The text after what is settled, and how much of it is rendered. */
  #open = '';
  #rendered = 0;
  /** How many of the root's nodes are settled, the HTML that they were made of, and with how many sources. */
  #settled = 0;
  #html = '';
  #sources = 0;
  /** What is shown of the text that is not rendered yet; the caret stands behind it. */
  #raw = el('span', { class: 'raw' }, document.createTextNode(''));
  /** Whether the root still shows an earlier text. */
  #isStale = false;
  #plain = null;
  #generation = 0;
  #isAsking = false;
  #nextAt = -Infinity;
  #heldSince = null;
  #hasFailed = false;
  #arrived = null;
  /** Rendered blocks that are not in the page yet, where they go, and up to where they are settled. */
  #waiting = null;
  #timer = 0;

  /** `citations()` gives the sources that the text may refer to. */
  constructor(root, citations) {
    this.#root = root;
    this.#citations = citations;
  }

  /** The whole text. */
  get text() { return this.#pieces.join(''); }

  get isEmpty() { return this.#pieces.length === 0; }

  push(text) {
    if (!text) return;
    this.#pieces.push(text);
    if (this.#plain) return void this.#plain.push(text);
    this.#open += text;
    schedule(this);
  }

  /** Starts again with another text. What is on the page stays until that is rendered, so that nothing flickers. */
  set(text) {
    this.#restart(text);
    this.#open = text;
    this.#isStale = this.#root.hasChildNodes();
    if (text) schedule(this);
    else this.#root.replaceChildren();
  }

  /** Shows a text that has ended, as the server has rendered it. */
  show(html, text = this.text) {
    // What is settled is as it will be, unless sources have come since, or what links lead to.
    const isRight = !this.#waiting && html.startsWith(this.#html) && this.#citations().length === this.#sources;
    const [from, rest] = isRight ? [this.#settled, html.slice(this.#html.length)] : [0, html];
    this.#restart(text);
    patch(this.#root, from, made(rest, this.#citations()));
  }

  #restart(text) {
    this.#generation++;
    this.#pieces = text ? [text] : [];
    this.#open = '';
    this.#rendered = 0;
    this.#settled = 0;
    this.#html = '';
    this.#sources = this.#citations().length;
    this.#isStale = false;
    this.#plain = null;
    this.#isAsking = false;
    this.#heldSince = null;
    this.#hasFailed = false;
    this.#arrived = null;
    this.#waiting = null;
    clearTimeout(this.#timer);
    this.#raw.remove();
  }

  /** Brings the page up to date. */
  flush() {
    if (this.#plain) return;
    if (this.#arrived && !this.#waiting) this.#take(this.#arrived);
    if (this.#waiting) this.#putSome();
    if (this.#waiting) return;
    if (this.#open) this.#showRaw();
    this.#ask();
  }

  // --- What is rendered ---------------------------------------------------------

  #ask() {
    const { length } = this.#open;
    if (this.#isAsking || this.#plain || this.#rendered === length) return;
    if (length > OFTEN_CHARS && length - this.#rendered < length / 8) return;
    const waitMs = this.#nextAt - performance.now();
    clearTimeout(this.#timer);
    if (waitMs > 0) this.#timer = setTimeout(() => this.#ask(), waitMs);
    else this.#render();
  }

  async #render() {
    const generation = this.#generation;
    const text = this.#open;
    this.#isAsking = true;
    this.#nextAt = performance.now() + (document.hidden ? HIDDEN_PACE_MS : PACE_MS);
    try {
      const rendered = await json('POST', '/api/render', { body: { text }, signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (generation !== this.#generation) return;
      this.#arrived = { ...rendered, length: text.length };
    } catch (failure) {
      if (generation !== this.#generation) return;
      this.#hasFailed = true;
      this.#nextAt = performance.now() + REST_MS;
      // A text that is too long will not become shorter.
      if (failure.status === 413) this.#stayPlain();
    }
    this.#isAsking = false;
    schedule(this);
  }

  #take({ settled, html, rest, length }) {
    this.#arrived = null;
    this.#isStale = false;
    this.#hasFailed = false;
    this.#heldSince = null;
    this.#raw.remove();
    if (this.#settled === 0) this.#sources = this.#citations().length;
    const nodes = made(html, this.#citations());
    this.#waiting = { nodes, at: this.#settled, settled: this.#settled + nodes.childNodes.length };
    nodes.append(made(rest, this.#citations()));
    this.#html += html;
    this.#open = this.#open.slice(settled);
    this.#rendered = length - settled;
  }

  #putSome() {
    const { nodes, at, settled } = this.#waiting;
    const some = document.createDocumentFragment();
    for (let weight = 0; nodes.firstChild && weight < FRAME_ELEMENTS;) {
      weight += 1 + (nodes.firstChild.querySelectorAll?.('*').length ?? 0);
      some.append(nodes.firstChild);
    }
    this.#waiting.at += some.childNodes.length;
    this.#settled = Math.min(settled, this.#waiting.at);
    patch(this.#root, at, some);
    if (nodes.hasChildNodes()) schedule(this);
    else this.#waiting = null;
  }

  // --- What is not rendered yet ---------------------------------------------------

  #showRaw() {
    const text = this.#open.slice(this.#shownTo);
    if (this.#hasFailed && text.length > PLAIN_CHARS) return void this.#stayPlain();
    let shown = this.#certain(text);
    if (shown.length < text.length) {
      this.#heldSince ??= performance.now();
      if (this.#hasFailed || performance.now() - this.#heldSince > HOLD_MS) shown = text;
    }
    if (this.#isStale) {
      if (!this.#hasFailed) return;
      this.#root.replaceChildren();
      this.#isStale = false;
    }
    const node = this.#raw.firstChild;
    if (!this.#raw.isConnected) node.data = '';
    if (!this.#raw.isConnected || (shown && !node.data)) this.#place(shown);
    if (shown.startsWith(node.data)) node.appendData(shown.slice(node.data.length));
    else node.data = shown;
  }

  /** The beginning of `text` that is what it looks like: words in a paragraph, lines in code. */
  #certain(text) {
    if (this.#slot()?.matches('code')) {
      const fence = text.search(/(^|\n)[ \t>]*[`~]/);
      return fence < 0 ? text : text.slice(0, fence);
    }
    // A new line may begin anything.
    if (!this.#isInLine && !(this.#rendered === 0 && /^\p{L}/u.test(text))) return '';
    return /^[^\n*_`~[\]()<>|#\\!&$=]*/.exec(text)[0];
  }

  /** Up to where the rendering shows the open text: it drops the spaces at the end of a paragraph. */
  get #shownTo() {
    let end = this.#rendered;
    if (!this.#slot()?.matches('code')) while (this.#open[end - 1] === ' ') end--;
    return end;
  }

  /** Whether what comes next goes on with the line that is rendered. */
  get #isInLine() { return this.#rendered > 0 && this.#open[this.#rendered - 1] !== '\n'; }

  /** The innermost element at the end of what is rendered of the open block. */
  #slot() {
    let slot = this.#root.childNodes.length > this.#settled ? this.#root.lastElementChild : null;
    while (slot?.lastElementChild?.matches(CONTAINERS)) slot = slot.lastElementChild;
    return slot?.matches(CONTAINERS) ? slot : null;
  }

  #place(shown) {
    let slot = this.#slot();
    if (shown && !this.#isInLine && !slot?.matches('code')) {
      slot = el('p', { dir: 'auto' });
      this.#root.append(slot);
    }
    slot?.append(this.#raw);
  }

  /** The text goes on without Markdown until it has ended. */
  #stayPlain() {
    const rest = this.#open.slice(this.#rendered);
    this.#raw.remove();
    const root = el('div', { class: 'plain' });
    this.#root.append(root);
    this.#plain = new GrowingText(root);
    this.#plain.push(rest);
  }
}
