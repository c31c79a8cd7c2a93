// One answer in several places: after a reload, in a second tab, for two people, across a lost connection. The
// provider holds each answer back until the test has seen its beginning everywhere.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';

import { ended, gate, lastAnswer, newPage, pageOf, say, startBrowser, startMock, startWeir, startWire } from './support.js';

const BEGINNING = 'The beginning of it, ';
const REST = 'the middle, and the end.';

let browser;
let weir;
let mock;
let page;
let held;
let calls;

before(async () => {
  mock = await startMock(async (_, write) => {
    calls++;
    write(BEGINNING);
    await held.opened;
    for (const piece of REST.match(/.{1,5}/g)) write(piece);
  });
  [browser, weir] = await Promise.all([startBrowser(), startWeir(mock.config)]);
});
after(async () => {
  await browser?.close();
  await weir?.stop();
  mock?.stop();
});
afterEach(async () => {
  const problems = page?.problems ?? [];
  held?.open();
  await page?.context().close();
  page = undefined;
  assert.deepEqual(problems, [], 'the page has problems');
});

async function open(url = weir.url) {
  held = gate();
  calls = 0;
  page = await newPage(browser);
  await page.goto(url);
  await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
}

const begins = (where) => where.locator('.answer.is-running .body', { hasText: BEGINNING.trim() }).waitFor();
const text = (where) => lastAnswer(where).locator('.body').innerText().then((shown) => shown.trim());

async function endsEverywhere(...places) {
  held.open();
  for (const place of places) {
    await ended(place);
    assert.equal(await text(place), BEGINNING + REST);
  }
}

describe('one answer', () => {
  it('goes on after a reload in the middle', async () => {
    await open();
    await say(page, 'reload');
    await begins(page);
    await page.reload();
    await begins(page);
    await endsEverywhere(page);
  });

  it('is followed by a second tab, which sees the next message by itself', async () => {
    await open();
    await say(page, 'tabs');
    await begins(page);
    const other = await pageOf(page.context());
    await other.goto(page.url());
    await begins(other);
    await endsEverywhere(page, other);

    held = gate();
    await say(page, 'and more');
    await other.locator('.question', { hasText: 'and more' }).waitFor();
    await begins(other);
    await endsEverywhere(page, other);
  });

  it('is shared by two people who send the same thing at once', async () => {
    await open();
    const other = await newPage(browser);
    await other.goto(weir.url);
    await Promise.all([say(page, 'twins'), say(other, 'twins')]);
    await Promise.all([begins(page), begins(other)]);
    await endsEverywhere(page, other);
    const roles = await Promise.all([page, other].map((each) => lastAnswer(each).locator('.facts span').last().innerText()));
    assert.deepEqual(roles.toSorted(), ['own call', 'shared call']);
    assert.equal(calls, 1);
    await other.context().close();
  });

  it('is taken up where a lost connection broke', async () => {
    const wire = await startWire(weir.url);
    try {
      await open(wire.url);
      await say(page, 'wire');
      await begins(page);
      const resumed = page.waitForRequest(/\/api\/requests\/[^/]+\/stream/);
      wire.cut();
      assert.match(await (await resumed).headerValue('last-event-id'), /^1-\d+$/);
      await endsEverywhere(page);
      assert.equal(calls, 1);
    } finally {
      wire.stop();
    }
  });
});

describe('the message box', () => {
  const box = (where) => where.getByLabel('Message', { exact: true });

  it('keeps a draft over a reload, for its conversation alone', async () => {
    await open();
    held.open();
    await box(page).fill('half a thought');
    await page.reload();
    await page.waitForFunction(() => document.querySelector('#message').value === 'half a thought');
    await say(page, 'a whole one');
    await ended(page);
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.locator('#empty').waitFor();
    assert.equal(await box(page).inputValue(), '');
  });

  it('of one tab does not take the words of another', async () => {
    await open();
    held.open();
    const other = await pageOf(page.context());
    await other.goto(weir.url);
    await other.locator('#empty').waitFor();
    await box(other).fill('mine');
    await say(page, 'yours');
    await ended(page);
    assert.equal(await box(other).inputValue(), 'mine');
  });

  it('says when there is no network', async () => {
    await open();
    await page.context().setOffline(true);
    await page.locator('#offline').waitFor();
    await page.context().setOffline(false);
    await page.locator('#offline').waitFor({ state: 'hidden' });
  });
});
