// The message box: sends with Enter, keeps what is not sent yet, and turns into Stop while an answer runs.

import { byId, stored } from './dom.js';

export class Composer {
  #threadId = null;
  #isRunning = false;
  #isEditing = false;
  #hooks;

  /** `hooks`: `send(text)`, `edit(text)`, `stop()`, `last()` gives the text of the last message. */
  constructor(hooks) {
    this.#hooks = hooks;
    this.field = byId('message');
    this.button = byId('send');
    this.note = byId('editing');
    this.note.querySelector('button').addEventListener('click', () => this.#leave());
    byId('compose').addEventListener('submit', (event) => { event.preventDefault(); this.#act(); });
    this.field.addEventListener('keydown', (event) => this.#key(event));
    this.field.addEventListener('input', () => this.#changed());
    this.#show();
  }

  get #name() { return `weir.draft.${this.#threadId ?? 'new'}`; }

  /** Shows the draft of another conversation. */
  use(threadId) {
    this.#threadId = threadId;
    this.#leave();
  }

  /** The same draft now belongs to the conversation that was just made. */
  moved(threadId) {
    stored.set(this.#name, '');
    this.#threadId = threadId;
    this.#changed();
  }

  /** What is sent next takes the place of the last message, whose text this is. The draft waits meanwhile. */
  edit(text) {
    this.#isEditing = true;
    this.note.hidden = false;
    this.draft(text);
  }

  /** Lets the last message be, and shows the draft again. */
  #leave() {
    this.#isEditing = false;
    this.note.hidden = true;
    this.field.value = stored.get(this.#name) ?? '';
    this.#changed();
  }

  /** A text to go on with. `onlyKeep`: not shown, but there after a reload. */
  draft(text, keepsShown = false, onlyKeep = false) {
    if (onlyKeep) return stored.set(this.#name, text);
    if (keepsShown && this.field.value.trim()) return undefined;
    this.field.value = text;
    this.#changed();
    this.field.focus();
    return undefined;
  }

  /** The message is on its way. */
  sent() {
    if (!this.#isEditing) stored.set(this.#name, '');
    this.#leave();
    // A phone's keyboard leaves room for the answer.
    if (matchMedia('(pointer: coarse)').matches) this.field.blur();
  }

  running(isRunning) {
    this.#isRunning = isRunning;
    this.#show();
  }

  #changed() {
    if (!this.#isEditing) stored.set(this.#name, this.field.value);
    if (!CSS.supports('field-sizing', 'content')) {
      this.field.rows = Math.min(10, this.field.value.split('\n').length);
    }
    this.#show();
  }

  #show() {
    const label = this.#isRunning ? 'Stop' : 'Send';
    this.button.dataset.does = label.toLowerCase();
    this.button.title = this.#isRunning ? 'Stop (Esc)' : 'Send (Enter)';
    this.button.setAttribute('aria-label', label);
    this.button.disabled = !this.#isRunning && !this.field.value.trim();
  }

  #act() {
    if (this.#isRunning) this.#hooks.stop();
    else if (this.field.value.trim()) this.#hooks[this.#isEditing ? 'edit' : 'send'](this.field.value.trim());
  }

  #key(event) {
    // Enter that ends a word of an input method is not a command.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter' && !event.shiftKey && !matchMedia('(pointer: coarse)').matches) {
      event.preventDefault();
      if (!this.#isRunning) this.#act();
    } else if (event.key === 'Escape' && this.#isEditing) {
      event.stopPropagation();
      this.#leave();
    } else if (event.key === 'ArrowUp' && !this.field.value) {
      const last = this.#hooks.last();
      if (!last) return;
      event.preventDefault();
      this.edit(last);
    }
  }
}
