// How the pages look: no serious accessibility violation, no sideways scrolling, quick to paint. With SCREENS=folder
// the main states are written there as pictures.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { ended, lastAnswer, look, newPage, say, startBrowser, startWeir } from './support.js';

let browser;
let weir;

before(async () => {
  browser = await startBrowser();
  weir = await startWeir('[providers.demo]\ndialect = "demo"\nrps = 4.0\nconcurrency = 3\nburst = 3\n');
});
after(async () => {
  await browser?.close();
  await weir?.stop();
});

async function state(name, options, run, target = '/') {
  const page = await newPage(browser, options);
  try {
    await page.goto(weir.url + target);
    await run(page);
    await look(page, name);
  } finally {
    await page.context().close();
  }
}

const WISH = 'How does a weir work? Write 250 words with a list, a table and code, cite sources, think';
const crowd = async (count, content) => Promise.all(Array.from({ length: count }, async (_, at) => {
  const { id } = await (await weir.call('POST', '/api/threads', { title: `Reader ${at + 1}` })).json();
  const response = await weir.call('POST', `/api/threads/${id}/messages`, { role: 'user', content: `${content} ${at % 6}` });
  return response.json();
}));

const PHONE = { viewport: { width: 390, height: 780 }, isMobile: true, hasTouch: true };

describe('the chat', () => {
  it('with nothing said', () => state('empty', {}, (page) => page.locator('#empty').waitFor()));

  it('while an answer streams', () => state('streaming', {}, async (page) => {
    await say(page, WISH);
    await page.locator('.answer.is-running .body .table td').first().waitFor();
  }));

  for (const theme of ['light', 'dark']) {
    it(`with an answer, ${theme}`, () => state(`answer-${theme}`, { colorScheme: theme }, async (page) => {
      await say(page, WISH);
      await ended(page);
      await lastAnswer(page).locator('.rich').waitFor();
      await page.locator('#scroller').evaluate((scroller) => { scroller.scrollTop = 150; });
    }));
  }

  it('in the queue', async () => {
    const others = crowd(12, 'Write 90 words about queue');
    await state('queue', { colorScheme: 'dark' }, async (page) => {
      await say(page, 'What is the queue for?');
      await page.locator('.wait', { hasText: /in the queue|You are next/ }).waitFor();
    });
    await others;
  });

  it('with an error', () => state('error', {}, async (page) => {
    await say(page, 'please fail');
    await ended(page);
  }));

  it('with the picker open', () => state('picker', {}, async (page) => {
    await page.locator('#picker').click();
    await page.locator('#models .why').first().waitFor();
  }));

  it('on a phone', () => state('phone', PHONE, async (page) => {
    await page.getByLabel('Message', { exact: true }).fill('Write 60 words with a table and a list');
    await page.getByRole('button', { name: 'Send' }).click();
    await ended(page);
    await lastAnswer(page).locator('.rich').waitFor();
  }));

  it('on a phone with the list', () => state('phone-list', PHONE, async (page) => {
    await page.getByRole('button', { name: 'Conversations' }).click();
    await page.locator('#threads a').first().waitFor();
    await page.locator('#sidebar').evaluate((sidebar) => Promise.all(sidebar.getAnimations().map((each) => each.finished)));
  }));

  it('is painted within 100 ms', () => state('paint', {}, async (page) => {
    // What the machine does besides is not the page's weight: a page of one line is painted in turn with it.
    const times = { '/': [], '/health': [] };
    for (let at = 0; at < 6; at++) {
      for (const [target, list] of Object.entries(times)) {
        await page.goto(weir.url + target);
        await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint').length > 0);
        list.push(await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime));
      }
    }
    await page.goto(weir.url);
    await page.locator('#empty').waitFor();
    const [own, other] = Object.values(times).map((list) => Math.min(...list));
    console.log(`first contentful paint: ${times['/'].map(Math.round).join(', ')} ms; of one line of text: ${times['/health'].map(Math.round).join(', ')} ms`);
    assert.ok(own < 100 || own < 4 * other, `${own} ms, and ${other} ms for one line`);
  }));
});

describe('the dashboard', () => {
  for (const theme of ['light', 'dark']) {
    it(`under load, ${theme}`, async () => {
      const options = { viewport: { width: 1440, height: 1100 }, colorScheme: theme };
      const load = crowd(36, 'Write 60 words about load');
      const bad = crowd(2, 'please fail');
      await state(`dashboard-${theme}`, options, async (page) => {
        await page.locator('#streams tbody tr').first().waitFor();
        await page.locator('.tile', { hasText: 'Latency' }).locator('path.line.first[d*="L"]').waitFor({ state: 'attached' });
      }, '/admin');
      await Promise.all([load, bad]);
    });
  }

  it('on a phone', () => state('dashboard-phone', PHONE, async (page) => {
    await page.locator('#state[data-live="yes"]').waitFor();
  }, '/admin'));
});

describe('a page', () => {
  it('weighs at most 100,000 bytes with all that it loads', async () => {
    for (const target of ['/', '/admin']) {
      const page = await newPage(browser);
      await page.goto(weir.url + target);
      await page.locator('#state[data-live="yes"], #empty').first().waitFor();
      const files = await page.evaluate(() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
        .filter(({ name }) => !name.includes('/api/'))
        .map(({ transferSize, decodedBodySize }) => ({ transferSize, decodedBodySize })));
      const sum = (key) => files.reduce((total, file) => total + file[key], 0);
      console.log(`${target}: ${files.length} files, ${sum('transferSize')} bytes over the wire, ${sum('decodedBodySize')} unpacked`);
      assert.ok(files.length > 8 && sum('transferSize') > 10_000 && sum('transferSize') <= 100_000, `${target}: ${sum('transferSize')}`);
      await page.context().close();
    }
  });
});
