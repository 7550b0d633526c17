/**
 * Reads JSON as the host does. `JSON.parse` will not do: it rounds long integers, tells no `1.0`
 * from `1`, sorts some keys and drops equal ones, lets halves of characters pass, and deep nesting
 * ends the whole component.
 */

import { failure } from './failure.js';

/** How deep lists and objects may be nested. */
const LEVELS = 127;

/** A number written without fraction or exponent. */
export class Integer {
  /** @param {string} digits as they were written */
  constructor(digits) {
    this.digits = digits;
  }
}

/** An object: its keys and values as they were written, in that order. */
export class Members {
  /** @param {[string, unknown][]} list */
  constructor(list) {
    this.list = list;
  }
}

const WORDS = new Map([['true', true], ['false', false], ['null', null]]);

/**
 * Reads JSON text.
 *
 * @param {string} text
 * @throws `unexpected_json`, which does not repeat what was found
 */
export function readJson(text) {
  let at = 0;

  const fail = (what) => {
    throw failure('unexpected_json', `${what} at character ${at}`);
  };

  const skipSpace = () => {
    while (' \n\r\t'.includes(text[at] ?? '?')) at += 1;
  };

  const take = (character) => {
    skipSpace();
    if (text[at] !== character) return false;
    at += 1;
    return true;
  };

  const parse = (written, what) => {
    try {
      return JSON.parse(written);
    } catch {
      return fail(what);
    }
  };

  const string = () => {
    let end = at;
    let escapes;
    do {
      end = text.indexOf('"', end + 1);
      if (end < 0) fail('an endless string');
      escapes = 0;
      while (text[end - 1 - escapes] === '\\') escapes += 1;
    } while (escapes % 2 === 1);
    const read = parse(text.slice(at, end + 1), 'not a string');
    if (!read.isWellFormed()) fail('half a character');
    at = end + 1;
    return read;
  };

  // Numbers and words: what stands up to the next mark or blank.
  const plain = () => {
    let end = at;
    while (end < text.length && !' \n\r\t,:]}'.includes(text[end])) end += 1;
    const written = text.slice(at, end);
    const read = WORDS.has(written) ? WORDS.get(written) : parse(written, 'not a value');
    at = end;
    return typeof read === 'number' && !/[.eE]/.test(written) ? new Integer(written) : read;
  };

  const list = (levels) => {
    const items = [];
    if (take(']')) return items;
    do {
      items.push(value(levels));
    } while (take(','));
    if (!take(']')) fail('an endless list');
    return items;
  };

  const object = (levels) => {
    const members = [];
    if (take('}')) return new Members(members);
    do {
      skipSpace();
      if (text[at] !== '"') fail('not a key');
      const key = string();
      if (!take(':')) fail('a key without a value');
      members.push([key, value(levels)]);
    } while (take(','));
    if (!take('}')) fail('an endless object');
    return new Members(members);
  };

  const value = (levels) => {
    skipSpace();
    if (text[at] === '"') return string();
    const read = { '[': list, '{': object }[text[at]];
    if (read === undefined) return plain();
    if (levels === 0) fail('nested too deep');
    at += 1;
    return read(levels - 1);
  };

  const read = value(LEVELS);
  skipSpace();
  if (at < text.length) fail('more than one value');
  return read;
}
