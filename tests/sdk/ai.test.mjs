// The AI SDK with its provider for OpenAI-compatible servers, unchanged, on weir and on the provider alone.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, streamText, tool } from 'ai';

import { startServers } from './support.mjs';

const prompt = 'hello';
const forecast = tool({ description: 'says how the weather will be', inputSchema: jsonSchema({ type: 'object' }) });

let servers, weir, mock;

before(async () => {
  servers = await startServers();
  const on = (name, baseURL) => createOpenAICompatible({ name, baseURL, apiKey: 'any', includeUsage: true });
  [weir, mock] = [on('weir', servers.weirUrl), on('mock', servers.mockUrl)];
});
after(() => servers.stop());

async function partsOf(model, more = {}) {
  const parts = [];
  const onError = () => {};
  for await (const part of streamText({ model, prompt, maxRetries: 0, onError, ...more }).stream) parts.push(part);
  return parts;
}

/** What is heard on weir, which must be what is heard on the provider alone. */
async function both(model, hear, more) {
  const heard = hear(await partsOf(weir(`mock/${model}`), more));
  assert.deepEqual(heard, hear(await partsOf(mock(model), more)));
  return heard;
}

const textOf = (parts, type = 'text-delta') => parts.filter((part) => part.type === type).map((part) => part.text).join('');

test('text, finish reason and usage come as from the provider', async () => {
  const [text, finish, input, output] = await both('text@tokens=40', (parts) => {
    const { finishReason, totalUsage } = parts.find((part) => part.type === 'finish');
    return [textOf(parts), finishReason, totalUsage.inputTokens, totalUsage.outputTokens];
  });
  assert.match(text, /^0:[^]*39:/);
  assert.deepEqual([finish, input, output], ['stop', 1, 40]);
});

test('reasoning is told apart', async () => {
  const reasoning = await both('reasoning', (parts) => textOf(parts, 'reasoning-delta'));
  assert.match(reasoning, /^0:/);
});

test('tools are called', async () => {
  const [call] = await both('tool_call', (parts) => parts.filter((part) => part.type === 'tool-call')
    .map(({ toolCallId, toolName, input }) => ({ toolCallId, toolName, input })), { tools: { forecast } });
  assert.deepEqual(call, { toolCallId: 'call_1', toolName: 'forecast', input: { city: 'Zürich', days: 3 } });
});

test('an error in the middle is an error part after what came before', async () => {
  const [text, errors] = await both('error_frame', (parts) => [
    textOf(parts), parts.filter((part) => part.type === 'error').length,
  ]);
  assert.match(text, /2:/);
  assert.equal(errors, 1);
});

test('without streaming the same is whole', async () => {
  const expected = textOf(await partsOf(mock('text')));

  const { text, finishReason, usage } = await generateText({ model: weir('mock/text'), prompt });
  const { toolCalls } = await generateText({ model: weir('mock/tool_call'), prompt, tools: { forecast } });

  assert.deepEqual([text, finishReason, usage.totalTokens], [expected, 'stop', 21]);
  assert.deepEqual(toolCalls[0].input, { city: 'Zürich', days: 3 });
});

test('a 429 before the stream is tried again', async () => {
  const { calls_started: earlier } = await servers.stats();

  const parts = await partsOf(weir('hasty/flaky@k=1,status=429,after_s=1'), { maxRetries: 2 });

  assert.equal(parts.at(-1).finishReason, 'stop');
  assert.equal((await servers.stats()).calls_started - earlier, 2);
});

test('the provider sees an abort', async () => {
  for (const model of [weir('mock/text@tokens=100000'), mock('text@tokens=100000')]) {
    const { calls_aborted: earlier } = await servers.stats();
    const controller = new AbortController();

    for await (const part of streamText({ model, prompt, abortSignal: controller.signal }).stream) {
      if (part.type === 'text-delta') controller.abort();
    }

    await servers.until((stats) => stats.calls_aborted === earlier + 1, 'no abort');
  }
});
