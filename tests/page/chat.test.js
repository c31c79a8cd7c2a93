// The chat page in a real browser, against the real binary.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';

import { ended, lastAnswer, newPage, say, startBrowser, startMock, startWeir } from './support.js';

let browser;
let weir;
let page;

const DEMO = '[providers.demo]\ndialect = "demo"\nrps = 1000.0\nconcurrency = 100\nburst = 1000\n';

before(async () => {
  browser = await startBrowser();
  weir = await startWeir(DEMO);
});
after(async () => {
  await browser?.close();
  await weir?.stop();
});
afterEach(async () => {
  const problems = page?.problems ?? [];
  await page?.context().close();
  page = undefined;
  assert.deepEqual(problems, [], 'the page has problems');
});

async function open(options, url = weir.url) {
  page = await newPage(browser, options);
  await page.goto(url);
  await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
}

async function apart(run) {
  const own = await startWeir(DEMO);
  try {
    await run(own.url);
  } finally {
    await own.stop();
  }
}

const pieces = (answer) => answer.locator('.body').innerText();
const waitForText = (answer, pattern) => answer.locator('.body').filter({ hasText: pattern }).waitFor();
const click = (name) => page.getByRole('button', { name, exact: true }).click();
const calls = async (query = '') => (await weir.call('GET', `/api/threads${query}`)).json();

describe('a message', () => {
  it('is answered piece by piece, rendered at the end, and has its facts below', async () => {
    await open();
    await say(page, 'Write 400 words with a list, a table and code, cite sources, think');
    const answer = lastAnswer(page);
    await waitForText(answer, /\w+/);
    assert.equal(await answer.getAttribute('aria-busy'), 'true');
    await ended(page);
    await answer.locator('.body.rich table').waitFor();

    assert.match(await answer.locator('.facts').innerText(), /demo.*first token.*took.*tokens.*own call/s);
    assert.equal(await answer.getAttribute('aria-busy'), null);
    assert.ok(await answer.locator('.code').count() > 0);
    assert.ok(await answer.locator('a.cite[rel~="noopener"]').count() > 0);
    assert.equal(await answer.locator('.thinking').getAttribute('open'), null);
    assert.equal(await page.locator('#status').innerText(), 'Answer finished');
  });

  it('that was just sent gives its conversation a title and an address that lead back to it', async () => {
    await open();
    await say(page, 'Write 5 words about the title');
    await ended(page);
    const shown = await pieces(lastAnswer(page));
    assert.equal(await page.title(), 'Write 5 words about the title · weir');
    assert.equal(await page.locator('#threads a[aria-current]').innerText(), 'Write 5 words about the title');
    await page.reload();
    await ended(page);
    assert.equal(await pieces(lastAnswer(page)), shown);
    assert.match(await lastAnswer(page).locator('.facts').innerText(), /first token/);
  });

  it('is stopped before its first token', async () => {
    await open();
    await say(page, 'wait 30 seconds');
    await page.locator('.wait').waitFor();
    await click('Stop');
    await ended(page);

    assert.match(await lastAnswer(page).locator('.note').innerText(), /Stopped before the first word/);
  });

  it('is stopped before the server has answered at all', async () => {
    await open();
    // The conversation is made, the message is held back, and the cancel comes first.
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    await page.route('**/messages/stream', async (route) => { await held; await route.continue(); });
    await say(page, 'wait 30 seconds');
    const cancelled = page.waitForResponse(/\/api\/threads\/cancel\//);
    await click('Stop');
    assert.equal((await cancelled).status(), 404);
    release();
    await ended(page);
    assert.match(await lastAnswer(page).locator('.note').innerText(), /Stopped/);
  });

  it('is stopped in the middle, and what has come is kept', async () => {
    await open();
    await say(page, 'Write 500 words, be slow');
    await waitForText(lastAnswer(page), /\w+ \w+/);
    await page.keyboard.press('Escape');
    await ended(page);
    assert.equal(await lastAnswer(page).locator('.note').innerText(), 'Stopped.');
    const shown = await pieces(lastAnswer(page));
    await page.reload();
    await ended(page);
    assert.equal((await pieces(lastAnswer(page))).trim(), shown.trim());
  });

  // Servers of their own: after failures a provider is left alone for a while.
  it('that fails says why in words, and can be tried again', () => apart(async (url) => {
    await open({}, url);
    await say(page, 'please fail');
    await ended(page);
    assert.match(await lastAnswer(page).locator('.error').innerText(), /The provider is overloaded\./);
    await click('Try again');
    await lastAnswer(page).locator('.pager', { hasText: '2 of 2' }).waitFor();
    await ended(page);
    assert.ok(await lastAnswer(page).locator('.error').isVisible());
  }));

  it('that fails halfway keeps its text', () => apart(async (url) => {
    await open({}, url);
    await say(page, 'write 40 words and fail halfway');
    await ended(page);
    assert.ok((await pieces(lastAnswer(page))).length > 20);
    assert.ok(await lastAnswer(page).locator('.error').isVisible());
  }));

  it('can be answered again, and both answers are there', async () => {
    await open();
    await say(page, 'Write 8 words');
    await ended(page);
    await click('Answer again');
    await page.locator('.pager', { hasText: '2 of 2' }).waitFor();
    await click('Earlier answer');
    await page.locator('.pager', { hasText: '1 of 2' }).waitFor();
    assert.equal(await page.locator('.question').count(), 1);
  });

  it('in another language runs from right to left', async () => {
    await open();
    await say(page, 'שלום, מה שלומך?');
    await ended(page);
    const direction = await page.locator('.bubble').evaluate((bubble) => getComputedStyle(bubble).direction);
    assert.equal(direction, 'rtl');
  });
});

describe('an answer by another provider', () => {
  const DEAD = `default_provider = "dead"\n${DEMO}[providers.dead]
dialect = "openai_chat"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "MOCK_API_KEY"\nmodels = ["m"]\ndefault_model = "m"
fallback = ["demo/demo"]\nretries_max = 0\n`;

  it('says in whose place it was made, also after a reload', async () => {
    const own = await startWeir(DEAD);
    try {
      await open({}, own.url);
      await say(page, 'Write 5 words');
      for (let seen = 0; seen < 2; seen++) {
        await ended(page);
        assert.match(await lastAnswer(page).locator('.facts').innerText(), /demo\s*·?\s*in place of dead/);
        await page.reload();
      }
    } finally {
      await own.stop();
    }
  });
});

describe('a long conversation', () => {
  it('is never shown by halves, wherever its pages end', async () => {
    const { id } = await (await weir.call('POST', '/api/threads', { title: 'Pages' })).json();
    const post = async (what, body) => (await weir.call('POST', `/api/threads/${id}/${what}`, body)).text();
    await post('messages', { content: 'Write 5 words about A' });
    await post('messages', { content: 'Write 5 words about B' });
    await post('regenerate', { content: 'Write 6 words about B' });
    await post('regenerate', {});
    await post('messages', { content: 'Write 5 words about C' });
    const wanted = ['Write 5 words about A', 'Write 6 words about B', 'Write 5 words about C'];
    await open();
    for (let limit = 1; limit <= 9; limit++) {
      await page.route(/limit=100/, (route) => route.continue({ url: route.request().url().replace('limit=100', `limit=${limit}`) }));
      await page.goto('about:blank');
      await page.goto(`${weir.url}/#${id}`);
      const shown = page.locator('.question .bubble');
      for (let before = 0; ;) {
        await page.waitForFunction((count) => document.querySelectorAll('.question').length > count, before);
        const texts = await shown.allInnerTexts();
        assert.deepEqual(texts, wanted.slice(-texts.length), `pages of ${limit}`);
        assert.equal(await page.locator('.turn').count(), texts.length);
        assert.equal(await page.locator('.turn .answer').count(), texts.length);
        before = texts.length;
        const more = page.getByRole('button', { name: 'Show earlier messages' });
        if (await more.count() === 0) break;
        await more.click();
      }
      assert.deepEqual(await shown.allInnerTexts(), wanted, `pages of ${limit}`);
      assert.match(await page.locator('.turn').nth(1).locator('.pager').innerText(), /2 of 2/);
      await page.unroute(/limit=100/);
    }
  });
});

describe('the list', () => {
  const row = (title) => page.locator('#threads li.thread', { hasText: title });
  const act = async (title, action) => {
    await row(title).getByRole('button').click();
    await page.getByRole('menuitem', { name: action }).click();
  };

  it('renames, pins, finds, deletes and takes a deletion back', async () => {
    for (const title of ['First river', 'Second river', 'A mountain']) await weir.call('POST', '/api/threads', { title });
    await open();
    await act('First river', 'Rename');
    await page.getByLabel('New title').fill('The old river');
    await page.keyboard.press('Enter');
    await row('The old river').waitFor();
    await act('The old river', 'Pin');
    await page.locator('#threads .group', { hasText: 'Pinned' }).waitFor();
    assert.match(await page.locator('#threads li.thread').first().innerText(), /The old river/);

    await page.getByLabel('Search conversations by title').fill('mountain');
    assert.equal(await page.locator('#threads li.thread').count(), 1);
    await page.getByLabel('Search conversations by title').fill('');

    await act('Second river', 'Delete');
    await row('Second river').waitFor({ state: 'detached' });
    await click('Undo');
    await row('Second river').waitFor();
    await act('A mountain', 'Delete');
    await row('A mountain').waitFor({ state: 'detached' });
    await page.reload();
    await row('The old river').waitFor();
    assert.ok(!(await calls()).some((thread) => thread.title === 'A mountain'));
  });

  it('has pages', async () => {
    for (let at = 0; at < 60; at++) await weir.call('POST', '/api/threads', { title: `Paged ${at}` }, { 'x-org-id': 'paged' });
    page = await newPage(browser, { extraHTTPHeaders: { 'x-org-id': 'paged' } });
    await page.goto(weir.url);
    await row('Paged 59').waitFor();
    await page.getByLabel('Search conversations by title').fill('Paged 0');
    await row('Paged 0').waitFor();
  });
});

describe('the picker', () => {
  it('says why a provider cannot be used', async () => {
    await open();
    await page.locator('#picker').click();
    assert.match(await page.locator('#models fieldset', { hasText: 'openai' }).first().innerText(), /OPENAI_API_KEY/);
    await page.getByRole('radio', { name: /demo/ }).check();
    await page.keyboard.press('Escape');
  });
});

describe('the last message', () => {
  it('can be said in other words, and is gone with its answer then', async () => {
    await open();
    await say(page, 'Write 5 words about rain');
    await ended(page);
    await say(page, 'Write 5 wrods');
    await ended(page);
    await page.getByRole('button', { name: 'Edit and send again' }).last().click();
    assert.equal(await page.getByLabel('Message', { exact: true }).inputValue(), 'Write 5 wrods');
    await say(page, 'Write 6 words');
    const seen = async () => {
      await page.locator('.question', { hasText: 'Write 6 words' }).waitFor();
      await ended(page);
      assert.deepEqual(await page.locator('.question .bubble').allInnerTexts(), ['Write 5 words about rain', 'Write 6 words']);
      assert.equal(await page.locator('.answer').count(), 2);
    };
    await seen();
    await page.reload();
    await seen();
    assert.ok(await page.locator('#editing').isHidden());
  });

  it('is left alone with Escape, and the draft comes back', async () => {
    await open();
    const box = page.getByLabel('Message', { exact: true });
    await say(page, 'Write 5 words');
    await ended(page);
    await page.keyboard.press('ArrowUp');
    await page.locator('#editing').waitFor();
    await box.fill('other words');
    await page.keyboard.press('Escape');
    await page.locator('#editing').waitFor({ state: 'hidden' });
    assert.equal(await box.inputValue(), '');
    await say(page, 'Write 6 words');
    await ended(page);
    assert.equal(await page.locator('.question').count(), 2);
  });
});

describe('the keyboard', () => {
  it('is enough for everything', async () => {
    await open();
    await page.keyboard.type('Write 5 words by keyboard');
    await page.keyboard.press('Enter');
    await ended(page);
    await page.keyboard.press('ArrowUp');
    assert.equal(await page.getByLabel('Message', { exact: true }).inputValue(), 'Write 5 words by keyboard');
    await page.keyboard.press('Control+Shift+O');
    await page.locator('#empty').waitFor();
    await page.keyboard.press('Control+K');
    await page.keyboard.type('by keyboard');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await ended(page);
    await page.locator('#threads a[aria-current]').focus();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.locator('#empty').waitFor();
  });
});

describe('hostile answers', () => {
  it('do nothing, while they stream and when they are rendered', async () => {
    const corpus = (await readFile(new URL('xss.txt', import.meta.url), 'utf8')).trim().split('\n---\n');
    const mock = await startMock((prompt, write) => { for (const piece of corpus[Number(prompt)].match(/[\s\S]{1,7}/g)) write(piece); });
    const own = await startWeir(mock.config);
    try {
      await open({}, own.url);
      const elsewhere = [];
      page.on('request', (request) => { if (!request.url().startsWith(own.url)) elsewhere.push(request.url()); });
      page.on('dialog', (dialog) => { elsewhere.push(dialog.message()); dialog.dismiss(); });
      for (const at of corpus.keys()) {
        await say(page, String(at));
        await page.locator('.question').nth(at).waitFor();
        await ended(page);
      }
      await page.reload();
      await ended(page);
      for (const link of await page.locator('.body a[href]').all()) assert.match(await link.getAttribute('href'), /^(https?|mailto):/);
      assert.equal(await page.locator('.answers :is(script, img, svg:not(.icon), iframe, object, embed, form, style, link, meta, base)').count(), 0);
      assert.equal(await page.evaluate(() => window.pwned), undefined);
      assert.deepEqual(elsewhere, []);
    } finally {
      await own.stop();
      mock.stop();
    }
  });
});
