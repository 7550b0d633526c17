/**
 * A validator that refuses messages with personal data: the twin of `../../../pii-guard`, and of
 * `../../../python/pii-guard`. `../../../tests/pii-guard.yaml` holds for all three.
 *
 * The host makes a fresh instance for every call. What a function throws becomes the error of its
 * `result`: a list of problems, or a failure. An `Error` thrown is a trap.
 */

import { problemsOf, readConfig } from './config.js';
import { failure, telling } from './failure.js';
import { shown, visit } from './fields.js';
import { readJson } from './json.js';
import { KINDS, find, isAllowed } from './personal-data.js';

/** How many places are told for a kind at most. */
const PLACES = 8;

/** @param {string} config */
export const checkConfig = telling((config) => {
  const problems = problemsOf(config);
  if (problems.length > 0) throw problems;
});

/**
 * @param {{config: string}} call
 * @param {{payload: string}} message
 */
export const validate = telling((call, message) => {
  const { config, problems } = readConfig(call.config);
  if (problems.length > 0) throw failure('invalid_config', 'the configuration cannot be read');
  return verdict(examine(config, readJson(message.payload)), config);
});

/** What was found: how many of each kind, and where, never what. */
function examine(config, payload) {
  const findings = new Map();
  visit(payload, config.fields, config.ignore, (place, text) => {
    for (const { kind, found } of find(text, config.kinds)) {
      if (isAllowed(found, config.allow)) continue;
      if (!findings.has(kind)) findings.set(kind, { count: 0, places: [] });
      const finding = findings.get(kind);
      finding.count += 1;
      if (finding.places.length < PLACES) {
        const where = shown(place);
        if (!finding.places.includes(where)) finding.places.push(where);
      }
    }
  });
  return findings;
}

function verdict(findings, config) {
  const tooMany = KINDS.filter((kind) => (findings.get(kind)?.count ?? 0) > (config.thresholds.get(kind) ?? 0));
  if (tooMany.length === 0) return { tag: 'accept' };
  const named = tooMany.map((kind) => `${kind} (${findings.get(kind).count})`);
  const found = tooMany.map((kind) => {
    const { count, places } = findings.get(kind);
    return { count, fields: places, kind };
  });
  const reason = `personal data in the message: ${named.join(', ')}`;
  return { tag: 'reject', val: { reason, details: JSON.stringify({ found }) } };
}
