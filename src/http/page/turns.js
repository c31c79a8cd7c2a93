// Turns: a message with its answers, of which one is shown.

import { Answer, textOf } from './answer.js';
import { copy, el, iconButton, stored } from './dom.js';

const FACTS = 'weir.facts';
const FACTS_MAX = 200;

/** Timings of answers that this tab has seen. The server keeps them by request, not by message. */
const seenFacts = new Map(JSON.parse(stored.get(FACTS, sessionStorage) ?? '[]'));

export function rememberFacts(answer) {
  if (!answer.id) return;
  const { ttft_ms, queue_wait_ms, latency_ms, role } = answer.facts;
  seenFacts.set(answer.id, { ttft_ms, queue_wait_ms, latency_ms, role });
  while (seenFacts.size > FACTS_MAX) seenFacts.delete(seenFacts.keys().next().value);
  stored.set(FACTS, JSON.stringify([...seenFacts]), sessionStorage);
}

export class Turn {
  #actions;
  #shown = -1;
  #slot = el('div', { class: 'answers' });

  /** `actions.regenerate()` and `actions.edit(text)` belong to the whole turn. */
  constructor(actions, user) {
    this.#actions = actions;
    this.answers = [];
    this.userId = user?.id ?? null;
    this.text = user ? textOf(user.content) : '';
    this.root = el('section', { class: 'turn' });
    if (user) this.root.append(this.#question());
    this.root.append(this.#slot);
  }

  #question() {
    const copyButton = iconButton('copy', 'Copy message', () => copy(this.text, copyButton));
    const edit = iconButton('edit', 'Edit and send again', () => this.#actions.edit(this.text), { data: { last: 'only' } });
    return el('article', { class: 'question' }, el('h3', { class: 'sr', text: 'You said' }),
      el('div', { class: 'bubble', dir: 'auto', text: this.text }), el('div', { class: 'question-actions' }, edit, copyButton));
  }

  /** A new answer, shown at once. */
  add() {
    const answer = new Answer({ regenerate: () => this.#actions.regenerate(), pick: (step) => this.pick(this.#shown + step) });
    this.answers.push(answer);
    this.pick(this.answers.length - 1);
    return answer;
  }

  addStored(message) {
    const answer = this.add();
    answer.show(message, seenFacts.get(message.id));
    this.place();
    return answer;
  }

  remove(answer) {
    this.answers = this.answers.filter((other) => other !== answer);
    if (this.answers.length > 0) this.pick(this.answers.length - 1);
    else this.#slot.replaceChildren();
  }

  pick(at) {
    this.#shown = Math.min(Math.max(at, 0), this.answers.length - 1);
    this.#slot.replaceChildren(this.answers[this.#shown].root);
    this.place();
  }

  place() { this.answers[this.#shown]?.showPlace(this.#shown, this.answers.length); }

  get last() { return this.answers.at(-1); }
}
