/** Which parts of a JSON value are looked at, and how their places are told. */

import { Integer, Members } from './json.js';

/**
 * Reads a JSON Pointer (RFC 6901), in which the segment `*` stands for any key or index: its
 * segments, or `null` where the text is neither empty nor starts with `/`.
 *
 * @param {string} text
 * @returns {string[] | null}
 */
export function parsePointer(text) {
  if (text === '') return [];
  if (text[0] !== '/') return null;
  return text
    .slice(1)
    .split('/')
    .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function isStep(step, segment) {
  if (segment === '*' || step === segment) return true;
  return typeof step === 'number' && /^\+?[0-9]+$/.test(segment) && Number(segment) === step;
}

/** Whether the pointer means this place, or one above it. */
function holds(pointer, place) {
  return pointer.length <= place.length && pointer.every((segment, level) => isStep(place[level], segment));
}

/**
 * Shows every string, integer and key that is meant, in the order of the text, with its place.
 * Integers come as their digits; a key comes with the place of its value.
 *
 * @param {unknown} value what `readJson` read
 * @param {string[][]} only the places to look at, and what lies beneath them
 * @param {string[][]} not the places to leave alone
 * @param {(place: (string | number)[], text: string) => void} see `place` changes after the call
 */
export function visit(value, only, not, see) {
  const place = [];
  const isMeant = () => only.some((pointer) => holds(pointer, place)) && !not.some((pointer) => holds(pointer, place));
  const visitAt = (at) => {
    if (typeof at === 'string') {
      if (isMeant()) see(place, at);
    } else if (at instanceof Integer) {
      if (isMeant()) see(place, at.digits);
    } else if (Array.isArray(at)) {
      at.forEach((item, index) => {
        place.push(index);
        visitAt(item);
        place.pop();
      });
    } else if (at instanceof Members) {
      for (const [key, member] of at.list) {
        place.push(key);
        if (isMeant()) see(place, key);
        visitAt(member);
        place.pop();
      }
    }
  };
  visitAt(value);
}

/**
 * A place as a JSON Pointer that repeats no key that may be data itself: a key is shown when it has
 * at most 64 ASCII letters, digits, `_` and `-`, no more than four of them digits; otherwise `*`
 * stands for it.
 *
 * @param {(string | number)[]} place
 */
export function shown(place) {
  return place.map((step) => `/${typeof step === 'number' || isPlain(step) ? step : '*'}`).join('');
}

function isPlain(key) {
  return /^[0-9A-Za-z_-]{0,64}$/.test(key) && key.replace(/[^0-9]/g, '').length <= 4;
}
