// The reader of event streams, without a browser.

import assert from 'node:assert/strict';
import { it } from 'node:test';

import { Parser } from '../../src/http/page/sse.js';

const STREAM = 'event: ping\ndata: {}\n\n: keep-alive\n\nid: 1-1\nevent: delta\ndata: {"delta":"a\\nb"}\r\n\r\ndata:x\ndata: y\n\n'
  + 'event: nothing\n\nid: 1-2\nevent: done\ndata: {}\n\n';
const EVENTS = [
  { event: 'ping', id: undefined, data: '{}' },
  { event: 'delta', id: '1-1', data: '{"delta":"a\\nb"}' },
  { event: 'message', id: undefined, data: 'x\ny' },
  { event: 'done', id: '1-2', data: '{}' },
];

it('an event stream gives the same events wherever it is cut', () => {
  for (let first = 0; first <= STREAM.length; first++) {
    for (let second = first; second <= STREAM.length; second += 7) {
      const parser = new Parser();
      const parts = [STREAM.slice(0, first), STREAM.slice(first, second), STREAM.slice(second)];
      assert.deepEqual(parts.flatMap((part) => parser.push(part)), EVENTS);
    }
  }
});

it('an event that is not complete is not given', () => {
  assert.deepEqual(new Parser().push('event: done\ndata: {}\n'), []);
});
