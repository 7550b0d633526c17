/** Runs the cases of a YAML file, as `beamline-sidecar ext test` does, on the functions themselves. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';

/**
 * One test for each case.
 *
 * @param {URL} file
 * @param {{checkConfig: Function, validate: Function}} extension
 */
export function testCases(file, extension) {
  const { cases } = parse(readFileSync(file, 'utf8'), { intAsBigInt: true });
  assert.notEqual(cases.length, 0);
  for (const { name, expect, ...given } of cases) {
    test(name, () => run(extension, given, expect));
  }
}

function run({ checkConfig, validate }, { message = {}, context = {}, config = {} }, expect) {
  const found = thrown(() => checkConfig(json(config))) ?? [];
  if (expect.config_problems !== undefined) {
    assert.deepEqual(found.map(({ path }) => path), expect.config_problems);
    return;
  }
  assert.deepEqual(found, [], 'the configuration has mistakes');
  const about = {
    tenantId: context.tenant_id ?? 'tenant',
    policyId: 'policy',
    traceId: '',
    requestId: '',
    context: json(context),
    config: json(config),
    remainingMs: 100,
  };
  const sent = {
    messageId: message.message_id ?? '',
    messageType: message.message_type ?? 'unknown',
    payload: json(message.payload ?? null),
    metadata: json(message.metadata ?? {}),
  };
  if (expect.failure !== undefined) {
    assert.equal(thrown(() => validate(about, sent))?.code, expect.failure);
    return;
  }
  const verdict = validate(about, sent);
  if (expect === 'accept') {
    assert.deepEqual(verdict, { tag: 'accept' });
    return;
  }
  assert.equal(verdict.tag, 'reject');
  const { reason, details } = expect.reject;
  if (reason !== undefined) assert.equal(verdict.val.reason, reason);
  if (details !== undefined) assert.deepEqual(JSON.parse(verdict.val.details), JSON.parse(json(details)));
}

/** What a function throws, which the component returns as an error. */
function thrown(call) {
  try {
    call();
  } catch (error) {
    return error;
  }
  return undefined;
}

/** JSON text in which integers keep all their digits and other numbers their fraction. */
function json(value) {
  if (Array.isArray(value)) return `[${value.map(json).join(',')}]`;
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return Number.isInteger(value) ? value.toFixed(1) : String(value);
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, item]) => `${JSON.stringify(key)}:${json(item)}`)
    .join(',')}}`;
}
