// A running weir and a real browser for the tests of the pages.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { connect, createServer as createWire } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const root = fileURLToPath(new URL('../../', import.meta.url));
const BINARY = process.env.WEIR_BINARY ?? path.join(root, 'target/debug/weir');
const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

/** Starts the real binary on a free port. `config` is TOML. */
export async function startWeir(config = '', port = 0, folder = undefined) {
  const home = folder ?? await mkdtemp(path.join(tmpdir(), 'weir-page-'));
  const file = path.join(home, 'config.toml');
  const [top, tables] = split(config);
  await writeFile(file, `${top}\n[server]\nbind = "127.0.0.1:${port}"\n[store]\npath = "${path.join(home, 'weir.db')}"\n${tables}`);
  const env = { PATH: process.env.PATH, RUST_LOG: process.env.RUST_LOG ?? 'warn', MOCK_API_KEY: 'test' };
  const child = spawn(BINARY, ['--config', file], { cwd: home, env, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  let address;
  for await (const line of readline.createInterface({ input: child.stdout })) {
    address = /http:\/\/\S+/.exec(line)?.[0];
    if (address) break;
  }
  if (!address) throw new Error('weir did not start');
  child.stdout.resume();
  return {
    url: address,
    home,
    call: (method, target, body, headers = {}) => fetch(address + target, {
      method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers },
    }),
    /** Ends it; `keeps` its data for another start. */
    async stop({ keeps = false, signal = 'SIGINT' } = {}) {
      child.kill(signal);
      // A second signal cuts the wait for running answers short.
      if (signal === 'SIGINT') child.kill(signal);
      await exited;
      if (!keeps) await rm(home, { recursive: true, force: true });
    },
  };
}

/** The keys before the first table, and the rest. */
function split(config) {
  const at = config.search(/^\[/m);
  return at < 0 ? [config, ''] : [config.slice(0, at), config.slice(at)];
}

export async function startBrowser() {
  // An empty profile each time: playwright makes it and takes it away.
  return chromium.launch({ executablePath: BROWSER, headless: true, args: FLAGS });
}

/** A new page; what goes wrong in it is collected in `page.problems`. */
export async function newPage(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: 'reduce', ...options });
  return pageOf(context);
}

export async function pageOf(context) {
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (error) => page.problems.push(String(error)));
  page.on('console', (message) => {
    // Responses that are errors are logged by the browser, and expected where they are provoked.
    if (message.type() === 'error' && !/Failed to load resource|ERR_/.test(message.text())) page.problems.push(message.text());
  });
  page.setDefaultTimeout(15_000);
  return page;
}

// --- What people do -----------------------------------------------------------

export async function say(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
}

export const lastAnswer = (page) => page.locator('.answer').last();

/** Waits until nothing runs and the last answer's facts are there. */
export async function ended(page) {
  await page.locator('.answer:not(.is-running) .foot').last().waitFor();
  await page.locator('#send[data-does="send"]').waitFor();
}

// --- How a page looks -----------------------------------------------------------

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
// With SCREENS=folder the states are written there as pictures.
const FOLDER = process.env.SCREENS;

/** Looks at a state: takes its picture, and asks axe. */
export async function look(page, name) {
  if (FOLDER) await mkdir(FOLDER, { recursive: true });
  if (FOLDER) await page.screenshot({ path: path.join(FOLDER, `${name}.png`), fullPage: name.startsWith('dashboard') });
  const { scroll, client } = await page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, client: innerWidth }));
  assert.ok(scroll <= client, `${name} scrolls sideways`);
  // The page's policy lets nothing in; axe comes through the debugger.
  await page.evaluate(await readFile(AXE, 'utf8'));
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ['violations'] }));
  const told = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(' ')).join(', ')}`);
  assert.deepEqual(told, [], name);
  assert.deepEqual(page.problems, [], name);
}

// --- What stands around weir ------------------------------------------------------

/** A wire between the browser and weir that can be cut. */
export async function startWire(url) {
  const target = new URL(url);
  const ends = new Set();
  const server = createWire((near) => {
    const far = connect(Number(target.port), target.hostname);
    for (const [end, other] of [[near, far], [far, near]]) {
      ends.add(end);
      end.on('error', () => other.destroy()).on('close', () => { ends.delete(end); other.destroy(); }).pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => { for (const end of ends) end.destroy(); };
  return { url: `http://127.0.0.1:${server.address().port}`, cut, stop: () => { cut(); server.close(); } };
}

/** Something that is waited for, and the word that it may go on. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => { open = resolve; });
  return { opened, open };
}

/** An OpenAI-compatible server whose answers the test writes: `answer(prompt, write)` gets the last message;
 * `write(text)` adds to the answer, `write.delta(delta)` what is no text. */
export async function startMock(answer) {
  const server = createServer(async (request, response) => {
    // The list of models, by which weir keeps connections warm.
    if (request.method === 'GET') return response.setHeader('content-type', 'application/json').end('{"data":[]}');
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { messages } = JSON.parse(Buffer.concat(chunks).toString());
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (chunk) => response.write(`data: ${JSON.stringify({ id: 'c1', object: 'chat.completion.chunk', created: 1, model: 'mock-1', ...chunk })}\n\n`);
    const write = (content) => write.delta({ content });
    write.delta = (delta) => send({ choices: [{ index: 0, delta, finish_reason: null }] });
    send({ choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }] });
    await answer(messages.at(-1).content, write);
    send({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
    response.end('data: [DONE]\n\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const config = `default_provider = "mock"
[providers.mock]
dialect = "openai_chat"
base_url = "http://127.0.0.1:${port}/v1"
api_key_env = "MOCK_API_KEY"
models = ["mock-1"]
default_model = "mock-1"
rps = 1000.0
concurrency = 100
burst = 1000
`;
  return { config, stop: () => { server.closeAllConnections(); server.close(); } };
}
