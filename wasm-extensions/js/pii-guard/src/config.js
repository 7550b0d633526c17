/** Reading configurations, with every mistake in its place. */

import { parsePointer } from './fields.js';
import { Integer, Members, readJson } from './json.js';
import { DEFAULT_KINDS, KINDS } from './personal-data.js';

/** How many problems are told at most. */
const MOST = 32;
const MOST_OF_A_KIND = 4294967295;

/** A mistake in one key. */
class Mistake {
  constructor(path, message) {
    this.path = path;
    this.message = message;
  }
}

const listOf = (item) => (value, path) => {
  if (!Array.isArray(value)) throw new Mistake(path, 'expected a list');
  return value.map((entry, index) => item(entry, `${path}/${index}`));
};

function text(value, path) {
  if (typeof value !== 'string') throw new Mistake(path, 'expected a string');
  return value;
}

function kind(value, path) {
  if (!KINDS.includes(value)) throw new Mistake(path, `expected one of ${KINDS.join(', ')}`);
  return value;
}

function pointer(value, path) {
  const segments = parsePointer(text(value, path));
  if (segments === null) throw new Mistake(path, 'expected a JSON Pointer: empty, or starting with `/`');
  return segments;
}

/** Its members by key, in the order of their code points; of equal keys the last counts. */
function byKey({ list }) {
  return new Map([...new Map(list)].sort(([a], [b]) => compareText(a, b)));
}

/** Compares texts by their code points, as the other languages do; `<` compares UTF-16. */
function compareText(a, b) {
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a[at] === b[at]) at += 1;
  if (at === length) return a.length - b.length;
  // Half of a pair stands for a code point above all that need no pair.
  const rank = (unit) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);
  return rank(a.charCodeAt(at)) - rank(b.charCodeAt(at));
}

function thresholds(value, path) {
  if (!(value instanceof Members)) throw new Mistake(path, 'expected an object');
  const read = new Map();
  for (const [name, most] of byKey(value)) {
    kind(name, path);
    const isCount = most instanceof Integer && /^[0-9]{1,10}$/.test(most.digits);
    if (!isCount || Number(most.digits) > MOST_OF_A_KIND) {
      throw new Mistake(path, `expected a whole number from 0 to ${MOST_OF_A_KIND}`);
    }
    read.set(name, Number(most.digits));
  }
  return read;
}

/** How each key is read. */
const KEYS = {
  kinds: listOf(kind),
  fields: listOf(pointer),
  ignore: listOf(pointer),
  thresholds,
  allow: listOf(text),
};

/**
 * Reads a configuration; `problems` is empty where that was possible. Each key tells its first
 * mistake.
 *
 * @param {string} json
 */
export function readConfig(json) {
  // What is looked for where nothing is said: everywhere, and none is let pass.
  const config = { kinds: DEFAULT_KINDS, fields: [[]], ignore: [], thresholds: new Map(), allow: [] };
  let value;
  try {
    value = readJson(json);
  } catch {
    return { config, problems: [{ path: '', message: 'is not JSON' }] };
  }
  if (!(value instanceof Members)) return { config, problems: [{ path: '', message: 'expected an object' }] };
  const problems = [];
  for (const [key, member] of byKey(value)) {
    const path = `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    try {
      if (!Object.hasOwn(KEYS, key)) throw new Mistake(path, `expected one of ${Object.keys(KEYS).join(', ')}`);
      config[key] = KEYS[key](member, path);
    } catch (mistake) {
      if (!(mistake instanceof Mistake)) throw mistake;
      if (problems.length < MOST) problems.push({ path: mistake.path, message: mistake.message });
    }
  }
  return { config, problems };
}

/**
 * Every mistake in a configuration: whether it can be read, and if so, whether it makes sense.
 *
 * @param {string} json
 */
export function problemsOf(json) {
  const { config, problems } = readConfig(json);
  if (problems.length > 0) return problems;
  const problem = (path, message) => problems.push({ path, message });
  if (config.kinds.length === 0) problem('/kinds', 'name at least one kind, or leave the key out');
  if (config.fields.length === 0) problem('/fields', 'name at least one place, or leave the key out');
  for (const name of KINDS) {
    if (config.thresholds.has(name) && !config.kinds.includes(name)) {
      problem(`/thresholds/${name}`, 'this kind is not looked for: add it to kinds');
    }
  }
  config.allow.forEach((entry, index) => {
    if (entry.replace(/[^0-9A-Za-z]/g, '').length < 3) {
      problem(`/allow/${index}`, 'too short to name a value: three letters or digits at least');
    }
  });
  return problems;
}
