// Text that grows: pieces are collected and appended once per frame, never rendered again.

// A block this long ends at its next line break, so that a frame lays out one block and not the whole answer.
const BLOCK_CHARS = 1200;
// Frames stop in a hidden tab; its text is brought up to date this often.
const HIDDEN_INTERVAL_MS = 250;

const dirty = new Set();
const listeners = new Set();
let isScheduled = false;

/** Calls `listener` after each frame in which text has grown. */
export function afterGrowth(listener) { listeners.add(listener); }

/** Calls `text.flush()` in the next frame. */
export function schedule(text) {
  dirty.add(text);
  if (isScheduled) return;
  isScheduled = true;
  if (document.hidden) setTimeout(flush, HIDDEN_INTERVAL_MS);
  else requestAnimationFrame(flush);
}

function flush() {
  isScheduled = false;
  const texts = [...dirty];
  dirty.clear();
  for (const text of texts) text.flush();
  for (const listener of listeners) listener();
}

// A frame that was asked for before the tab was hidden may never come.
document.addEventListener('visibilitychange', () => { if (isScheduled) flush(); });

export class GrowingText {
  #root;
  #pieces = [];
  #pending = '';
  #node = null;

  constructor(root) { this.#root = root; }

  /** The whole text. */
  get text() { return this.#pieces.join(''); }

  get isEmpty() { return this.#pieces.length === 0; }

  push(text) {
    if (!text) return;
    this.#pieces.push(text);
    this.#pending += text;
    schedule(this);
  }

  /** Starts again with another text. */
  set(text) {
    this.#pieces = [];
    this.#pending = '';
    this.#node = null;
    this.#root.replaceChildren();
    this.push(text);
    // At once: a frame without the old text or the new one would be a flicker.
    this.flush();
  }

  flush() {
    let rest = this.#pending;
    this.#pending = '';
    while (rest) {
      this.#node ??= this.#newBlock();
      const end = this.#blockEnd(rest);
      this.#node.appendData(end < 0 ? rest : rest.slice(0, end));
      if (end < 0) return;
      this.#node = null;
      rest = rest.slice(end + 1);
      if (!rest) this.#node = this.#newBlock();
    }
  }

  /** Where in `rest` the present block ends, or -1. */
  #blockEnd(rest) {
    return rest.indexOf('\n', Math.max(0, BLOCK_CHARS - this.#node.length));
  }

  #newBlock() {
    const block = document.createElement('div');
    block.dir = 'auto';
    const node = document.createTextNode('');
    block.append(node);
    this.#root.append(block);
    return node;
  }
}
