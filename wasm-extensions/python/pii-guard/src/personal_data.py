"""Finds personal data in text, as `../../../personal-data` does. Each scan looks at each character a
bounded number of times, so that no text is slow."""

import re

# Every kind, in the order in which they are reported.
KINDS = ("card", "email", "phone", "national_phone", "us_ssn", "gb_nino", "es_dni", "pl_pesel")

# What is looked for where nothing is said: what is seldom mistaken.
DEFAULT_KINDS = ("card", "email", "phone", "us_ssn", "gb_nino", "es_dni")


def find(text, kinds):
    """Finds everything of these kinds, as `(kind, found)`: kind by kind in the order given, and from
    left to right within one. What two kinds find may overlap; what one kind finds does not."""
    # All but an address has digits, and most texts have none.
    has_digits = re.search("[0-9]", text) is not None
    for kind in kinds:
        if not has_digits and kind != "email":
            continue
        for found in SCANS[kind](text):
            yield kind, found


def comparable(text):
    """A value as an allow-list compares it: an address in lower case, else its letters and digits."""
    return text.lower() if "@" in text else re.sub("[^0-9A-Za-z]", "", text).upper()


def is_allowed(found, allow):
    """Whether an allow-list names what was found. An entry that starts with `@` allows a mail domain."""
    if not allow:
        return False
    value = comparable(found)
    return any(
        value == entry or (entry.startswith("@") and value.endswith(entry)) for entry in map(comparable, allow)
    )


def is_digit(c):
    return "0" <= c <= "9"


# Payment cards and telephone numbers: digits in groups.

DIGITS = re.compile("[0-9]+")
# What people put between the groups of a card number.
CARD_SEPARATORS = tuple(" -./\u00a0\u2007\u202f\u2010\u2011\u2012\u2013\u2014")
MOST_CARD_DIGITS = 19
# One more than a card has, at most.
CARD_GROUP = re.compile("[0-9]{1,20}")


def cards(text):
    # Where the group before ended, and which group of its number this one is.
    last = place = 0
    while group := DIGITS.search(text, last):
        start, end = group.span()
        goes_on = last > 0 and start == last + 1 and text[last] in CARD_SEPARATORS
        place = place + 1 if goes_on else 0
        # The decimals of a number are no card.
        is_decimals = place == 1 and text[last] == "."
        card = None if is_decimals else card_from(text, start)
        if card:
            end, groups = card
            yield text[start:end]
            place += groups - 1
        last = end


def card_from(text, start):
    """The most groups from the first that make a card together: where they end, and how many."""
    card, digits, groups = None, "", 0
    while group := CARD_GROUP.match(text, start):
        digits += group[0]
        if len(digits) > MOST_CARD_DIGITS:
            break
        groups += 1
        if is_card(digits):
            card = (group.end(), groups)
        if text[group.end():group.end() + 1] not in CARD_SEPARATORS:
            break
        start = group.end() + 1
    return card


def is_card(digits):
    return len(digits) >= 13 and has_issuer(digits) and luhn(digits)


def has_issuer(digits):
    """Whether an issuer gives out numbers of this length that start so."""
    length, prefix = len(digits), int(digits[:4])

    def within(*ranges):
        return any(first <= prefix <= last for first, last in ranges)

    if within((4000, 4999)):
        return length in (13, 16, 19)
    if within((5100, 5599), (2221, 2720)):
        return length == 16
    if within((3400, 3499), (3700, 3799)):
        return length == 15
    if within((3000, 3059), (3600, 3699), (3800, 3999)):
        return length == 14
    if within((3528, 3589), (6011, 6011), (6440, 6599), (6200, 6299)):
        return length >= 16
    return within((5000, 5099), (5600, 5899), (6300, 6399), (6700, 6799))


def luhn(digits):
    """The check digit of ISO/IEC 7812."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        if place % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


PHONE_FILLERS = " -./()\u00a0\u202f"
# The longest telephone number a scan follows, in characters.
PHONE_CHARS = 32


def phone_parts(text, start):
    """The groups of digits from `start` on, with one or two fillers between each two, and the digits.
    A group is its own digits' number, that of it and of all before it, and where it ends."""
    parts, digits, length, fillers = [], "", 0, 0
    for at in range(start, start + PHONE_CHARS):
        c = text[at:at + 1]
        if c and is_digit(c):
            digits += c
            length += 1
            fillers = 0
            continue
        if length:
            parts.append((length, len(digits), at))
            length = 0
        fillers += 1
        if fillers > 2 or not c or c not in PHONE_FILLERS:
            break
    return parts, digits


PHONE_PREFIX = re.compile(r"(?<![0-9A-Za-z])(?:\+|00)")


def phones(text):
    """In the international form."""
    at = 0
    while prefix := PHONE_PREFIX.search(text, at):
        at = prefix.end()
        parts, digits = phone_parts(text, at)
        end = next((end for _, count, end in reversed(parts) if 8 <= count <= 15), None)
        if end is not None and digits[0] != "0":
            yield text[prefix.start():end]
            at = end


NATIONAL_START = re.compile("(?<![0-9A-Za-z+])[(0-9]")


def national_phones(text):
    """In national forms: North American (`212-555-0123`, `(212) 555-0123`), and those with a trunk
    `0`, 10 or 11 digits in two or more groups (`020 7946 0123`)."""
    at = 0
    while first := NATIONAL_START.search(text, at):
        end = national_end(text, first.end() if first[0] == "(" else first.start())
        if end is not None:
            yield text[first.start():end]
            at = end
        else:
            # Past this group: its other digits start nothing.
            digits = DIGITS.match(text, first.end())
            at = digits.end() if digits else first.end()


def national_end(text, start):
    parts, digits = phone_parts(text, start)
    if [length for length, _, _ in parts[:3]] == [3, 3, 4] and digits[0] >= "2" and digits[3] >= "2":
        return parts[2][2]
    if len(parts) < 2 or parts[0][0] < 3 or digits[0] != "0" or digits[1] == "0":
        return None
    return next((end for _, count, end in reversed(parts[1:]) if count in (10, 11)), None)


# E-mail addresses.

# What RFC 5321 allows before the `@`, in characters; it also bounds the way back from it.
LOCAL_CHARS = 64
# What it allows after the `@`.
DOMAIN_CHARS = 255


def is_letter(c):
    """Letters of any script count, classified by their code point, so that all languages agree."""
    return "a" <= c <= "z" or "A" <= c <= "Z" or c >= "\u00c0"


def is_local(c):
    return is_letter(c) or is_digit(c) or c in "._%+-"


def emails(text):
    """`local@label.label`, where the last label has two letters or more."""
    after = 0
    at = text.find("@")
    while at >= 0:
        start = at
        while start > max(after, at - LOCAL_CHARS) and is_local(text[start - 1]):
            start -= 1
        # A dot cannot start an address.
        while text[start] == ".":
            start += 1
        end = domain_end(text, at + 1) if start < at else None
        if end is not None:
            yield text[start:end]
            after = end
        at = text.find("@", max(at + 1, after))


def domain_end(text, start):
    """Where the longest domain from `start` on ends."""
    end = None
    labels = letters = 0
    label_start = start
    for at in range(start, start + DOMAIN_CHARS):
        c = text[at:at + 1] or " "
        if is_letter(c) or is_digit(c) or c == "-":
            letters += is_letter(c)
            continue
        label = text[label_start:at]
        if not label:
            break
        if labels and len(label) >= 2 and (letters == len(label) or is_punycode(label)):
            end = at
        if c != ".":
            break
        labels += 1
        letters = 0
        label_start = at + 1
    return end


def is_punycode(label):
    """Whether an ASCII label writes letters of another script."""
    return len(label) > 4 and label[:4].lower() == "xn--"


# National identity numbers.


def is_alphanumeric(c):
    return is_digit(c) or "a" <= c <= "z" or "A" <= c <= "Z"


def stands_alone(match):
    """Whether nothing but hyphens parts what was matched from what is neither letter nor digit."""
    text, before, after = match.string, match.start(), match.end()
    while before > 0 and text[before - 1] == "-":
        before -= 1
    while after < len(text) and text[after] == "-":
        after += 1
    return not is_alphanumeric(text[before - 1:before]) and not is_alphanumeric(text[after:after + 1])


SSN = re.compile("([0-9]{3})-([0-9]{2})-([0-9]{4})")


def us_ssn(text):
    """`123-45-6789`: no part is zero, the first is neither 666 nor 900 and above."""
    for match in SSN.finditer(text):
        parts = [int(part) for part in match.groups()]
        if all(parts) and parts[0] != 666 and parts[0] < 900 and stands_alone(match):
            yield match[0]


NINO = re.compile("(?<![0-9A-Za-z])([A-Za-z]{2}) ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d](?![0-9A-Za-z])")
NO_NINO_PREFIX = ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")


def gb_nino(text):
    """`QQ 12 34 56 C`, spaces optional: two letters, six digits, and A to D."""
    for match in NINO.finditer(text):
        prefix = match[1].upper()
        if not re.search("[DFIQUV]|.O", prefix) and prefix not in NO_NINO_PREFIX:
            yield match[0]


DNI = re.compile("(?:[XYZxyz]-?[0-9]|[0-9]{2})[0-9]{6}-?[A-Za-z]")


def es_dni(text):
    """`12345678Z`, `12345678-Z` or `X1234567L`: the letter is the number's remainder by 23."""
    for match in DNI.finditer(text):
        plain = match[0].replace("-", "").upper()
        number = int(plain[:8].translate(str.maketrans("XYZ", "012")))
        if plain[8] == "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] and stands_alone(match):
            yield match[0]


PESEL = re.compile("(?<![0-9A-Za-z])[0-9]{11}(?![0-9A-Za-z])")


def pl_pesel(text):
    """Eleven digits: a date whose month encodes the century, and a check digit."""
    for match in PESEL.finditer(text):
        pesel = match[0]
        month, day = int(pesel[2:4]) % 20, int(pesel[4:6])
        total = sum(weight * int(digit) for weight, digit in zip((1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), pesel))
        if 1 <= month <= 12 and 1 <= day <= 31 and total % 10 == 0:
            yield pesel


SCANS = {
    "card": cards,
    "email": emails,
    "phone": phones,
    "national_phone": national_phones,
    "us_ssn": us_ssn,
    "gb_nino": gb_nino,
    "es_dni": es_dni,
    "pl_pesel": pl_pesel,
}
