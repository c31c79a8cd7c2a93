// The open conversation: loads it, sends messages, follows the running answer wherever it was started.

import { Failure, json, newRequestId, request } from './api.js';
import { announce, byId, el, toast } from './dom.js';
import { follow } from './follow.js';
import { afterGrowth } from './growing.js';
import { Scroll } from './scroll.js';
import { Turn, rememberFacts } from './turns.js';
import { duration, titleOf } from './words.js';

const MESSAGES_PAGE = 100;
// How often a visible, idle conversation looks whether somebody else has sent something.
const LOOK_INTERVAL_MS = 4000;

export class Conversation {
  #turns = [];
  #run = null;
  #generation = 0;
  #earlier = null;
  /** Answers at the beginning of what is loaded, whose question is in the page before. */
  #headless = [];
  #ignored = null;
  /** Messages that others have taken the place of. */
  #replaced = new Set();
  #tabs = new BroadcastChannel('weir');
  #hooks;

  /**
   * `hooks`: `choice()` gives provider and model, `opened(thread)`, `running(isRunning)`, `changed(threadId)` (the list
   * should look again), `draft(text)` puts a text back into the message box, `edit(text)` one that is to
   * take the place of the last message, `sent()` clears it.
   */
  constructor(hooks) {
    this.#hooks = hooks;
    this.threadId = null;
    this.list = byId('turns');
    this.scroll = new Scroll(byId('scroller'), byId('latest'));
    afterGrowth(() => this.scroll.follow());
    this.#tabs.addEventListener('message', ({ data }) => {
      if (data?.thread === this.threadId) this.look();
      hooks.changed(data?.thread);
    });
    setInterval(() => this.look(), LOOK_INTERVAL_MS);
    document.addEventListener('visibilitychange', () => this.look());
    addEventListener('online', () => this.look());
  }

  get isRunning() { return this.#run !== null; }

  get lastText() { return this.#turns.at(-1)?.text ?? ''; }

  /** Leaves the conversation; a running answer goes on without this page. */
  leave() {
    this.#generation++;
    this.#run?.controller.abort();
    this.#setRun(null);
    this.#turns = [];
    this.#earlier = null;
    this.#headless = [];
    this.#ignored = null;
    this.#replaced.clear();
    this.threadId = null;
    this.list.replaceChildren();
    byId('link').hidden = true;
  }

  /** Shows a conversation, and joins its running answer. */
  async open(threadId) {
    this.leave();
    this.threadId = threadId;
    if (!threadId) return this.#hooks.opened(null);
    const generation = this.#generation;
    this.list.append(el('p', { class: 'loading', text: 'Loading…' }));
    const thread = await this.#load();
    if (generation !== this.#generation) return undefined;
    this.#show(thread);
    this.scroll.toEnd();
    if (thread.active_request_id) this.#join();
    return undefined;
  }

  /** A page of the thread, which begins with a question: no turn is shown by halves. */
  async #load(before, after = []) {
    const query = `render=html&limit=${MESSAGES_PAGE}${before ? `&before=${before}` : ''}`;
    const response = await request('GET', `/api/threads/${this.threadId}?${query}`);
    const earlier = response.headers.get('X-Next-Cursor');
    const thread = await response.json();
    const messages = [...thread.messages, ...after];
    for (const { meta } of messages) if (meta?.replaces) this.#replaced.add(meta.replaces);
    const first = messages.findIndex(({ role, id }) => role === 'user' && !this.#replaced.has(id));
    if (earlier && first < 0) return this.#load(earlier, messages);
    this.#earlier = earlier;
    this.#headless = earlier ? messages.slice(0, first) : [];
    return { ...thread, messages: earlier ? messages.slice(first) : messages };
  }

  #show(thread) {
    this.#turns = [];
    this.list.replaceChildren(...this.#made(thread.messages, this.#turns));
    this.#showEarlier();
    this.#hooks.opened(thread);
  }

  /** The elements of messages; their turns are added to `turns`. */
  #made(messages, turns) {
    let isReplaced = false;
    for (const message of messages) {
      if (message.role === 'user') {
        isReplaced = this.#replaced.has(message.id);
        if (!isReplaced) turns.push(this.#turn(message));
      } else if (message.role === 'assistant' && !isReplaced) {
        if (turns.length === 0) turns.push(this.#turn(null));
        turns.at(-1).addStored(message);
      }
    }
    return turns.map((turn) => turn.root);
  }

  #turn(user) {
    return new Turn({ regenerate: () => this.regenerate(), edit: (text) => this.#hooks.edit(text) }, user);
  }

  #showEarlier() {
    if (!this.#earlier) return;
    const button = el('button', { type: 'button', class: 'button quiet earlier', text: 'Show earlier messages' });
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        const thread = await this.#load(this.#earlier, this.#headless);
        button.remove();
        const turns = [];
        const elements = this.#made(thread.messages, turns);
        this.#turns.unshift(...turns);
        this.scroll.keep(() => this.list.prepend(...elements));
        this.#showEarlier();
      } catch (failure) {
        button.disabled = false;
        this.#say(failure);
      }
    });
    this.list.prepend(button);
  }

  /** Sends a message. */
  async send(text) {
    if (this.#run) return;
    const turn = this.#turn({ id: null, content: text });
    this.#turns.push(turn);
    this.list.append(turn.root);
    const body = { role: 'user', content: text, ...this.#hooks.choice() };
    const run = this.#begin(turn, { body, isNew: true });
    this.scroll.toEnd();
    this.#hooks.sent(text);
    try {
      if (!this.threadId) await this.#create(titleOf(text), run);
    } catch (failure) {
      return this.#failed(run, failure);
    }
    if (run.controller.signal.aborted) return undefined;
    return this.#follow(run, `/api/threads/${this.threadId}/messages/stream`, body);
  }

  /** Says something else in the place of the last message. */
  async edit(text) {
    const former = this.#turns.at(-1);
    if (!former?.userId) return this.send(text);
    if (this.#run) return undefined;
    const turn = this.#turn({ id: null, content: text });
    this.#exchange(former, turn);
    const body = { content: text, ...this.#hooks.choice() };
    const run = this.#begin(turn, { body, former, isNew: true });
    this.scroll.toEnd();
    this.#hooks.sent(text);
    return this.#follow(run, `/api/threads/${this.threadId}/regenerate`, body);
  }

  async #create(title, run) {
    const thread = await json('POST', '/api/threads', { body: { title } });
    if (run.controller.signal.aborted) return;
    this.threadId = thread.id;
    this.#hooks.opened(thread, true);
  }

  /** Asks for another answer to the last message. */
  regenerate() {
    if (this.#run || !this.threadId || this.#turns.length === 0) return undefined;
    const body = this.#hooks.choice();
    const run = this.#begin(this.#turns.at(-1), { body, isNew: false });
    this.scroll.toEnd();
    return this.#follow(run, `/api/threads/${this.threadId}/regenerate`, body);
  }

  /** Joins the answer that runs in this conversation. */
  #join() {
    const turn = this.#turns.at(-1);
    if (this.#run || !turn) return undefined;
    const last = turn.last?.isRunning ? turn.last : turn.add();
    const run = this.#begin(turn, { answer: last, isJoined: true });
    return this.#follow(run, `/api/threads/${this.threadId}/stream`);
  }

  #begin(turn, { body, answer, former, isNew = false, isJoined = false }) {
    const run = {
      turn, former, isNew, isJoined,
      answer: answer ?? turn.add(),
      controller: new AbortController(),
      requestId: isJoined ? null : newRequestId(),
    };
    if (body) body.request_id = run.requestId;
    this.#setRun(run);
    return run;
  }

  #setRun(run) {
    this.#run = run;
    this.#hooks.running(run !== null);
  }

  async #follow(run, path, body) {
    const { answer, controller } = run;
    let began = false;
    try {
      const how = await follow({
        signal: controller.signal,
        open: (signal) => request(body ? 'POST' : 'GET', path, { body, signal }),
        requestId: () => run.requestId,
        onLink: (state, waitMs) => {
          this.#showLink(state, waitMs);
          if (state !== 'live' || began) return;
          began = true;
          if (body) this.#tell();
          announce('The answer is on its way');
        },
        onEvent: (type, data) => this.#take(run, type, data),
      });
      if (how === 'left') return;
      if (how === 'over') await this.#reload(run);
    } catch (failure) {
      if (!controller.signal.aborted) await this.#failed(run, failure);
    } finally {
      if (this.#run === run) {
        this.#setRun(null);
        this.#showLink('live');
        this.scroll.follow();
      }
    }
  }

  #take(run, type, data) {
    const { answer, turn } = run;
    if (type === 'meta' && data.request_id) {
      run.requestId = data.request_id;
      turn.userId = data.user_message_id ?? turn.userId;
    }
    if (type !== 'done') {
      answer.take(type, data);
      return;
    }
    answer.done(data);
    turn.place();
    rememberFacts(answer);
    if (data.status === 'cancelled') this.#ignored = answer.id;
    this.#hooks.changed(this.threadId);
    this.#tell();
    if (answer.text) this.#enrich(answer);
  }

  /** Replaces the plain text of an ended answer by its rendered form. */
  async #enrich(answer) {
    const path = `/api/threads/${this.threadId}/messages/${answer.id}?render=html`;
    const message = await json('GET', path).catch(() => null);
    // Somebody else may still be listening, so that the store has no end yet.
    if (message?.html && message.status !== 'streaming') this.scroll.keepPlace(() => answer.rich(message.html));
  }

  /** The answer failed before, or besides, its stream. */
  async #failed(run, failure) {
    if (!(failure instanceof Failure)) throw failure;
    const { answer, turn, former } = run;
    if (failure.code === 'turn_in_progress') {
      if (run.isNew) this.#hooks.draft(turn.text, true);
      toast('Another answer is still running here. Your message is kept.');
      return this.#reload(run);
    }
    if (run.isJoined || failure.code === 'request_not_found') return this.#reload(run);
    if (run.isNew && !former) this.#hooks.draft(turn.text, true, true);
    const resend = () => { this.#drop(run); (former ? this.edit : this.send).call(this, turn.text); };
    const edit = () => { this.#drop(run); (former ? this.#hooks.edit : this.#hooks.draft)(turn.text); };
    const again = () => { turn.remove(answer); this.regenerate(); };
    answer.fail(failure, run.isNew ? { label: 'Try again', run: resend, edit } : { label: 'Try again', run: again });
    if (this.#run === run) this.#setRun(null);
    return undefined;
  }

  /** Takes back a message that could not be sent. */
  #drop({ turn, former }) {
    if (former) return this.#exchange(turn, former);
    this.#turns = this.#turns.filter((other) => other !== turn);
    return turn.root.remove();
  }

  #exchange(turn, other) {
    this.#turns = this.#turns.map((each) => (each === turn ? other : each));
    turn.root.replaceWith(other.root);
  }

  async #reload(run) {
    if (this.#run === run) this.#setRun(null);
    const generation = this.#generation;
    try {
      const thread = await this.#load();
      if (generation !== this.#generation || this.#run) return;
      this.scroll.keepPlace(() => this.#show(thread));
      if (thread.active_request_id) this.#join();
    } catch (failure) {
      this.#say(failure);
    }
  }

  /** Stops the running answer, in whatever phase it is. */
  async stop() {
    const run = this.#run;
    if (!run || run.isStopping) return;
    run.isStopping = true;
    run.answer.root.classList.add('is-stopping');
    const path = run.isJoined ? `/api/threads/${this.threadId}/stop` : `/api/threads/cancel/${run.requestId}`;
    try {
      await request('POST', path);
    } catch (failure) {
      // A cancel that comes before its message is remembered: the message will be answered as cancelled.
      if (failure.status !== 404) {
        run.isStopping = false;
        this.#say(failure);
      }
    }
  }

  /** Looks whether somebody else has sent something, and shows it. */
  async look() {
    if (!this.threadId || this.#run || this.#turns.length === 0 || document.hidden || !navigator.onLine) return;
    const generation = this.#generation;
    const thread = await json('GET', `/api/threads/${this.threadId}?limit=1`).catch(() => null);
    if (!thread || generation !== this.#generation || this.#run) return;
    const last = thread.messages.at(-1);
    const shown = this.#turns.at(-1).last;
    if (!last || last.id === this.#ignored || last.role !== 'assistant') return;
    if (shown?.id === last.id && shown.status === last.status) return;
    // A message of this page that could not be sent is still to be seen.
    if (shown && !shown.id) return;
    await this.#reload(null);
  }

  #tell() { this.#tabs.postMessage({ thread: this.threadId }); }

  #say(failure) { toast(failure.message || 'That did not work.'); }

  #showLink(state, waitMs) {
    const note = byId('link');
    note.hidden = state === 'live';
    if (state === 'offline') note.textContent = 'You are offline. The answer goes on and will be shown when you are back.';
    if (state === 'lost') note.textContent = waitMs < 1000 ? 'Connection lost. Trying again.' : `Connection lost. Trying again in ${duration(Math.round(waitMs / 1000) * 1000)}.`;
  }
}
