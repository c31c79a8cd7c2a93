// openai-node, unchanged, on weir and on the provider alone.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import OpenAI from 'openai';

import { startServers } from './support.mjs';

const messages = [{ role: 'user', content: 'hello' }];
const tools = [{ type: 'function', function: { name: 'forecast', parameters: { type: 'object', properties: {} } } }];

let servers, weir, mock;

before(async () => {
  servers = await startServers();
  weir = new OpenAI({ baseURL: servers.weirUrl, apiKey: 'any' });
  mock = new OpenAI({ baseURL: servers.mockUrl, apiKey: 'any' });
});
after(() => servers.stop());

/** What is heard on weir, which must be what is heard on the provider alone. */
async function both(hear) {
  const heard = await hear(weir, 'mock/');
  assert.deepEqual(heard, await hear(mock, ''));
  return heard;
}

async function chunksOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

test('text and usage come as from the provider', async () => {
  const [text, finish, usage] = await both(async (client, prefix) => {
    const chunks = await chunksOf(await client.chat.completions.create({
      model: `${prefix}text@tokens=40`, messages, stream: true, stream_options: { include_usage: true },
    }));
    const { prompt_tokens, completion_tokens, total_tokens } = chunks.at(-1).usage;
    return [textOf(chunks), chunks.at(-2).choices[0].finish_reason, [prompt_tokens, completion_tokens, total_tokens]];
  });
  assert.match(text, /^0:[^]*39:/);
  assert.deepEqual([finish, usage], ['stop', [1, 40, 41]]);
});

test('calls of tools are put together', async () => {
  const [finish, call] = await both(async (client, prefix) => {
    const stream = client.chat.completions.stream({ model: `${prefix}tool_call`, messages, tools });
    const { choices: [{ finish_reason, message }] } = await stream.finalChatCompletion();
    const [{ id, type, function: { name, arguments: written } }] = message.tool_calls;
    return [finish_reason, { id, type, name, written }];
  });
  assert.equal(finish, 'tool_calls');
  assert.deepEqual(call, { id: 'call_1', type: 'function', name: 'forecast', written: '{"city":"Zürich","days":3}' });
});

test('without streaming the same is whole', async () => {
  const expected = textOf(await chunksOf(await mock.chat.completions.create({ model: 'text', messages, stream: true })));

  const completion = await weir.chat.completions.create({ model: 'mock/text', messages });
  const called = await weir.chat.completions.create({ model: 'mock/tool_call', messages, tools });

  assert.equal(completion.choices[0].message.content, expected);
  assert.equal(completion.usage.total_tokens, 21);
  assert.equal(completion._request_id, completion.id);
  const { message } = called.choices[0];
  const result = { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'sunny' };
  const answer = await weir.chat.completions.create({ model: 'mock/text', messages: [...messages, message, result], tools });
  assert.equal(answer.choices[0].finish_reason, 'stop');
});

test('responses are put together from their events', async () => {
  const expected = textOf(await chunksOf(await mock.chat.completions.create({ model: 'text', messages, stream: true })));

  const response = await weir.responses.stream({ model: 'mock/text', input: 'hello' }).finalResponse();
  const whole = await weir.responses.create({ model: 'mock/text', input: 'hello' });
  const called = await weir.responses.stream({
    model: 'mock/tool_call', input: 'hello', tools: [{ type: 'function', name: 'forecast', parameters: {}, strict: false }],
  }).finalResponse();

  assert.deepEqual([response.output_text, whole.output_text], [expected, expected]);
  assert.deepEqual([response.status, response.usage.total_tokens], ['completed', 21]);
  assert.equal(called.output[0].arguments, '{"city":"Zürich","days":3}');
});

test('a 429 before the stream is tried again when it says so', async () => {
  const model = 'flaky@k=1,status=429,after_s=1';
  for (const [client, name, content] of [[weir, `hasty/${model}`, 'one'], [mock, model, 'two']]) {
    const { calls_started: earlier } = await servers.stats();
    const began = performance.now();

    await chunksOf(await client.chat.completions.create({ model: name, messages: [{ role: 'user', content }], stream: true }));

    assert.ok(performance.now() - began >= 950, name);
    assert.equal((await servers.stats()).calls_started - earlier, 2, name);
  }
});

test('a 429 that no retry helps against is not tried again', async () => {
  const { calls_started: earlier } = await servers.stats();

  const asked = weir.chat.completions.create({ model: 'mock/quota', messages, stream: true });

  await assert.rejects(asked, (error) => error instanceof OpenAI.RateLimitError && error.code === 'upstream_quota');
  assert.equal((await servers.stats()).calls_started - earlier, 1);
});

test('an error in the middle is thrown after what came before', async () => {
  const heard = await both(async (client, prefix) => {
    const chunks = [];
    await assert.rejects(async () => {
      const stream = await client.chat.completions.create({ model: `${prefix}error_frame`, messages, stream: true });
      for await (const chunk of stream) chunks.push(chunk);
    }, OpenAI.APIError);
    return textOf(chunks);
  });
  assert.match(heard, /2:/);
});

test('the provider sees an abort, before the first event and in the middle', async () => {
  for (const model of ['silent', 'text@tokens=100000']) {
    for (const [client, prefix] of [[weir, 'mock/'], [mock, '']]) {
      const { calls_started: started, calls_aborted: aborted } = await servers.stats();
      const controller = new AbortController();
      const asked = client.chat.completions.create({ model: prefix + model, messages, stream: true },
        { signal: controller.signal, maxRetries: 0 });
      if (model === 'silent') {
        // The provider alone has sent its head: there the stream is open already.
        const ended = asked.then(chunksOf).catch((error) => error);
        await servers.until((stats) => stats.calls_started === started + 1, 'no call');
        controller.abort();
        await ended;
      } else {
        for await (const _ of await asked) controller.abort();
      }
      await servers.until((stats) => stats.calls_aborted === aborted + 1, `${prefix}${model}: no abort`);
    }
  }
});

test('errors have the classes that clients catch', async () => {
  for (const [body, kind, code] of [
    [{ model: 'nobody/nothing' }, OpenAI.NotFoundError, 'model_not_found'],
    [{ model: 'mock/auth' }, OpenAI.InternalServerError, 'upstream_auth'],
    [{ model: 'mock/text', n: 2 }, OpenAI.UnprocessableEntityError, 'unprocessable'],
  ]) {
    const asked = weir.chat.completions.create({ messages, ...body }, { maxRetries: 0 });
    await assert.rejects(asked, (error) => error instanceof kind && error.code === code && Boolean(error.requestID));
  }
});

test('models are listed and found', async () => {
  const names = [];
  for await (const model of weir.models.list()) names.push(model.id);

  assert.deepEqual(names, ['demo/demo', 'hasty/text', 'mock/text']);
  assert.equal((await weir.models.retrieve('mock/text')).owned_by, 'mock');
});
