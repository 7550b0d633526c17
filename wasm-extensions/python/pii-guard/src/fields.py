"""Which parts of a JSON value are looked at, and how their places are reported."""

import re

from json_text import Integer, Members

INDEX = re.compile(r"\+?[0-9]+")
PLAIN = re.compile(r"[0-9A-Za-z_-]{0,64}")


def parse_pointer(text):
    """Reads a JSON Pointer (RFC 6901), in which the segment `*` stands for any key or index: its
    segments, or `None` where the text is neither empty nor starts with `/`."""
    if not text:
        return []
    if not text.startswith("/"):
        return None
    return [segment.replace("~1", "/").replace("~0", "~") for segment in text[1:].split("/")]


def is_step(step, segment):
    if segment == "*" or step == segment:
        return True
    # `int` takes no more digits than this, and no list is that long.
    return isinstance(step, int) and len(segment) < 20 and bool(INDEX.fullmatch(segment)) and int(segment) == step


def holds(pointer, place):
    """Whether the pointer means this place, or one above it."""
    return len(pointer) <= len(place) and all(map(is_step, place, pointer))


def visit(value, only, but, see):
    """Shows every string, integer and key that is meant, in the order of the text, with its place:
    `see(place, text)`, where `place` changes after the call. Integers come as their digits; a key
    comes with the place of its value."""
    place = []

    def is_meant():
        return any(holds(pointer, place) for pointer in only) and not any(holds(pointer, place) for pointer in but)

    def visit_at(value):
        if isinstance(value, str):
            if is_meant():
                see(place, value)
        elif isinstance(value, Integer):
            if is_meant():
                see(place, value.digits)
        elif isinstance(value, Members):
            for key, member in value:
                place.append(key)
                if is_meant():
                    see(place, key)
                visit_at(member)
                place.pop()
        elif isinstance(value, list):
            for index, item in enumerate(value):
                place.append(index)
                visit_at(item)
                place.pop()

    visit_at(value)


def shown(place):
    """A place as a JSON Pointer that repeats no key that may be data itself: a key is shown when it
    has at most 64 ASCII letters, digits, `_` and `-`, no more than four of them digits; otherwise
    `*` stands for it."""
    return "".join(f"/{step if isinstance(step, int) or is_plain(step) else '*'}" for step in place)


def is_plain(key):
    return bool(PLAIN.fullmatch(key)) and sum("0" <= c <= "9" for c in key) <= 4
