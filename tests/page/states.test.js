// What the chat looks like in the states that are seldom seen: each is looked at as in looks.test.js.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { ended, gate, lastAnswer, look, newPage, say, startBrowser, startMock, startWeir, startWire } from './support.js';

let browser;
let weir;
let mock;
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

const PHONE = { viewport: { width: 390, height: 780 }, isMobile: true, hasTouch: true };
const DARK = { colorScheme: 'dark' };

async function state(name, options, provider, run, url = weir.url) {
  script = provider;
  const page = await newPage(browser, options);
  try {
    await page.goto(url);
    await page.locator('#picker span').filter({ hasNotText: '…' }).waitFor();
    await run(page);
    await look(page, name);
  } finally {
    await page.context().close();
  }
}

const ask = async (page, text) => {
  if (await page.evaluate(() => matchMedia('(pointer: coarse)').matches)) {
    await page.getByLabel('Message', { exact: true }).fill(text);
    await page.getByRole('button', { name: 'Send' }).click();
  } else await say(page, text);
};
const asked = (text) => async (page) => {
  await ask(page, text);
  await ended(page);
  await lastAnswer(page).locator('.raw').waitFor({ state: 'detached' });
};

const CODE = `Here is the whole of it:\n\n\`\`\`rust\nfn main() {\n${'    let value = compute_something_with_a_long_name(first_argument, second_argument, third_argument);\n'.repeat(6)}}\n\`\`\`\n\nRun it with \`cargo run --release\`.\n`;
const TABLE = `| Provider | First token | Throughput | Price for a million tokens | What it is good for |\n|---|---|---|---|---|\n${
  ['One', 'Two', 'Three'].map((name) => `| ${name} | 412 ms | 88 tokens a second | 3.00 US dollars | long texts with many numbers |\n`).join('')}`;
const ARABIC = '## سد صغير\n\nالسد الصغير **يرفع** منسوب الماء قليلاً، ثم يدعه يمر.\n\n1. الماء ينتظر\n2. ثم يجري مع `let x = 1;`\n\n> هادئ في الأعلى، سريع في الأسفل.\n';
const LONG = `${'Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft'.repeat(3)} https://example.com/${'a'.repeat(160)}\n`;

describe('the chat', () => {
  it('with long code, on a phone', () => state('code-phone', PHONE, (write) => write(CODE), asked('Show me code')));
  it('with long code, dark', () => state('code-dark', DARK, (write) => write(CODE), asked('Show me code')));
  it('with a wide table, on a phone', () => state('table-phone', PHONE, (write) => write(TABLE), asked('Compare three providers')));
  it('with words that are too long', () => state('words', PHONE, (write) => write(LONG), asked('x'.repeat(400))));

  it('from right to left', () => state('rtl', {}, (write) => write(ARABIC), async (page) => {
    await asked('ما هو السد الصغير؟')(page);
    const places = await page.evaluate(() => ['.answer h2', '.answer ol', '.answer blockquote', '.bubble'].map((selector) => getComputedStyle(document.querySelector(selector)).direction));
    assert.deepEqual(places, ['rtl', 'rtl', 'rtl', 'rtl']);
    assert.equal(await page.locator('.answer li').first().evaluate((item) => getComputedStyle(item.parentElement).paddingRight), '24px', 'numbers stand where lines begin');
  }));

  it('with reasoning open, a tool and sources', () => state('tools', {}, (write) => {
    write.delta({ reasoning_content: 'The question is about water.\nSo the level matters.' });
    write('The level is **2.4 m**.');
    write.delta({ tool_calls: [{ index: 0, id: 'c1', type: 'function', function: { name: 'read_gauge', arguments: '{"river":"Isar","unit":"m"}' } }] });
  }, async (page) => {
    await asked('How high is the water?')(page);
    await page.locator('.thinking summary').click();
    assert.match(await page.locator('.tool').innerText(), /read_gauge[\s\S]*Isar/);
  }));

  it('stopped', async () => {
    const held = gate();
    await state('stopped', {}, async (write) => { write('The first **half** of a sentence'); await held.opened; }, async (page) => {
      await say(page, 'Tell me everything');
      await lastAnswer(page).locator('strong').waitFor();
      await page.keyboard.press('Escape');
      await ended(page);
      assert.equal(await lastAnswer(page).locator('.note').innerText(), 'Stopped.');
    });
    held.open();
  });

  it('followed in a second window', async () => {
    const held = gate();
    script = async (write) => { write('# Shared\n\nOne answer for *two* readers, '); await held.opened; };
    const first = await newPage(browser);
    await first.goto(weir.url);
    await say(first, 'twins of a state');
    await lastAnswer(first).locator('h1').waitFor();
    await state('follower', DARK, script, async (page) => {
      await say(page, 'twins of a state');
      await lastAnswer(page).locator('h1').waitFor();
      setTimeout(held.open, 0);
      await ended(page);
      assert.match(await lastAnswer(page).locator('.facts').innerText(), /shared call/);
    });
    await first.context().close();
  });

  it('without a network', () => state('offline', {}, (write) => write('Yes.'), async (page) => {
    await asked('Are you there?')(page);
    await page.getByLabel('Message', { exact: true }).fill('A thought that is kept');
    await page.context().setOffline(true);
    await page.locator('#offline').waitFor();
  }));

  it('while a lost connection comes back', async () => {
    const held = gate();
    const wire = await startWire(weir.url);
    try {
      await state('reconnect', {}, async (write) => { write('A beginning'); await held.opened; }, async (page) => {
        await say(page, 'wire of a state');
        await lastAnswer(page).locator('.body', { hasText: 'A beginning' }).waitFor();
        await page.route('**/stream', (route) => route.abort());
        wire.cut();
        await page.locator('#link', { hasText: 'Connection lost' }).waitFor();
      }, wire.url);
    } finally {
      held.open();
      wire.stop();
    }
  });

  it('while the last message is edited', () => state('editing', {}, (write) => write('A short answer.'), async (page) => {
    await asked('A message with a tpyo')(page);
    await page.keyboard.press('ArrowUp');
    await page.locator('#editing').waitFor();
  }));

  it('with a conversation just deleted, and nothing found', () => state('deleted', DARK, (write) => write('Fine.'), async (page) => {
    await asked('To be deleted')(page);
    await page.locator('#threads li.thread', { hasText: 'To be deleted' }).first().getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Delete' }).click();
    await page.locator('.toast', { hasText: 'deleted' }).waitFor();
    await page.getByLabel('Search conversations by title').fill('zebra');
    await page.locator('#threads .none').waitFor();
  }));

  it('with the menu of a conversation and the keyboard’s help', () => state('keys', {}, (write) => write('Fine.'), async (page) => {
    await asked('A conversation')(page);
    await page.locator('#threads li.thread').first().getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Rename' }).waitFor();
    await look(page, 'menu');
    await page.keyboard.press('Escape');
    await page.locator('#keys-button').click();
    await page.locator('dialog#keys').waitFor();
  }));
});
