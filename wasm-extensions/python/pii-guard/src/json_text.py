"""Reads JSON as the host does: as it was written, and no deeper than the host would."""

import json
import re

# How deep lists and objects may be nested.
LEVELS = 127

MARKS = re.compile(r'["\[\]{}]')


class UnexpectedJson(Exception):
    """The text cannot be read. What was found is not repeated."""


class Members(list):
    """An object: its keys and values as they were written, in that order."""


class Integer:
    """A number written without fraction or exponent."""

    def __init__(self, digits):
        self.digits = digits

    def __eq__(self, other):
        return isinstance(other, Integer) and self.digits == other.digits

    def __repr__(self):
        return f"Integer({self.digits!r})"


def read_json(text):
    """Reads JSON text: objects as `Members`, integers as `Integer`."""
    if text.count("[") + text.count("{") > LEVELS and levels(text) > LEVELS:
        raise UnexpectedJson("nested too deep")
    try:
        value = json.loads(
            text, object_pairs_hook=Members, parse_int=Integer, parse_constant=no_constant
        )
        if "\\u" in text:
            well_formed(value)
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise UnexpectedJson(f"not what was expected{where}") from None
    return value


def no_constant(_):
    raise ValueError("not a number to the host")


def levels(text):
    """How deep lists and objects are nested."""
    deepest = level = at = 0
    while mark := MARKS.search(text, at):
        at = mark.end()
        if mark[0] == '"':
            at = string_end(text, at)
        elif mark[0] in "[{":
            level += 1
            deepest = max(deepest, level)
        else:
            level -= 1
    return deepest


def string_end(text, at):
    """Past the quote that ends the string whose first character is at `at`."""
    while (end := text.find('"', at)) >= 0:
        escapes = 0
        while text[end - 1 - escapes] == "\\":
            escapes += 1
        if escapes % 2 == 0:
            return end + 1
        at = end + 1
    return len(text)


def well_formed(value):
    """Fails where an escape stands for half a character: a `UnicodeEncodeError` is a `ValueError`."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, (list, tuple)):
        for part in value:
            well_formed(part)
