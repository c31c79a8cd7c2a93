// Markdown while an answer streams. The provider writes what each test gives it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';

import { ended, gate, lastAnswer, newPage, say, startBrowser, startMock, startWeir } from './support.js';

let browser;
let weir;
let mock;
let page;
/** What the provider says: `script(write)`. */
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

async function ask(run, options) {
  script = run;
  page = await newPage(browser, options);
  await page.goto(weir.url);
  await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
  page.asked = [];
  page.on('request', (request) => { if (request.url().endsWith('/api/render')) page.asked.push(request.postDataJSON().text); });
  await say(page, 'go');
}

const body = () => lastAnswer(page).locator('.body');
const running = (selector, options) => page.locator(`.answer.is-running .body ${selector}`, options);
const pause = (millis) => new Promise((resolve) => { setTimeout(resolve, millis); });

/** Writes a text in pieces as models do. */
async function type(write, text, chars = 6, waitMs = 4) {
  for (const piece of text.match(new RegExp(`[\\s\\S]{1,${chars}}`, 'g'))) {
    write(piece);
    await pause(waitMs);
  }
}

const SAMPLE = `# A title

Some **bold** words, \`code\`, and [a link](https://example.com/).

1. one
2. two
   - nested

> a quote

| a | b |
|---|---|
| 1 | 2 |

\`\`\`rust
fn main() {
    println!("a long line so that it has to be scrolled sideways by whoever wants to see its end, which is here at last");
}
\`\`\`

The end of it.
`;

describe('an answer that streams', () => {
  it('is rendered block by block, and its caret stands at its end', async () => {
    const held = gate();
    await ask(async (write) => { await type(write, SAMPLE.slice(0, SAMPLE.indexOf('\n}\n'))); await held.opened; write(SAMPLE.slice(SAMPLE.indexOf('\n}\n'))); });
    await running('.code pre').waitFor();
    for (const selector of ['h1', 'p > strong', 'p > code', 'p > a[href]', 'ol > li > ul > li', 'blockquote', '.table td']) {
      assert.ok(await running(selector).count() > 0, selector);
    }
    await running('pre > code > .raw').waitFor({ state: 'attached' });
    assert.match(await running('.code-head').innerText(), /rust/);
    held.open();
    await ended(page);
    assert.equal(await body().locator('.raw').count(), 0);
  });

  it('does not move when it ends', async () => {
    const held = gate();
    await ask(async (write) => { await type(write, SAMPLE); await held.opened; });
    await running('p', { hasText: 'The end of it.' }).last().waitFor();
    await page.waitForFunction(() => /The end of it\.$/.test(document.querySelector('.answer .body').textContent.trim()));
    const look = (mark) => body().evaluate((root, given) => {
      if (given) for (const node of root.querySelectorAll(':not(.raw)')) node.mark = given;
      const elements = [...root.querySelectorAll(':not(.raw)')];
      return { height: root.getBoundingClientRect().height, count: elements.length, marked: elements.filter((node) => node.mark).length };
    }, mark);
    const before = await look('seen');
    held.open();
    await ended(page);
    await body().locator('.raw').waitFor({ state: 'detached' });
    assert.deepEqual(await look(), before);
    const shown = await body().innerHTML();
    await page.reload();
    await ended(page);
    assert.equal(await body().innerHTML(), shown, 'and is the same when it is read again');
  });

  it('never shows the marks of what it will become', async () => {
    const seen = [];
    await ask(async (write) => {
      await type(write, 'Words and **some of them are bold** and `some are code` and more.\n- a list\n- [a link](https://example.com/a/long/address) in it\n', 3, 25);
    });
    while (await page.locator('.answer.is-running').count() > 0) seen.push(await body().innerHTML().catch(() => ''));
    await ended(page);
    const told = seen.filter((html) => /\*\*|`|\]\(|<h2/.test(html));
    assert.deepEqual(told, []);
    assert.ok(seen.some((html) => /<strong>some(?! of them are bold)/.test(html)), 'bold words are bold before they are over');
  });

  it('is not read aloud piece by piece', async () => {
    const held = gate();
    await ask(async (write) => { await held.opened; await type(write, SAMPLE); });
    await page.evaluate(() => {
      window.said = [];
      for (const region of document.querySelectorAll('[role="status"], [role="alert"], [aria-live]')) {
        new MutationObserver(() => { if (region.textContent.trim()) window.said.push(region.textContent.trim()); }).observe(region, { childList: true, characterData: true, subtree: true });
      }
    });
    held.open();
    await ended(page);
    await page.waitForFunction(() => window.said.includes('Answer finished'));
    assert.ok((await page.evaluate(() => window.said)).every((said) => ['The answer is on its way', 'Answer finished'].includes(said)));
    assert.equal(await page.locator('#turns').evaluate((turns) => turns.closest('[aria-live], [role="log"]')), null);
  });

  it('keeps what a reader has scrolled and selected', async () => {
    const held = gate();
    const [first, second] = [SAMPLE.slice(0, SAMPLE.indexOf('}\n```')), SAMPLE.slice(SAMPLE.indexOf('}\n```'))];
    await ask(async (write) => { await type(write, first); await held.opened; await type(write, second); });
    await running('pre', { hasText: 'at last' }).waitFor();
    await page.evaluate(() => {
      document.querySelector('.body pre').scrollLeft = 30;
      getSelection().selectAllChildren(document.querySelector('.body h1'));
    });
    held.open();
    await ended(page);
    assert.equal(await body().locator('pre').evaluate((pre) => pre.scrollLeft), 30);
    assert.equal(await page.evaluate(() => getSelection().toString()), 'A title');
  });

  it('keeps the space between what is rendered and what is not yet', async () => {
    const held = gate();
    await ask(async (write) => { write('The beginning, '); await held.opened; write('the middle.'); });
    await page.waitForFunction(() => document.querySelector('.answer.is-running .body p')?.firstChild instanceof Text);
    await page.route('**/api/render', () => {});
    held.open();
    await body().locator('.raw', { hasText: 'the middle.' }).waitFor();
    assert.equal(await body().innerText(), 'The beginning, the middle.');
  });

  it('of many blocks is sent to be rendered about once', async () => {
    const text = Array.from({ length: 600 }, (_, at) => `Paragraph ${at} has **some** words in it.\n\n`).join('');
    await ask((write) => type(write, text, 60, 3));
    await ended(page);
    const sent = page.asked.reduce((sum, each) => sum + each.length, 0);
    console.log(`${text.length} characters: ${page.asked.length} renderings of ${sent} characters`);
    assert.ok(page.asked.length >= 3 && sent < 2 * text.length, `${sent} of ${text.length}`);
  });

  it('of one long block is sent to be rendered a limited number of times', async () => {
    const text = `\`\`\`text\n${'a line of code that is neither long nor short\n'.repeat(1_500)}`;
    await ask((write) => type(write, text, 60, 2));
    await ended(page);
    const sent = page.asked.reduce((sum, each) => sum + each.length, 0);
    const often = page.asked.filter((each) => each.length <= 8192).reduce((sum, each) => sum + each.length, 0);
    console.log(`${text.length} characters: ${page.asked.length} renderings of ${sent} characters`);
    assert.ok(sent - often < 9 * text.length, `${sent - often} of ${text.length}`);
    assert.equal((await body().locator('pre').innerText()).match(/a line of code/g).length, 1_500);
  });

  it('goes on in plain words when nothing renders it, and is whole at its end', async () => {
    const held = gate();
    script = async (write) => { await type(write, '## Title\n\nSome **bold** words'); await held.opened; };
    page = await newPage(browser);
    await page.route('**/api/render', (route) => route.fulfill({ status: 503, json: { error: { code: 'overloaded', message: 'no', retryable: true } } }));
    await page.goto(weir.url);
    await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
    await say(page, 'go');
    await running('p', { hasText: 'Some **bold** words' }).waitFor();
    held.open();
    await ended(page);
    await body().locator('strong', { hasText: 'bold' }).waitFor();
    assert.doesNotMatch(await body().innerText(), /\*|#/);
  });

  it('is read again from where it is after a reload, without its text twice', async () => {
    const held = gate();
    await ask(async (write) => { await type(write, 'First **one**.\n\nThen two'); await held.opened; write(' and three.'); });
    await running('p', { hasText: 'Then two' }).last().waitFor();
    await page.reload();
    await running('p', { hasText: 'Then two' }).last().waitFor();
    held.open();
    await ended(page);
    await body().locator('p', { hasText: 'and three.' }).waitFor();
    assert.equal((await body().innerText()).replace(/\s+/g, ' ').trim(), 'First one. Then two and three.');
  });
});

describe('a hostile answer', () => {
  it('does nothing wherever it is cut', async () => {
    const corpus = (await readFile(new URL('xss.txt', import.meta.url), 'utf8')).trim().split('\n---\n');
    page = await newPage(browser);
    const elsewhere = [];
    page.on('request', (request) => { if (!request.url().startsWith(weir.url)) elsewhere.push(request.url()); });
    await page.goto(weir.url);
    await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
    const { cuts, wrong } = await page.evaluate(async (attacks) => {
      const { made, patch } = await import('/assets/render.js');
      const place = document.querySelector('#turns');
      const found = [];
      let count = 0;
      const tried = async (attack) => {
        for (let end = 1; end <= attack.length; end++) {
          const text = attack.slice(0, end);
          const response = await fetch('/api/render', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ text }) });
          if (response.status === 503) { end--; continue; }
          const { html, rest } = await response.json();
          const nodes = made(html);
          nodes.append(made(rest));
          const root = document.createElement('div');
          place.append(root);
          patch(root, 0, nodes);
          const bad = root.querySelector('script, img, svg:not(.icon), iframe, object, embed, form, style, link, meta, base, [onclick], [onerror], [onload], [onmouseover]')
            ?? [...root.querySelectorAll('a[href]')].find((link) => !/^(https?|mailto):/.test(link.href));
          if (bad) found.push(text);
          root.remove();
          count++;
        }
      };
      await Promise.all([0, 1, 2, 3].map(async (lane) => { for (let at = lane; at < attacks.length; at += 4) await tried(attacks[at]); }));
      return { cuts: count, wrong: found };
    }, corpus);
    assert.deepEqual(wrong, []);
    assert.equal(cuts, corpus.reduce((sum, attack) => sum + attack.length, 0));
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.deepEqual(elsewhere, []);
  });
});
