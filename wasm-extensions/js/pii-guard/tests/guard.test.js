import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as guard from '../src/guard.js';
import { Integer, Members, readJson } from '../src/json.js';
import { KINDS, find } from '../src/personal-data.js';
import { testCases } from './cases.js';

testCases(new URL('../../../tests/pii-guard.yaml', import.meta.url), guard);

const validate = (payload, config = '{}') => guard.validate({ config }, { payload });

test('what the host would not read is a failure that does not repeat it', () => {
  const deep = (levels) => '['.repeat(levels) + ']'.repeat(levels);
  assert.deepEqual(validate(deep(127)), { tag: 'accept' });
  for (const payload of [deep(128), '"4111111111111111', '"\\ud800"', '[1,]', '{"a" 1}', 'nul', '1 2', '01', '']) {
    assert.throws(
      () => validate(payload),
      (error) => error.code === 'unexpected_json' && !error.message.includes('4111'),
      payload,
    );
  }
});

test('a configuration that cannot be read is a failure', () => {
  assert.throws(() => validate('null', '{"kinds":["passport"]}'), { code: 'invalid_config' });
});

test('problems are bounded, and tell of what is no object', () => {
  const problems = (config) => {
    try {
      guard.checkConfig(config);
    } catch (found) {
      return found.map(({ path }) => path);
    }
    return [];
  };
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`k${index}`, index]));
  assert.equal(problems(JSON.stringify(many)).length, 32);
  assert.deepEqual(problems('7'), ['']);
  assert.deepEqual(problems('{'), ['']);
  assert.deepEqual(problems('{"__proto__": 1, "constructor": 1}'), ['/__proto__', '/constructor']);
});

test('JSON is read as it was written', () => {
  const text = ' {"b\\"\\\\": ["\\u00fc\\\\", true, null, 1.0, {}, []], "1": "x", "1": -0} ';
  assert.deepEqual(readJson(text), new Members([
    ['b"\\', ['ü\\', true, null, 1, new Members([]), []]],
    ['1', 'x'],
    ['1', new Integer('-0')],
  ]));
  const long = '123456789012345678901234567890';
  assert.deepEqual(readJson(long), new Integer(long));
  for (const text of ['1e3', '1.0', '1e999']) assert.equal(typeof readJson(text), 'number');
});

test('keys that are written twice are both looked at', () => {
  const { val } = validate('{"a": "a@b.io", "0": "a@b.io", "a": "x"}');
  assert.deepEqual(JSON.parse(val.details).found, [{ kind: 'email', count: 2, fields: ['/a', '/0'] }]);
});

test('a place is told in both spellings of an index, and none that is no index', () => {
  const found = (field) => validate('["x", "a@b.io"]', JSON.stringify({ fields: [field] })).tag;
  assert.deepEqual(['/1', '/01', '/+1', '/*', '/1.0', '/-1', '/', '/1/'].map(found), [
    ...Array(4).fill('reject'),
    ...Array(4).fill('accept'),
  ]);
});

test('no text makes a scan slow or break', () => {
  for (const piece of ['4', '4 ', '@', 'a@', 'a.', '+', '00', '0 ', '(', 'AB ', '-', '12-', '1-2', '😀@', '123-45-6789-']) {
    const text = piece.repeat(100_000 / piece.length);
    assert.ok(Array.isArray(find(text, KINDS)));
  }
});

test('a mistake in the code is told in the log', () => {
  assert.throws(() => guard.validate({ config: '{}' }), TypeError);
  assert.match(globalThis.lines.at(-1), /^error: TypeError/);
});
