// A mock provider, and a weir in front of it, for the tests with clients in JavaScript.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const TARGET = process.env.WEIR_TARGET;
const PATIENCE_MS = 20_000;

const provider = (name, url, more = '') => `[providers.${name}]
dialect = "openai_chat"
base_url = "${url}"
api_key_env = ""
models = ["text"]
any_model = true
warm_connections = 0
rps = 10000.0
concurrency = 1000
burst = 1000
${more}
`;

/** Both, on free ports. `hasty` is the same provider, on which weir itself waits for nothing. */
export async function startServers() {
  const home = await mkdtemp(path.join(tmpdir(), 'weir-sdk-'));
  const mock = await start('load', ['mock']);
  const file = path.join(home, 'config.toml');
  const base = `[server]\nbind = "127.0.0.1:0"\n[store]\npath = "${path.join(home, 'weir.db')}"\n`;
  const hasty = provider('hasty', mock.url, 'queue_wait_max_ms = 500\nretries_max = 0');
  await writeFile(file, base + provider('mock', mock.url) + hasty);
  const weir = await start('weir', ['--config', file]);
  const stats = async () => (await fetch(`${new URL(mock.url).origin}/__stats`)).json();
  return {
    weirUrl: `${weir.url}/v1`,
    mockUrl: mock.url,
    /** What the provider has seen. */
    stats,
    /** Waits until the provider has seen enough. */
    async until(isSo, what) {
      for (const began = Date.now(); ;) {
        const seen = await stats();
        if (isSo(seen)) return;
        if (Date.now() - began > PATIENCE_MS) throw new Error(`${what}: ${JSON.stringify(seen)}`);
        await pause(10);
      }
    },
    async stop() {
      // A second signal cuts weir's wait for running answers short.
      weir.child.kill();
      await Promise.all([weir.stop(), mock.stop()]);
      await rm(home, { recursive: true, force: true });
    },
  };
}

/** Starts a server and reads its address from its first line. */
async function start(name, args) {
  const env = { PATH: process.env.PATH, RUST_LOG: 'warn' };
  const child = spawn(path.join(TARGET, name), args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const [line] = await Promise.race([once(readline.createInterface({ input: child.stdout }), 'line'), exited]);
  const url = /http:\/\/\S+/.exec(String(line))?.[0];
  if (!url) throw new Error(`${name} has not started: ${line}`);
  child.stdout.resume();
  return {
    url,
    child,
    async stop() {
      child.kill();
      await exited;
    },
  };
}
