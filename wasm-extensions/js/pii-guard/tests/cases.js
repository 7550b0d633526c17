/** Runs the cases of a YAML file, as `beamline-sidecar ext test` does, on the functions themselves. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';

/**
 * One test for each case.
 *
 * @param {URL} file
 * @param {{[name: string]: Function}} extension
 */
export function testCases(file, extension) {
  const { cases, extension: kind } = parse(readFileSync(file, 'utf8'), { intAsBigInt: true });
  assert.notEqual(cases.length, 0);
  for (const { name, expect, ...given } of cases) {
    test(name, () => run(kind, extension, given, expect));
  }
}

function run(kind, extension, { message = {}, context = {}, config = {}, candidates = [], decision = {} }, expect) {
  const found = thrown(() => extension.checkConfig(json(config))) ?? [];
  if (expect.config_problems !== undefined) {
    assert.deepEqual(found.map(({ path }) => path).sort(), [...expect.config_problems].sort());
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
  const call = {
    pre: () => extension.process(about, sent),
    validator: () => extension.validate(about, sent),
    scorer: () => extension.score(about, sent, candidates.map(candidate)),
    post: () => extension.process(about, decided(decision)),
  }[kind];
  if (expect.failure !== undefined) {
    assert.equal(thrown(call)?.code, expect.failure);
    return;
  }
  const answer = call();
  const wanted = {
    pre: () => changes(answer, sent, expect === 'unchanged' ? {} : expect),
    validator: () => verdict(answer, expect),
    scorer: () => scores(answer, expect.scores),
    post: () => same(answer === null ? {} : JSON.parse(answer), expect === 'unchanged' ? {} : (expect.metadata ?? {})),
  }[kind];
  wanted();
}

const candidate = ({ provider_id, weight = 1, breaker = 'closed', latency_ms, error_rate, cost }) => ({
  providerId: provider_id,
  weight: Number(weight),
  breaker: breaker.replace('_', '-'),
  latencyMs: number(latency_ms),
  errorRate: number(error_rate),
  cost: number(cost),
});

const decided = ({ provider_id = 'provider', reason = 'weighted', priority = 50 }) => ({
  providerId: provider_id,
  reason,
  priority: Number(priority),
});

/** What may be absent. */
const number = (value) => (value === undefined ? null : Number(value));

function verdict(answer, expect) {
  if (expect === 'accept') {
    assert.deepEqual(answer, { tag: 'accept' });
    return;
  }
  assert.equal(answer.tag, 'reject');
  const { reason, details } = expect === 'reject' ? {} : (expect.reject ?? {});
  if (reason !== undefined) assert.equal(answer.val.reason, reason);
  if (details !== undefined) same(JSON.parse(answer.val.details), details);
}

/** Of the message and the context only what is named is expected to change. */
function changes(answer, sent, { message = {}, context = {} }) {
  same(answer.context === null ? {} : JSON.parse(answer.context), context);
  const got = answer.message ?? sent;
  same(
    {
      message_id: got.messageId,
      message_type: got.messageType,
      payload: JSON.parse(got.payload),
      metadata: JSON.parse(got.metadata),
    },
    {
      message_id: sent.messageId,
      message_type: sent.messageType,
      payload: JSON.parse(sent.payload),
      metadata: JSON.parse(sent.metadata),
      ...message,
    },
  );
}

function scores(answer, expect) {
  const got = Object.fromEntries(answer.map(({ providerId, factor }) => [providerId, factor]));
  assert.deepEqual(Object.keys(got).sort(), Object.keys(expect).sort());
  for (const [provider, factor] of Object.entries(expect)) {
    assert.ok(Math.abs(got[provider] - Number(factor)) <= 1e-6, `${provider}: ${got[provider]}, not ${factor}`);
  }
}

const same = (got, expect) => assert.deepEqual(got, JSON.parse(json(expect)));

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
