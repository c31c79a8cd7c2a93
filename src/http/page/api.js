// The server's API: calls, the one shape of its errors. Who asks is in a cookie, which the browser alone handles.

let askForKey = () => {};

/** Something that went wrong, as the server says it. The code `network` is the browser's own: nobody answered. */
export class Failure extends Error {
  constructor({ code = 'internal', message = '', status = 0, ...facts } = {}) {
    super(message);
    Object.assign(this, { code, status, ...facts });
  }

  static async of(response) {
    const body = await response.json().catch(() => null);
    const error = body?.error ?? { code: 'internal', message: `The server answered ${response.status}.` };
    return new Failure({ ...error, status: response.status });
  }
}

/** Says who asks for a key when the server wants one. */
export function onKeyWanted(ask) { askForKey = ask; }

/** Calls the server. Resolves with the response when it is a good one. */
export async function request(method, path, { body, signal, headers = {}, keepalive } = {}) {
  const sent = { ...headers };
  if (body !== undefined) sent['Content-Type'] = 'application/json';
  const init = { method, signal, keepalive, headers: sent, cache: 'no-store', redirect: 'error' };
  if (body !== undefined) init.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure({ code: 'network', message: 'The server cannot be reached.', retryable: true });
  }
  if (response.ok) return response;
  const failure = await Failure.of(response);
  if (failure.status === 401) askForKey();
  throw failure;
}

/** Calls the server and reads the JSON of its answer. */
export async function json(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** An id for a request. The client chooses it, so that it can cancel before the server has answered. */
export function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `ui_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
