import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as extension from '../src/extension.js';
import { testCases } from './cases.js';

testCases(new URL('cases.yaml', import.meta.url), extension);

test('a mistake in the code is told in the log', () => {
  assert.throws(() => extension.checkConfig('{'), SyntaxError);
  assert.match(globalThis.lines.at(-1), /^error: SyntaxError/);
});
