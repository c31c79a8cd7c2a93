// One answer on the page, from the wait for its first token to its rendered text.

import { announce, copy, el, icon, iconButton } from './dom.js';
import { GrowingText } from './growing.js';
import { sourceLink } from './render.js';
import { RichText } from './rich.js';
import { canRetry, details, duration, facts, sentence } from './words.js';

const ACTIVITIES = { search: 'Searching', fetch: 'Reading', code: 'Running code', mcp: 'Using a tool', image: 'Making an image' };
const CUT = {
  length: 'The answer ends here because it reached the token limit.',
  content_filter: 'The provider’s policy ended this answer.',
  tool_calls: 'The model asks for its tools to be called.',
};

export class Answer {
  #text;
  #thoughts;
  #citations = [];
  #tools = new Map();
  #parts;
  #actions;

  /** `actions.regenerate()` asks for another answer; `actions.pick(step)` shows another one of the turn. */
  constructor(actions) {
    this.#actions = actions;
    this.facts = {};
    this.id = null;
    this.status = 'streaming';
    const part = (tag, className, properties = {}) => el(tag, { class: className, hidden: true, ...properties });
    this.#parts = {
      wait: part('p', 'wait'),
      thinking: part('details', 'thinking'),
      activities: part('ul', 'activities', { 'aria-label': 'What the provider did' }),
      body: el('div', { class: 'body rich' }),
      tools: part('div', 'tools'),
      sources: part('ol', 'sources', { 'aria-label': 'Sources' }),
      note: part('p', 'note'),
      error: part('div', 'error', { role: 'group', 'aria-label': 'Error' }),
      foot: part('footer', 'foot'),
    };
    const thoughts = el('div', { class: 'plain' });
    this.#parts.thinking.append(el('summary', { text: 'Reasoning' }), thoughts);
    this.#text = new RichText(this.#parts.body, () => this.#citations);
    this.#thoughts = new GrowingText(thoughts);
    this.root = el('article', { class: 'answer is-running', 'aria-busy': 'true' },
      el('h3', { class: 'sr', text: 'Answer' }), ...Object.values(this.#parts));
    this.wait('Sending');
  }

  get text() { return this.#text.text; }

  get isRunning() { return this.status === 'streaming'; }

  /** What is being waited for, until the first piece is there. */
  wait(text) {
    this.#parts.wait.replaceChildren(el('span', { class: 'pulse', 'aria-hidden': 'true' }), el('span', { text }));
    this.#parts.wait.hidden = false;
  }

  queue({ position, eta_ms }) {
    const place = position === 1 ? 'You are next' : `Number ${position} in the queue`;
    this.wait(eta_ms >= 500 ? `${place} · about ${duration(Math.round(eta_ms / 1000) * 1000)}` : place);
  }

  /** Takes one event of the stream. */
  take(type, data) {
    switch (type) {
      case 'meta': return this.#meta(data);
      case 'delta': case 'refusal': this.#begin(); return this.#text.push(data.delta);
      case 'reasoning': return this.#think(data.delta);
      case 'tool_call': return this.#tool(data);
      case 'activity': return this.#activity(data);
      case 'citation': return this.#cite(data.items);
      case 'usage': this.facts.usage = data.usage; return undefined;
      case 'snapshot': return this.#snapshot(data);
      case 'reset': return this.#reset();
      default: return undefined;
    }
  }

  #meta(meta) {
    const { type, queue, message_id, resumed, ...known } = meta;
    if (message_id) this.id = message_id;
    Object.assign(this.facts, known);
    if (queue) this.queue(queue);
    else if (known.fallback_from && this.#text.isEmpty) this.wait(`${known.fallback_from} cannot answer; asking ${known.provider}`);
    else if (known.stream_id && this.#text.isEmpty) this.wait('Waiting for the first token');
  }

  #begin() { this.#parts.wait.hidden = true; }

  #think(delta) {
    this.wait('Thinking');
    this.#parts.thinking.hidden = false;
    this.#thoughts.push(delta);
  }

  #snapshot({ text, reasoning }) {
    this.#text.set(text);
    this.#thoughts.set(reasoning);
    this.#parts.thinking.hidden = !reasoning;
    if (text) this.#begin();
  }

  #reset() {
    this.#text.set('');
    this.#thoughts.set('');
    this.#citations = [];
    this.#tools.clear();
    this.#parts.thinking.hidden = true;
    for (const name of ['activities', 'tools', 'sources']) {
      this.#parts[name].replaceChildren();
      this.#parts[name].hidden = true;
    }
    this.wait('Trying again');
  }

  #tool({ index, name, arguments_delta, arguments: whole, complete, valid }) {
    this.#begin();
    let tool = this.#tools.get(index);
    if (!tool) {
      const code = el('code');
      const title = el('strong');
      tool = { title, text: document.createTextNode('') };
      code.append(tool.text);
      this.#parts.tools.append(el('div', { class: 'tool' }, icon('tool'), title, code));
      this.#parts.tools.hidden = false;
      this.#tools.set(index, tool);
    }
    if (name) tool.title.textContent = name;
    if (complete) tool.text.data = valid ? whole : `${whole} (not valid JSON)`;
    else if (arguments_delta) tool.text.appendData(arguments_delta);
  }

  #activity({ kind, state, detail }) {
    const subject = [detail?.query, detail?.url, ...(detail?.queries ?? [])].filter((part) => typeof part === 'string');
    const text = [ACTIVITIES[kind] ?? kind, subject.join(', ')].filter(Boolean).join(': ');
    const last = this.#parts.activities.lastElementChild;
    if (last?.dataset.text === text) last.dataset.state = state;
    else this.#parts.activities.append(el('li', { text, data: { text, state } }));
    this.#parts.activities.hidden = false;
  }

  #cite(items) {
    this.#citations.push(...items);
    for (const source of items) {
      const text = source.title || source.url;
      this.#parts.sources.append(el('li', { value: source.n }, sourceLink(source, text) ?? el('span', { text })));
    }
    this.#parts.sources.hidden = this.#citations.length === 0;
  }

  /** Ends the answer as `done` says. */
  done(done) {
    if (done.message_id) this.id = done.message_id;
    for (const name of ['usage', 'latency_ms']) this.facts[name] = done[name] ?? this.facts[name];
    this.#settle(done.status, done.finish_reason, done.error);
    const words = { complete: 'Answer finished', cancelled: 'Answer stopped', error: 'The answer failed', interrupted: 'The answer was interrupted' };
    announce(words[done.status] ?? 'Answer finished');
  }

  /** Shows a message of the store. */
  show(message, knownFacts = {}) {
    this.id = message.id;
    this.facts = { provider: message.provider, model: message.model, usage: message.usage, fallback_from: message.meta?.fallback_from, ...knownFacts };
    if (message.reasoning) {
      this.#parts.thinking.hidden = false;
      this.#thoughts.set(message.reasoning);
    }
    this.#citations = [];
    this.#parts.sources.replaceChildren();
    this.#cite(message.citations ?? []);
    for (const call of message.tool_calls ?? []) this.#tool({ ...call, complete: true, valid: true });
    const text = textOf(message.content);
    if (typeof message.html === 'string') this.#text.show(message.html, text);
    else this.#text.set(text);
    if (message.status !== 'streaming') this.#settle(message.status, message.finish_reason, message.meta?.error);
    else if (text) this.#begin();
  }

  /** Shows the whole text as the server has rendered it. */
  rich(html) {
    if (html) this.#text.show(html);
  }

  /** Ends the answer with an error that is not (yet) the server's own end of it. */
  fail(failure, retry) {
    this.#settle('error', 'error', failure, retry);
    announce(sentence(failure));
  }

  #settle(status, finishReason, error, retry) {
    this.status = status;
    this.root.classList.remove('is-running', 'is-stopping');
    this.root.removeAttribute('aria-busy');
    this.#text.flush();
    this.#thoughts.flush();
    this.#begin();
    const note = status === 'cancelled' ? (this.#text.isEmpty ? 'Stopped before the first word.' : 'Stopped.') : CUT[finishReason];
    this.#parts.note.textContent = note ?? '';
    this.#parts.note.hidden = !note;
    const failed = status === 'error' || status === 'interrupted';
    if (failed) this.#showError(error ?? { code: status === 'error' ? 'internal' : 'interrupted' }, retry);
    this.#showFoot(failed);
  }

  #showError(failure, retry) {
    const again = retry ?? { label: 'Try again', run: () => this.#actions.regenerate() };
    const buttons = el('div', { class: 'error-actions' });
    if (canRetry(failure)) buttons.append(el('button', { type: 'button', class: 'button', text: again.label, onclick: again.run }));
    if (again.edit) buttons.append(el('button', { type: 'button', class: 'button quiet', text: 'Edit', onclick: again.edit }));
    this.#parts.error.replaceChildren(icon('alert'), el('div', {},
      el('p', { text: sentence(failure) }), el('p', { class: 'error-details', text: details(failure) }), buttons));
    this.#parts.error.hidden = false;
  }

  #showFoot(failed) {
    const line = el('p', { class: 'facts' }, ...facts(this.facts).map(({ text, title }) => el('span', { text, title })));
    const buttons = el('div', { class: 'foot-actions' });
    if (!this.#text.isEmpty) {
      const button = iconButton('copy', 'Copy answer', () => copy(this.text, button));
      buttons.append(button);
    }
    if (!failed) buttons.append(iconButton('again', 'Answer again', () => this.#actions.regenerate(), { data: { last: 'only' } }));
    this.pager = el('span', { class: 'pager' });
    buttons.append(this.pager);
    this.#parts.foot.replaceChildren(buttons, line);
    this.#parts.foot.hidden = false;
  }

  /** Shows which of several answers this is. */
  showPlace(at, count) {
    if (!this.pager || count < 2) return;
    this.pager.replaceChildren(
      iconButton('left', 'Earlier answer', () => this.#actions.pick(-1), { disabled: at === 0 }),
      el('span', { text: `${at + 1} of ${count}` }),
      iconButton('right', 'Later answer', () => this.#actions.pick(1), { disabled: at === count - 1 }));
  }
}

/** The text of a message, whose content may be parts. */
export function textOf(content) {
  if (typeof content === 'string') return content;
  return (content ?? []).map((part) => (part.type === 'text' ? part.text : '[image]')).join('\n');
}
