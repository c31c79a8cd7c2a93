// The dashboard: one report a second from the server, drawn and listed; limits and streams can be changed here.

import { Failure, json, request } from './api.js';
import { bars, Chart } from './chart.js';
import { byId, el, toast } from './dom.js';
import { setUpSignIn } from './signin.js';
import { batches } from './sse.js';
import { bytes, duration, number, sentence } from './words.js';

const SPAN_MS = 5 * 60_000;
const RETRY_MS = 2000;

const percent = (share) => (share === null || share === undefined ? '–' : `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`);

/** A chart of one measure's percentiles. */
function percentiles(title, hint, key) {
  const series = [['p95', 'p95', 'first'], ['p50', 'p50', 'second'], ['p99', 'p99', 'third']];
  const chart = new Chart({
    title, hint, spanMs: SPAN_MS, least: 10, format: duration,
    series: series.map(([name, at, className]) => ({ name, key: at, className })),
  });
  return { chart, values: ({ performance }) => performance[key] };
}

const sum = (rows, name) => rows.reduce((total, row) => total + row[name], 0);

const rate = (value) => number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 }).format;

const CHARTS = [
  {
    chart: new Chart({
      title: 'Requests', hint: 'Requests that end each second, over the last ten', spanMs: SPAN_MS, least: 1, format: (value) => `${rate(value)} / s`, scale: compact,
      series: [{ name: 'ended', key: 'requests_per_s', className: 'first' }],
    }),
    values: ({ performance }) => performance.rates,
  },
  {
    chart: new Chart({
      title: 'Tokens', hint: 'Tokens that providers have made each second, over the last ten, told when their answers end', spanMs: SPAN_MS, least: 10,
      format: (value) => `${rate(value)} / s`, scale: compact, series: [{ name: 'out', key: 'tokens_per_s', className: 'first' }],
    }),
    values: ({ performance }) => performance.rates,
  },
  percentiles('First token', 'From a request to the first piece of its answer, over the last 100 requests', 'ttft_ms'),
  percentiles('Queue wait', 'From a request to the pacer’s permit', 'queue_wait_ms'),
  percentiles('Latency', 'From a request to the end of its answer', 'latency_ms'),
  percentiles('Cancel', 'From a cancel to the end of the provider’s call', 'cancel_ms'),
  {
    chart: new Chart({
      title: 'Running', hint: 'Answers that run, and who listens', spanMs: SPAN_MS, least: 4, format: (value) => number(Math.round(value * 10) / 10), scale: compact,
      series: [{ name: 'streams', key: 'streams', className: 'first' }, { name: 'listeners', key: 'listeners', className: 'second' }],
    }),
    values: ({ streams }) => ({ streams: streams.length, listeners: sum(streams, 'listeners') }),
  },
  {
    chart: new Chart({
      title: 'Pacers', hint: 'Calls in flight and callers that wait, all providers', spanMs: SPAN_MS, least: 4, format: (value) => number(Math.round(value * 10) / 10), scale: compact,
      series: [{ name: 'in flight', key: 'in_flight', className: 'first' }, { name: 'queued', key: 'queued', className: 'second' }],
    }),
    values: ({ pacers }) => ({ in_flight: sum(pacers, 'in_flight'), queued: sum(pacers, 'queued') }),
  },
];

byId('charts').prepend(...CHARTS.map(({ chart }) => chart.root));

function show(report) {
  const now = Date.now();
  for (const { chart, values } of CHARTS) chart.add(now, values(report));
  showAlerts(report.performance.alerts);
  showSharing(report.performance);
  showErrors(report.performance);
  showFallbacks(report.performance);
  showFailures(report.performance.failures);
  showStreams(report.streams);
  showPacers(report.pacers);
  showProviders(report.performance.providers);
}

function showAlerts(alerts) {
  const root = byId('alerts');
  const text = JSON.stringify(alerts.map(({ name }) => name));
  byId('calm').hidden = alerts.length > 0;
  for (const [at, alert] of alerts.entries()) {
    const isShare = alert.name === 'error_rate';
    const value = isShare ? percent(alert.value) : alert.name === 'coalescing' ? number(alert.value) : duration(alert.value);
    const limit = isShare ? percent(alert.threshold) : alert.name === 'coalescing' ? number(alert.threshold) : duration(alert.threshold);
    const line = `${value}, limit ${limit}${alert.for_ms ? `, for ${duration(alert.for_ms)}` : ''}`;
    if (root.dataset.shown === text) root.children[at].lastElementChild.textContent = line;
    else {
      if (at === 0) root.replaceChildren();
      root.append(el('li', {}, el('strong', { text: alert.message }), el('span', { text: line })));
    }
  }
  if (alerts.length === 0) root.replaceChildren();
  root.dataset.shown = text;
}

function showSharing({ coalesce, tokens, window }) {
  byId('ratio').textContent = coalesce.ratio === null ? '–' : `${number(Math.round(coalesce.ratio * 10) / 10)} : 1`;
  bars(byId('roles'), { 'own call': coalesce.leaders, 'shared call': coalesce.followers }, 'first');
  byId('tokens').textContent = `${number(tokens.input)} tokens in, ${number(tokens.output)} out, in the last ${number(window.count)} requests`;
}

function showErrors({ errors, error_rate }) {
  byId('error-rate').textContent = percent(error_rate);
  byId('error-rate').classList.toggle('bad', error_rate > 0.01);
  bars(byId('codes'), errors.by_code, 'bad');
  byId('no-errors').hidden = errors.total > 0;
}

function showFallbacks({ fallbacks, providers, window }) {
  byId('fallbacks').textContent = window.count ? number(fallbacks) : '–';
  const helped = Object.entries(providers).filter(([, report]) => report.fallbacks > 0);
  bars(byId('helpers'), Object.fromEntries(helped.map(([name, report]) => [name, report.fallbacks])), 'second');
  byId('no-fallbacks').textContent = helped.length ? 'Who has answered in another one’s place.'
    : `Each of the last ${number(window.count)} requests was answered by whom it asked.`;
  byId('no-fallbacks').hidden = window.count === 0;
}

const STAGES = { queue: 'in the queue', connect: 'connecting', headers: 'before the answer', pre_token: 'before the first token', mid_stream: 'in the answer' };
const FAILURES_SHOWN = 20;

function showFailures(failures) {
  const rows = failures.slice(0, FAILURES_SHOWN).map((failed) => ({ ...failed, key: `${failed.request_id}-${failed.at}` }));
  const time = (at) => new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
  fill('failures', rows, 'key', (failed) => [
    time(failed.at), failed.provider, failed.code, `${failed.message}${failed.phase ? `, ${STAGES[failed.phase] ?? failed.phase}` : ''}`, failed.request_id,
  ], (line, failed) => {
    line.title = new Date(failed.at).toLocaleString();
    if (failed.upstream_request_id) line.cells[4].title = `The provider calls it ${failed.upstream_request_id}`;
  }, true);
}

/**
 * Brings the rows of a table up to date: `cells(row)` gives texts, which are only written where they changed.
 * `isNews`: rows that are new stand in front.
 */
function fill(table, rows, key, cells, make, isNews = false) {
  const body = byId(table).tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  for (const row of isNews ? rows.toReversed() : rows) {
    let line = known.get(row[key]);
    if (!line) {
      line = el('tr', { data: { key: row[key] } }, ...cells(row).map((_, at) => el(at === 0 ? 'th' : 'td', at === 0 ? { scope: 'row' } : {})));
      make?.(line, row);
      if (isNews) body.prepend(line);
      else body.append(line);
    }
    known.delete(String(row[key]));
    for (const [at, text] of cells(row).entries()) {
      if (line.cells[at].textContent !== text) line.cells[at].textContent = text;
    }
  }
  for (const line of known.values()) line.remove();
  byId(`no-${table}`).hidden = rows.length > 0;
  byId(table).hidden = rows.length === 0;
}

const nameOf = ({ provider, model }) => (model === provider ? provider : `${provider} · ${model}`);
const PHASES = { queue: 'in the queue', upstream: 'waiting for the provider', streaming: 'streaming' };

function showStreams(streams) {
  byId('streams-count').textContent = streams.length ? number(streams.length) : '';
  const oldest = [...streams].sort((a, b) => b.age_ms - a.age_ms).slice(0, 50);
  fill('streams', oldest, 'stream_id', (stream) => [
    nameOf(stream), PHASES[stream.phase] ?? stream.phase, duration(stream.age_ms), number(stream.listeners),
    number(stream.events), bytes(stream.bytes), number(stream.slowest_lag),
  ], (line, stream) => {
    const stop = el('button', { type: 'button', class: 'button', text: 'Stop', 'aria-label': `Stop stream ${stream.stream_id}` });
    stop.addEventListener('click', async () => {
      stop.disabled = true;
      try {
        await request('POST', `/api/admin/streams/${stream.stream_id}/stop`);
      } catch (failure) {
        stop.disabled = false;
        if (failure.status !== 404) toast(sentence(failure));
      }
    });
    line.append(el('td', {}, stop));
    line.title = stream.stream_id;
  });
}

const LIMITS = [['rps', 'calls per second', '0.001', 'any'], ['concurrency', 'calls at once', '1', '1'], ['burst', 'burst', '1', '1'],
  ['tpm', 'tokens a minute, 0 for no limit', '0', '1']];
const BREAKERS = { closed: 'closed', open: 'open', half_open: 'trying' };

function showPacers(pacers) {
  fill('pacers', pacers, 'provider', (pacer) => [
    pacer.provider, `${pacer.in_flight} of ${pacer.concurrency}`,
    pacer.queued ? `${number(pacer.queued)}, ${duration(pacer.oldest_wait_ms)}` : '0',
    `${number(Math.round(pacer.effective_rps * 100) / 100)} / s${pacer.paused_ms ? `, paused ${duration(pacer.paused_ms)}` : ''}`,
    pacer.tpm_available === null ? 'no limit' : `${number(pacer.tpm_available)} of ${number(pacer.tpm)}`,
    BREAKERS[pacer.breaker] ?? 'none', pacer.http === 'none' ? '–' : `${pacer.http}, ${pacer.warm} warm`,
  ], makePacer);
  for (const pacer of pacers) {
    const line = byId(`rps-${pacer.provider}`)?.closest('tr');
    line?.cells[5].classList.toggle('bad', pacer.breaker === 'open');
    line?.cells[4].classList.toggle('warn', pacer.tpm_available !== null && pacer.tpm_available <= 0);
    line?.cells[3].classList.toggle('warn', pacer.paused_ms > 0 || pacer.effective_rps < pacer.rps);
    for (const [name] of LIMITS) {
      const field = byId(`${name}-${pacer.provider}`);
      if (field && !field.closest('form').dataset.changed && document.activeElement !== field) field.value = pacer[name];
    }
  }
}

function makePacer(line, pacer) {
  const form = el('form', { class: 'limits' });
  for (const [name, text, min, step] of LIMITS) {
    const label = `${pacer.provider}: ${text}`;
    form.append(el('label', {}, el('span', { text: name }),
      el('input', { type: 'number', id: `${name}-${pacer.provider}`, name, min, step, required: true, value: pacer[name], 'aria-label': label })));
  }
  const apply = el('button', { class: 'button', text: 'Apply', disabled: true });
  form.append(apply);
  form.addEventListener('input', () => { form.dataset.changed = 'yes'; apply.disabled = false; });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const change = Object.fromEntries(LIMITS.map(([name]) => [name, Number(form.elements[name].value)]));
    try {
      await json('PATCH', `/api/admin/pacers/${encodeURIComponent(pacer.provider)}`, { body: change });
      toast(`${pacer.provider} has new limits, until the next start.`);
      delete form.dataset.changed;
      apply.disabled = true;
    } catch (failure) {
      toast(failure.message);
    }
  });
  line.append(el('td', {}, form));
}

function showProviders(providers) {
  const rows = Object.entries(providers).map(([name, report]) => ({ name, ...report }));
  const both = (measure) => `${duration(measure.p50)} · ${duration(measure.p95)}`;
  fill('providers', rows, 'name', (row) => [
    row.name, number(row.count), both(row.ttft_ms), both(row.queue_wait_ms), both(row.latency_ms), percent(row.error_rate),
    `${number(row.tokens.input)} · ${number(row.tokens.output)}`,
  ]);
}

function say(text, isLive) {
  byId('state').textContent = text;
  byId('state').dataset.live = isLive ? 'yes' : 'no';
}

let generation = 0;

/** Reads the feed, and opens it again when it breaks. */
async function watch() {
  const mine = ++generation;
  while (mine === generation) {
    let waitMs = RETRY_MS;
    try {
      const response = await request('GET', '/api/admin/feed');
      for await (const events of batches(response.body)) {
        if (mine !== generation) return;
        for (const { data } of events) show(JSON.parse(data));
        if (events.length > 0) say('Live', true);
      }
      say('Connection lost', false);
    } catch (failure) {
      if (failure.status === 401) return;
      if (failure instanceof Failure && failure.status === 403) return void say('This key may not operate the server', false);
      say(failure instanceof Failure ? sentence(failure) : 'Connection lost', false);
      waitMs = failure.retry_after_ms ?? RETRY_MS;
      if (!(failure instanceof Failure) && !(failure instanceof TypeError)) throw failure;
    }
    await new Promise((resolve) => { setTimeout(resolve, waitMs); });
  }
}

setUpSignIn(watch);
watch();
