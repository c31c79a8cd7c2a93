// The dashboard in a real browser, and the pages of a server that wants keys.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, it } from 'node:test';

import { ended, lastAnswer, newPage, pageOf, say, startBrowser, startWeir } from './support.js';

let browser;

before(async () => { browser = await startBrowser(); });
after(async () => { await browser?.close(); });

async function on(config, run) {
  const weir = await startWeir(config);
  const page = await newPage(browser);
  try {
    await run(weir, page);
    assert.deepEqual(page.problems, []);
  } finally {
    await page.context().close();
    await weir.stop();
  }
}

const thread = async (weir) => (await (await weir.call('POST', '/api/threads', {})).json()).id;
const send = async (weir, content) => {
  const response = await weir.call('POST', `/api/threads/${await thread(weir)}/messages`, { role: 'user', content });
  return response.json();
};
const tile = (page, title) => page.locator('.tile', { has: page.getByRole('heading', { name: title }) });

describe('the dashboard', () => {
  it('shows what has run, with units, and the errors by code', () => on('', async (weir, page) => {
    await send(weir, 'Write 10 words');
    await send(weir, 'please fail');
    await page.goto(`${weir.url}/admin`);
    await page.locator('#state[data-live="yes"]').waitFor();

    await tile(page, 'First token').locator('.value', { hasText: /\d+ (ms|s)/ }).waitFor();
    assert.equal(await page.locator('#error-rate').innerText(), '50 %');
    assert.match(await page.locator('#codes').innerText(), /upstream_overloaded/);
    assert.match(await page.locator('#providers').innerText(), /demo\s+2\s/);
    await tile(page, 'Latency').locator('path.line.first[d^="M"]').waitFor({ state: 'attached' });
  }));

  it('stops a stream for all who listen', () => on('', async (weir, page) => {
    const answer = send(weir, 'Write 500 words, be slow');
    await page.goto(`${weir.url}/admin`);
    await page.locator('#streams tbody tr').waitFor();
    await page.locator('#streams').getByRole('button', { name: /Stop/ }).click();
    assert.equal((await answer).assistant_message.status, 'cancelled');
    await page.locator('#no-streams').waitFor();
  }));

  it('changes a pacer’s limits, and refuses what is none', () => on('', async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await page.locator('#rps-demo').fill('7.5');
    await page.locator('#pacers').getByRole('button', { name: 'Apply' }).click();
    await page.locator('#pacers', { hasText: '7.5 / s' }).waitFor();
    const pacers = await (await weir.call('GET', '/api/admin/pacers')).json();
    assert.equal(pacers.find(({ provider }) => provider === 'demo').rps, 7.5);

    await page.locator('#concurrency-demo').fill('99999999');
    await page.locator('#pacers').getByRole('button', { name: 'Apply' }).click();
    await page.locator('.toast', { hasText: 'concurrency' }).waitFor();
  }));

  it('lists the last errors in words, and nothing of what was said', () => on('', async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await page.locator('#no-failures', { hasText: 'No request has failed.' }).waitFor();
    const failed = await send(weir, 'please fail, my secret question');
    const row = page.locator('#failures tbody tr');
    await row.waitFor();
    const text = await row.innerText();
    assert.match(text, /\d\d:\d\d:\d\d/);
    for (const part of ['demo', 'upstream_overloaded', 'overloaded', failed.error.request_id]) assert.ok(text.includes(part), part);
    assert.ok(!(await page.content()).includes('secret question'));
    await send(weir, 'please fail again');
    await row.nth(1).waitFor();
    assert.ok(!(await row.first().innerText()).includes(failed.error.request_id), 'the newest is the first');
  }));

  it('shows how much ends each second', () => on('', async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await page.locator('#state[data-live="yes"]').waitFor();
    await Promise.all([1, 2, 3].map((at) => send(weir, `Write 20 words ${at}`)));
    await tile(page, 'Requests').locator('.value', { hasText: /0\.[1-9] \/ s|[1-3] \/ s/ }).waitFor();
    await tile(page, 'Tokens').locator('.value', { hasText: /[1-9]\d* \/ s/ }).waitFor();
  }));

  it('shows who answered in another one’s place', () => on('[providers.demo]\ndialect = "demo"\n'
    + '[providers.dead]\ndialect = "openai_chat"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "MOCK_API_KEY"\nmodels = ["m"]\ndefault_model = "m"\nfallback = ["demo/demo"]\nretries_max = 0\n', async (weir, page) => {
    const id = await thread(weir);
    await weir.call('POST', `/api/threads/${id}/messages`, { role: 'user', content: 'Write 5 words', provider: 'dead' });
    await page.goto(`${weir.url}/admin`);
    await page.locator('#fallbacks', { hasText: '1' }).waitFor();
    assert.match(await page.locator('#helpers').innerText(), /demo/);
  }));

  it('limits tokens a minute, and shows what is left of them', () => on('', async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await page.locator('#pacers', { hasText: 'no limit' }).waitFor();
    await page.locator('#tpm-demo').fill('60000');
    await page.locator('#pacers').getByRole('button', { name: 'Apply' }).click();
    await page.locator('#pacers', { hasText: /of 60,000/ }).waitFor();
    await page.locator('#tpm-demo').fill('0');
    await page.locator('#pacers').getByRole('button', { name: 'Apply' }).click();
    await page.locator('#pacers', { hasText: 'no limit' }).waitFor();
  }));

  it('shows alerts while they hold', () => on('', async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await page.locator('#calm').waitFor();
    // So many that their share of errors says something.
    await Promise.all(Array.from({ length: 24 }, (_, at) => send(weir, `please fail ${at}`)));
    await page.locator('#alerts li', { hasText: /requests fail.*100 %, limit 1\.0 %/ }).waitFor();
    assert.ok(await page.locator('#calm').isHidden());
  }));

  it('comes back when the server does', async () => {
    const first = await startWeir('');
    const page = await newPage(browser);
    const { port } = new URL(first.url);
    await page.goto(`${first.url}/admin`);
    await page.locator('#state[data-live="yes"]').waitFor();
    await first.stop({ keeps: true });
    await page.locator('#state[data-live="no"]').waitFor();
    const second = await startWeir('', port, first.home);
    await page.locator('#state[data-live="yes"]').waitFor();
    await page.context().close();
    await second.stop();
  });
});

describe('a server that wants keys', () => {
  const digest = (key) => createHash('sha256').update(key).digest('hex');
  const KEYS = `[auth]\nkeys = [{ id = "u", sha256 = "${digest('user-key-0123456789')}", org = "acme", role = "user" },
    { id = "a", sha256 = "${digest('admin-key-0123456789')}", org = "acme", role = "admin" }]\n`;
  const signIn = async (page, key) => {
    await page.getByLabel('Key', { exact: true }).fill(key);
    await page.getByRole('button', { name: 'Sign in' }).click();
  };

  it('asks for one, refuses a wrong one, and keeps the right one nowhere', () => on(KEYS, async (weir, page) => {
    await page.goto(weir.url);
    await signIn(page, 'wrong');
    await page.getByText('This key is not known here.').waitFor();
    await signIn(page, 'user-key-0123456789');
    await page.locator('#picker span', { hasText: 'demo' }).waitFor();
    await say(page, 'Write 5 words');
    await ended(page);
    await page.reload();
    await ended(page);
    assert.ok(!page.url().includes('key'));
    const kept = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage, document.cookie, document.body.innerHTML]));
    assert.ok(!kept.includes('user-key'));
    assert.deepEqual(await page.evaluate(() => document.cookie), '', 'no script reads the cookie');
    const [cookie, ...others] = await page.context().cookies();
    assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite, others], ['weir', true, 'Strict', []]);
    assert.ok(!cookie.value.includes('user-key'));
    assert.ok(await lastAnswer(page).isVisible());
  }));

  it('signs in all tabs, and out of all, and leaves nothing of what was written', () => on(KEYS, async (weir, page) => {
    await page.goto(weir.url);
    await signIn(page, 'user-key-0123456789');
    await page.locator('#picker span', { hasText: 'demo' }).waitFor();
    const other = await pageOf(page.context());
    await other.goto(weir.url);
    await other.locator('#picker span', { hasText: 'demo' }).waitFor();
    await page.getByLabel('Message', { exact: true }).fill('a secret draft');

    await page.getByRole('button', { name: 'Sign out' }).click();

    await page.getByLabel('Key', { exact: true }).waitFor();
    assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes('secret'));
    assert.deepEqual(await page.context().cookies(), []);
    await other.reload();
    await other.getByLabel('Key', { exact: true }).waitFor();
  }));

  it('gives EventSource its streams without a key in the address', () => on(KEYS, async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await signIn(page, 'admin-key-0123456789');
    await page.locator('#state[data-live="yes"]').waitFor();
    const report = await page.evaluate(() => new Promise((resolve, reject) => {
      const source = new EventSource('/api/admin/feed');
      source.addEventListener('report', ({ data }) => { source.close(); resolve(JSON.parse(data)); });
      source.addEventListener('error', () => reject(new Error('refused')));
    }));
    assert.ok(report.performance);
  }));

  it('shows the dashboard only to who may operate it', () => on(KEYS, async (weir, page) => {
    await page.goto(`${weir.url}/admin`);
    await signIn(page, 'user-key-0123456789');
    await page.getByText('This key may not operate the server').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await signIn(page, 'admin-key-0123456789');
    await page.locator('#state[data-live="yes"]').waitFor();
  }));
});
