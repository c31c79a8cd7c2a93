// What the page says: errors, numbers and times in words.

const SENTENCES = {
  network: 'The server cannot be reached.',
  provider_busy: 'Too many people are waiting for this provider.',
  queue_timeout: 'The wait for this provider took too long.',
  breaker_open: 'This provider keeps failing and is being left alone for a moment.',
  rate_limited: 'You are sending faster than this key allows.',
  draining: 'The server is about to restart.',
  overloaded: 'The server has more to do than it can.',
  storage: 'The server cannot save messages right now.',
  internal: 'Something went wrong in the server.',
  interrupted: 'The server was stopped in the middle of this answer.',
  provider_unavailable: 'This provider cannot be used on this server.',
  upstream_connect: 'The provider cannot be reached.',
  upstream_dns: 'The provider’s address cannot be found.',
  upstream_tls: 'A safe connection to the provider is not possible.',
  upstream_timeout: 'The provider did not answer in time.',
  upstream_stalled: 'The provider fell silent in the middle of the answer.',
  upstream_truncated: 'The answer broke off.',
  upstream_protocol: 'The provider sent something that makes no sense.',
  upstream_auth: 'The provider refused the server’s key.',
  upstream_rate_limit: 'The provider asks for a slower pace.',
  upstream_quota: 'The provider’s account is used up.',
  upstream_overloaded: 'The provider is overloaded.',
  upstream_error: 'The provider failed.',
  upstream_rejected: 'The provider refused this message.',
  upstream_model_not_found: 'The provider does not know this model.',
  context_length_exceeded: 'This conversation has become too long for the model.',
  content_filter: 'The provider’s policy refused this message.',
  response_too_large: 'The answer is longer than this server keeps.',
  too_large: 'This message is too long.',
  turn_in_progress: 'An answer is still running in this conversation.',
  thread_not_found: 'This conversation does not exist any more.',
  forbidden: 'This key does not allow that.',
  unauthorized: 'This server needs a key.',
};

/** An error as a sentence. */
export function sentence(failure) {
  return SENTENCES[failure.code] ?? (failure.message ? capitalised(failure.message) : SENTENCES.internal);
}

/** What else is known of it: the server's own words, the code, when to try again. */
export function details(failure) {
  const parts = [];
  if (failure.code in SENTENCES && failure.message && failure.code !== 'network') parts.push(failure.message);
  if (failure.retry_after_ms) parts.push(`worth trying again in ${duration(failure.retry_after_ms)}`);
  parts.push(failure.code);
  if (failure.request_id) parts.push(`request ${failure.request_id}`);
  return parts.join(' · ');
}

export function canRetry(failure) {
  return failure.retryable !== false || failure.code === 'network';
}

const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A time span as people read it. */
export function duration(millis) {
  if (millis === null || millis === undefined) return '–';
  if (millis < 10) return `${Math.round(millis * 10) / 10} ms`;
  if (millis < 1000) return `${Math.round(millis)} ms`;
  if (millis < 60_000) return `${(millis / 1000).toFixed(millis < 10_000 && millis % 1000 ? 1 : 0)} s`;
  const minutes = Math.floor(millis / 60_000);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const number = (value) => new Intl.NumberFormat('en').format(value);

export function bytes(value) {
  if (value < 1024) return `${value} B`;
  return value < 1024 * 1024 ? `${(value / 1024).toFixed(0)} kB` : `${(value / 1024 / 1024).toFixed(1)} MB`;
}

/** The quiet line under an answer. */
export function facts({ provider, model, fallback_from: asked, ttft_ms, queue_wait_ms, latency_ms, usage, role }) {
  const parts = [];
  if (provider) parts.push({ text: model && model !== provider ? `${provider} · ${model}` : provider, title: 'Provider and model' });
  if (asked) parts.push({ text: `in place of ${asked}`, title: `${asked} could not answer, so ${provider} did` });
  if (isTime(ttft_ms)) parts.push({ text: `first token ${duration(ttft_ms)}`, title: 'From your message to the first piece of the answer' });
  if (queue_wait_ms >= 1) parts.push({ text: `queued ${duration(queue_wait_ms)}`, title: 'How long the message waited for its turn' });
  if (isTime(latency_ms)) parts.push({ text: `took ${duration(latency_ms)}`, title: 'From your message to the end of the answer' });
  if (usage?.output) {
    const text = `${usage.estimated ? '≈ ' : ''}${number(usage.output)} ${usage.output === 1 ? 'token' : 'tokens'}`;
    parts.push({ text, title: `${number(usage.input)} in, ${number(usage.output)} out` });
  }
  if (role) {
    const title = role === 'leader' ? 'This message made the call to the provider' : 'The same message was already being answered; this one shares the answer';
    parts.push({ text: role === 'leader' ? 'own call' : 'shared call', title: `${role}: ${title}` });
  }
  return parts;
}

const isTime = (value) => value !== null && value !== undefined;

/** The title of a conversation that begins with `text`. */
export function titleOf(text) {
  const line = text.trim().split('\n')[0].replace(/\s+/g, ' ');
  const chars = Array.from(line);
  return chars.length <= 60 ? line : `${chars.slice(0, 59).join('')}…`;
}

/** When something was, relative to today. */
export function when(millis) {
  const date = new Date(millis);
  const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(millis).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days <= 0) return 'Today';
  if (days === 1) return 'Yesterday';
  if (days < 7) return 'This week';
  if (days < 31) return 'This month';
  return date.toLocaleDateString(undefined, { month: 'long', year: 'numeric' });
}
