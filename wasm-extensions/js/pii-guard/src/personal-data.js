/**
 * Finds personal data in text, as `../../../personal-data` does. Each scan looks at each character
 * a bounded number of times, and no expression repeats without bound: the engine keeps a way back
 * for every repetition, so that one long word would fill its memory.
 */

/** Every kind, in the order in which they are told. */
export const KINDS = ['card', 'email', 'phone', 'national_phone', 'us_ssn', 'gb_nino', 'es_dni', 'pl_pesel'];

/** What is looked for where nothing is said: what is seldom mistaken. */
export const DEFAULT_KINDS = ['card', 'email', 'phone', 'us_ssn', 'gb_nino', 'es_dni'];

const SCANS = {
  card: cards,
  email: emails,
  phone: phones,
  national_phone: nationalPhones,
  us_ssn: usSsn,
  gb_nino: gbNino,
  es_dni: esDni,
  pl_pesel: plPesel,
};

/**
 * Finds everything of these kinds: kind by kind in the order given, and from left to right within
 * one. What two kinds find may overlap; what one kind finds does not.
 *
 * @param {string} text
 * @param {string[]} kinds
 */
export function find(text, kinds) {
  const all = [];
  const around = aroundDigits(text);
  for (const kind of kinds) {
    const where = kind === 'email' ? text : around;
    if (where !== '') SCANS[kind](where, (found) => all.push({ kind, found }));
  }
  return all;
}

/** More than stands before the first digit of anything but an address, or after the last. */
const MARGIN = 8;

/**
 * The part of a text from its first digit to its last, with what may belong to them: all but an
 * address has digits, and most texts have few or none.
 *
 * @param {string} text
 */
function aroundDigits(text) {
  let start = text.search(/[0-9]/);
  if (start < 0) return '';
  let end = text.length;
  while (!isDigit(text[end - 1])) end -= 1;
  start -= MARGIN;
  end += MARGIN;
  // Hyphens are looked past, whatever their number, for a letter.
  while (text[start - 1] === '-') start -= 1;
  while (text[end] === '-') end += 1;
  return text.slice(Math.max(0, start - 1), end + 1);
}

/** A value as an allow-list compares it: an address in lower case, else its letters and digits. */
function comparable(text) {
  return text.includes('@') ? text.toLowerCase() : text.replace(/[^0-9A-Za-z]/g, '').toUpperCase();
}

/**
 * Whether an allow-list names what was found. An entry that starts with `@` allows a mail domain.
 *
 * @param {string} found
 * @param {string[]} allow
 */
export function isAllowed(found, allow) {
  if (allow.length === 0) return false;
  const value = comparable(found);
  return allow.map(comparable).some((entry) => value === entry || (entry.startsWith('@') && value.endsWith(entry)));
}

// Characters. `undefined`, before and after the text, is none of them.

const isDigit = (c) => c >= '0' && c <= '9';
const isAlphanumeric = (c) => isDigit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

// Payment cards and telephone numbers: digits in groups.

/** What people put between the groups of a card number. */
const CARD_SEPARATORS = ' -./\u00a0\u2007\u202f\u2010\u2011\u2012\u2013\u2014';
const MOST_CARD_DIGITS = 19;

/** Where the digits from `at` on end, or are one more than a card has. */
function digitsEnd(text, at) {
  let end = at;
  while (end - at <= MOST_CARD_DIGITS && isDigit(text[end])) end += 1;
  return end;
}

function cards(text, add) {
  const digit = /[0-9]/g;
  // Where the group before ended, and which group of its number this one is.
  let last = -1;
  let place = 0;
  for (let first = digit.exec(text); first !== null; first = digit.exec(text)) {
    const start = first.index;
    const goesOn = last > 0 && start === last + 1 && CARD_SEPARATORS.includes(text[last]);
    place = goesOn ? place + 1 : 0;
    // The decimals of a number are no card.
    const isDecimals = place === 1 && text[last] === '.';
    const card = isDecimals ? null : cardFrom(text, start);
    if (card !== null) {
      add(text.slice(start, card.end));
      place += card.groups - 1;
      last = card.end;
    } else {
      last = start;
      while (isDigit(text[last])) last += 1;
    }
    digit.lastIndex = last;
  }
}

/** The most groups from the first that make a card together. */
function cardFrom(text, start) {
  let card = null;
  let digits = '';
  for (let groups = 1, at = start; ; groups += 1) {
    const end = digitsEnd(text, at);
    if (digits.length + (end - at) > MOST_CARD_DIGITS) return card;
    digits += text.slice(at, end);
    if (isCard(digits)) card = { end, groups };
    const goesOn = end < text.length && CARD_SEPARATORS.includes(text[end]) && isDigit(text[end + 1]);
    if (!goesOn) return card;
    at = end + 1;
  }
}

function isCard(digits) {
  return digits.length >= 13 && hasIssuer(digits) && luhn(digits);
}

/** Whether an issuer gives out numbers of this length that start so. */
function hasIssuer(digits) {
  const { length } = digits;
  const prefix = Number(digits.slice(0, 4));
  const within = (...ranges) => ranges.some(([from, to]) => prefix >= from && prefix <= to);
  if (within([4000, 4999])) return length === 13 || length === 16 || length === 19;
  if (within([5100, 5599], [2221, 2720])) return length === 16;
  if (within([3400, 3499], [3700, 3799])) return length === 15;
  if (within([3000, 3059], [3600, 3699], [3800, 3999])) return length === 14;
  if (within([3528, 3589], [6011, 6011], [6440, 6599], [6200, 6299])) return length >= 16;
  return within([5000, 5099], [5600, 5899], [6300, 6399], [6700, 6799]);
}

/** The check digit of ISO/IEC 7812. */
function luhn(digits) {
  let sum = 0;
  for (let place = 0; place < digits.length; place += 1) {
    const digit = Number(digits[digits.length - 1 - place]);
    if (place % 2 === 0) sum += digit;
    else sum += digit > 4 ? digit * 2 - 9 : digit * 2;
  }
  return sum % 10 === 0;
}

const PHONE_FILLERS = ' -./()\u00a0\u202f';
/** The longest telephone number a scan follows, in characters. */
const PHONE_CHARS = 32;

/**
 * The groups of digits from `start` on, with one or two fillers between each two. Each tells its own
 * digits (`length`), those of it and of all before it (`count`), and where it ends.
 */
function phoneParts(text, start) {
  const parts = [];
  let [digits, length, fillers] = ['', 0, 0];
  for (let at = start; at < start + PHONE_CHARS; at += 1) {
    if (isDigit(text[at])) {
      digits += text[at];
      length += 1;
      fillers = 0;
      continue;
    }
    if (length > 0) parts.push({ length, count: digits.length, end: at });
    length = 0;
    fillers += 1;
    if (fillers > 2 || at >= text.length || !PHONE_FILLERS.includes(text[at])) break;
  }
  return { parts, digits };
}

/** In the international form. */
function phones(text, add) {
  const prefix = /(?<![0-9A-Za-z])(?:\+|00)/g;
  for (let match = prefix.exec(text); match !== null; match = prefix.exec(text)) {
    const { parts, digits } = phoneParts(text, prefix.lastIndex);
    const last = parts.findLast(({ count }) => count >= 8 && count <= 15);
    if (last === undefined || digits[0] === '0') continue;
    add(text.slice(match.index, last.end));
    prefix.lastIndex = last.end;
  }
}

/**
 * In national forms: North American (`212-555-0123`, `(212) 555-0123`), and those with a trunk `0`,
 * 10 or 11 digits in two or more groups (`020 7946 0123`).
 */
function nationalPhones(text, add) {
  const first = /(?<![0-9A-Za-z+])[(0-9]/g;
  for (let match = first.exec(text); match !== null; match = first.exec(text)) {
    const end = nationalEnd(text, match.index + (match[0] === '(' ? 1 : 0));
    if (end !== null) {
      add(text.slice(match.index, end));
      first.lastIndex = end;
    } else {
      // Past this group: its other digits start nothing.
      while (isDigit(text[first.lastIndex])) first.lastIndex += 1;
    }
  }
}

function nationalEnd(text, start) {
  const { parts, digits } = phoneParts(text, start);
  const lengths = parts.slice(0, 3).map(({ length }) => length);
  if (lengths.join() === '3,3,4' && digits[0] >= '2' && digits[3] >= '2') return parts[2].end;
  const hasTrunk = parts.length >= 2 && parts[0].length >= 3 && digits[0] === '0' && digits[1] !== '0';
  const last = parts.slice(1).findLast(({ count }) => count === 10 || count === 11);
  return hasTrunk && last !== undefined ? last.end : null;
}

// E-mail addresses.

/** What RFC 5321 allows before the `@`, in characters; it also bounds the way back from it. */
const LOCAL_CHARS = 64;
/** What it allows after the `@`. */
const DOMAIN_CHARS = 255;

const [DOT, HYPHEN, SPACE] = ['.', '-', ' '].map((c) => c.codePointAt(0));

/** Letters of any script count, told by their code point so that all languages agree. */
const isLetter = (point) => (point >= 65 && point <= 90) || (point >= 97 && point <= 122) || point >= 0xc0;
const isDigitPoint = (point) => point >= 48 && point <= 57;
const isLocal = (point) => isLetter(point) || isDigitPoint(point) || '._%+-'.includes(String.fromCodePoint(point));

/** `local@label.label`, where the last label has two letters or more. */
function emails(text, add) {
  let after = 0;
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', Math.max(at + 1, after))) {
    let start = at;
    for (let chars = 0; chars < LOCAL_CHARS && start > after; chars += 1) {
      const isPair = text.charCodeAt(start - 1) >= 0xdc00 && text.charCodeAt(start - 1) <= 0xdfff;
      const before = start - (isPair ? 2 : 1);
      if (!isLocal(text.codePointAt(before))) break;
      start = before;
    }
    // A dot cannot start an address.
    while (text[start] === '.') start += 1;
    if (start === at) continue;
    const end = domainEnd(text, at + 1);
    if (end === null) continue;
    after = end;
    add(text.slice(start, end));
  }
}

/** Where the longest domain from `start` on ends. */
function domainEnd(text, start) {
  let end = null;
  let [labels, label, letters] = [0, 0, 0];
  let from = start;
  for (let at = start, chars = 0; chars < DOMAIN_CHARS; chars += 1) {
    const point = text.codePointAt(at) ?? SPACE;
    if (isLetter(point) || isDigitPoint(point) || point === HYPHEN) {
      label += 1;
      if (isLetter(point)) letters += 1;
      at += point > 0xffff ? 2 : 1;
      continue;
    }
    if (label === 0) break;
    const isLast = labels > 0 && label >= 2 && (letters === label || isPunycode(text.slice(from, at)));
    if (isLast) end = at;
    if (point !== DOT) break;
    labels += 1;
    at += 1;
    from = at;
    [label, letters] = [0, 0];
  }
  return end;
}

/** Whether an ASCII label writes letters of another script. */
function isPunycode(label) {
  return label.length > 4 && label.slice(0, 4).toLowerCase() === 'xn--';
}

// National identity numbers.

/** Whether nothing but hyphens parts what was matched from what is neither letter nor digit. */
function standsAlone(text, start, end) {
  let [before, after] = [start - 1, end];
  while (text[before] === '-') before -= 1;
  while (text[after] === '-') after += 1;
  return !isAlphanumeric(text[before]) && !isAlphanumeric(text[after]);
}

/** `123-45-6789`: no part is zero, the first is neither 666 nor 900 and above. */
function usSsn(text, add) {
  for (const match of text.matchAll(/([0-9]{3})-([0-9]{2})-([0-9]{4})/g)) {
    const [ssn, ...parts] = match;
    const first = Number(parts[0]);
    if (parts.some((part) => Number(part) === 0) || first === 666 || first >= 900) continue;
    if (standsAlone(text, match.index, match.index + ssn.length)) add(ssn);
  }
}

const NINO = /(?<![0-9A-Za-z])([A-Za-z]{2}) ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d](?![0-9A-Za-z])/g;
const NO_NINO_PREFIX = ['BG', 'GB', 'NK', 'KN', 'TN', 'NT', 'ZZ'];

/** `QQ 12 34 56 C`, spaces optional: two letters, six digits, and A to D. */
function gbNino(text, add) {
  for (const [nino, letters] of text.matchAll(NINO)) {
    const prefix = letters.toUpperCase();
    if (!/[DFIQUV]|.O/.test(prefix) && !NO_NINO_PREFIX.includes(prefix)) add(nino);
  }
}

/** `12345678Z`, `12345678-Z` or `X1234567L`: the letter is the number's remainder by 23. */
function esDni(text, add) {
  for (const match of text.matchAll(/(?:[XYZxyz]-?[0-9]|[0-9]{2})[0-9]{6}-?[A-Za-z]/g)) {
    const plain = match[0].replaceAll('-', '').toUpperCase();
    const number = Number(plain.slice(0, 8).replace(/^[XYZ]/, (first) => 'XYZ'.indexOf(first)));
    if (plain[8] !== 'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]) continue;
    if (standsAlone(text, match.index, match.index + match[0].length)) add(match[0]);
  }
}

/** Eleven digits: a date whose month tells the century, and a check digit. */
function plPesel(text, add) {
  for (const [pesel] of text.matchAll(/(?<![0-9A-Za-z])[0-9]{11}(?![0-9A-Za-z])/g)) {
    const month = Number(pesel.slice(2, 4)) % 20;
    const day = Number(pesel.slice(4, 6));
    const weights = [1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1];
    const sum = weights.reduce((total, weight, place) => total + weight * Number(pesel[place]), 0);
    if (month >= 1 && month <= 12 && day >= 1 && day <= 31 && sum % 10 === 0) add(pesel);
  }
}
