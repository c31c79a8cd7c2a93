// The page while a very long answer streams: keys are answered, the end stays in view, little is asked of the server.
//
// What a key costs is told in wall-clock time. What is asserted is the time that the browser's main thread computes,
// because another process on the machine adds nothing to that.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';

import { ended, lastAnswer, newPage, say, startBrowser, startMock, startWeir } from './support.js';

const TOKENS = 20_000;
/** The longest that a key may wait for the page. */
const LIMIT_MS = 50;

let browser;
let weir;
let mock;
let page;
let script;

before(async () => {
  mock = await startMock((_, write) => script(write));
  [browser, weir] = await Promise.all([startBrowser(), startWeir(mock.config)]);
});
after(async () => {
  await browser?.close();
  await weir?.stop();
  mock?.stop();
});
afterEach(async () => {
  const problems = page?.problems ?? [];
  await page?.context().close();
  page = undefined;
  assert.deepEqual(problems, [], 'the page has problems');
});

/** Everything that answers are made of, in tokens. */
const MIXED = Array.from({ length: TOKENS }, (_, at) => {
  const place = at % 200;
  if (place === 0) return '\n\n## word\n\n';
  if (place === 60) return '\n\n- word ';
  if (place > 60 && place < 100 && place % 8 === 0) return '\n- word ';
  if (place === 100) return '\n\n```js\nword ';
  if (place > 100 && place < 140 && place % 8 === 0) return '\nword ';
  if (place === 140) return '\n```\n\n| word | b |\n|---|---|\n';
  if (place > 140 && place < 160) return `| **word** ${at} | b |\n`;
  if (place === 160) return '\n\nword ';
  return place % 25 === 0 ? '**word** ' : 'word ';
});
/** One block that does not end. */
const CODE = Array.from({ length: TOKENS }, (_, at) => (at === 0 ? '```text\nword ' : at % 12 === 0 ? '\nword ' : 'word '));

const stream = (tokens) => async (write) => {
  for (const [at, token] of tokens.entries()) {
    write(token);
    if (at % 20 === 19) await new Promise((resolve) => { setTimeout(resolve, 8); });
  }
};

/** Notes how long each key takes until the frame after it is there. */
function watch() {
  window.took = [];
  addEventListener('keydown', ({ timeStamp }) => {
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => window.took.push(performance.now() - timeStamp);
      port2.postMessage(null);
    });
  }, { capture: true });
}

const at = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
const told = (millis) => {
  const sorted = millis.toSorted((a, b) => a - b);
  return `p50 ${at(sorted, 0.5).toFixed(1)}, p99 ${at(sorted, 0.99).toFixed(1)}, max ${at(sorted, 1).toFixed(1)} ms`;
};

/** The tasks of the page's main thread, in milliseconds that it computed. */
function tasks(trace) {
  const { traceEvents } = JSON.parse(trace);
  const mains = traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid}.${tid}`);
  return traceEvents.filter(({ name, ph, pid, tid }) => name === 'RunTask' && ph === 'X' && mains.includes(`${pid}.${tid}`))
    .map(({ tdur, dur }) => (tdur ?? dur) / 1000);
}

async function typeDuring(tokens) {
  script = stream(tokens);
  page = await newPage(browser);
  page.setDefaultTimeout(60_000);
  await page.goto(weir.url);
  await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
  await page.evaluate(watch);
  for (let keys = 0; keys < 40; keys++) await page.keyboard.press('a');
  const idle = await page.evaluate(() => window.took.splice(0));
  await say(page, 'go');
  await lastAnswer(page).locator('.body', { hasText: 'word' }).waitFor();
  await page.evaluate(() => { window.took = []; });
  await browser.startTracing(page, { categories: ['toplevel', 'disabled-by-default-devtools.timeline'] });
  const isOver = ended(page).then(() => true);
  let keys = 0;
  for (let over = false; !over; keys++) {
    await page.keyboard.press('a');
    over = await Promise.race([isOver, new Promise((resolve) => { setTimeout(resolve, 5, false); })]);
  }
  await page.waitForFunction(() => !document.querySelector('.answer .raw'));
  const computed = tasks(await browser.stopTracing());
  return { keys, idle, took: await page.evaluate(() => window.took), computed };
}

describe(`an answer of ${TOKENS} tokens`, () => {
  for (const [what, tokens] of Object.entries({ 'of all kinds': MIXED, 'in one block of code': CODE })) {
    it(`${what} lets the page answer each key`, async () => {
      const { keys, idle, took, computed } = await typeDuring(tokens);
      console.log(`${what}: ${keys} keys, to the next frame: ${told(took)}; idle: ${told(idle)}`);
      console.log(`${what}: ${computed.length} tasks of the main thread: ${told(computed)}`);
      assert.ok(keys >= 20 && took.length >= 20, 'the answer was over too soon to tell');
      assert.ok(computed.length > 100, 'the browser told of no tasks');
      const slow = computed.filter((millis) => millis >= LIMIT_MS);
      assert.deepEqual(slow, [], `tasks of ${LIMIT_MS} ms or more`);
      const words = (await lastAnswer(page).locator('.body').evaluate((body) => body.textContent)).match(/word/g);
      assert.ok(words.length >= TOKENS * 0.95, `${words.length} words are there`);
    });
  }
});
