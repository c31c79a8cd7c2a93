// Follows one answer to its end, across lost connections.

import { Failure, request } from './api.js';
import { batches } from './sse.js';

const WAITS_MS = [300, 700, 1500, 3000, 5000, 8000];
// The server shows that it is alive every 15 seconds.
const SILENCE_MAX_MS = 40_000;
// How often a message is sent again while nobody answers.
const SEND_TRIES_MAX = 5;

/**
 * Opens an event stream and goes on until its `done`.
 *
 * `open(signal)` makes the first response; `requestId()` names what is resumed once it is known; `onEvent(type, data)`
 * gets each event; `onLink(state, waitMs)` hears `live`, `lost` and `offline`. Resolves with `done`, `over` (nothing
 * to follow, or nothing left), or `left` when `signal` was aborted. Rejects with the server's failure.
 */
export async function follow({ open, requestId, onEvent, onLink, signal }) {
  let lastId = null;
  let hasBegun = false;
  let tries = 0;
  const resume = (inner) => {
    const headers = lastId ? { 'Last-Event-ID': lastId } : {};
    return request('GET', `/api/requests/${requestId()}/stream`, { headers, signal: inner });
  };
  for (;;) {
    const attempt = new Attempt(signal);
    try {
      const response = await (hasBegun ? resume(attempt.signal) : open(attempt.signal));
      if (response.status === 204) return 'over';
      hasBegun = true;
      onLink('live');
      for await (const events of batches(response.body)) {
        attempt.alive();
        for (const { event, id, data } of events) {
          tries = 0;
          if (id) lastId = id;
          // The text of a snapshot has no event id that could be continued from.
          if (event === 'snapshot') lastId = null;
          onEvent(event, JSON.parse(data));
          if (event === 'done') return 'done';
        }
      }
    } catch (error) {
      if (signal.aborted) return 'left';
      const isLost = !(error instanceof Failure) || error.code === 'network' || (hasBegun && error.retryable);
      if (!isLost || (!hasBegun && ++tries > SEND_TRIES_MAX)) throw error;
    } finally {
      attempt.end();
    }
    if (signal.aborted) return 'left';
    const waitMs = WAITS_MS[Math.min(hasBegun ? tries++ : tries, WAITS_MS.length - 1)] * (0.75 + Math.random() / 2);
    onLink(navigator.onLine ? 'lost' : 'offline', waitMs);
    await pause(waitMs, signal);
  }
}

/** One connection: given up when it is silent for too long, or when the whole is. */
class Attempt {
  #controller = new AbortController();
  #outer;
  #timer = 0;

  constructor(outer) {
    this.#outer = outer;
    if (outer.aborted) this.giveUp();
    outer.addEventListener('abort', this.giveUp);
    this.alive();
  }

  get signal() { return this.#controller.signal; }

  giveUp = () => this.#controller.abort();

  alive() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.giveUp, SILENCE_MAX_MS);
  }

  end() {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener('abort', this.giveUp);
  }
}

/** Waits, but not longer than until the network is back. */
function pause(millis, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener('online', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, millis);
    addEventListener('online', done);
    signal.addEventListener('abort', done);
  });
}
