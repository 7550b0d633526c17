"""Reading configurations, with every mistake in its place."""

import re
from dataclasses import dataclass, field

from fields import parse_pointer
from json_text import Integer, Members, UnexpectedJson, read_json
from personal_data import DEFAULT_KINDS, KINDS

# The most problems that are reported.
MOST = 32
MOST_OF_A_KIND = 4294967295


@dataclass
class Config:
    """What to look for, where, and how much of it is too much."""

    kinds: list = field(default_factory=lambda: list(DEFAULT_KINDS))
    fields: list = field(default_factory=lambda: [[]])
    ignore: list = field(default_factory=list)
    thresholds: dict = field(default_factory=dict)
    allow: list = field(default_factory=list)


class Mistake(Exception):
    """A mistake in one key: its place, and what is wrong."""


def list_of(item):
    def read(value, path):
        if not isinstance(value, list) or isinstance(value, Members):
            raise Mistake(path, "expected a list")
        return [item(entry, f"{path}/{index}") for index, entry in enumerate(value)]

    return read


def text(value, path):
    if not isinstance(value, str):
        raise Mistake(path, "expected a string")
    return value


def kind(value, path):
    if value not in KINDS:
        raise Mistake(path, f"expected one of {', '.join(KINDS)}")
    return value


def pointer(value, path):
    segments = parse_pointer(text(value, path))
    if segments is None:
        raise Mistake(path, "expected a JSON Pointer: empty, or starting with `/`")
    return segments


def thresholds(value, path):
    if not isinstance(value, Members):
        raise Mistake(path, "expected an object")
    read = {}
    for name, most in sorted(dict(value).items(), key=lambda member: member[0]):
        kind(name, path)
        is_count = isinstance(most, Integer) and re.fullmatch("[0-9]{1,10}", most.digits)
        if not is_count or int(most.digits) > MOST_OF_A_KIND:
            raise Mistake(path, f"expected a whole number from 0 to {MOST_OF_A_KIND}")
        read[name] = int(most.digits)
    return read


# How each key is read.
KEYS = {
    "kinds": list_of(kind),
    "fields": list_of(pointer),
    "ignore": list_of(pointer),
    "thresholds": thresholds,
    "allow": list_of(text),
}


def read_config(json_text):
    """Reads a configuration: that, and the problems, `(path, message)`; none where it could be
    read. Of each key the first mistake is reported. Of equal keys the last counts."""
    config = Config()
    try:
        value = read_json(json_text)
    except UnexpectedJson as error:
        return config, [("", f"is not JSON: {error}")]
    if not isinstance(value, Members):
        return config, [("", "expected an object")]
    problems = []
    for key, member in sorted(dict(value).items(), key=lambda member: member[0]):
        path = "/" + key.replace("~", "~0").replace("/", "~1")
        try:
            if key not in KEYS:
                raise Mistake(path, f"expected one of {', '.join(KEYS)}")
            setattr(config, key, KEYS[key](member, path))
        except Mistake as mistake:
            problems.append(mistake.args)
    return config, problems[:MOST]


def problems_of(json_text):
    """Every mistake in a configuration: whether it can be read, and if so, whether it makes sense."""
    config, problems = read_config(json_text)
    if problems:
        return problems
    if not config.kinds:
        problems.append(("/kinds", "name at least one kind, or leave the key out"))
    if not config.fields:
        problems.append(("/fields", "name at least one place, or leave the key out"))
    for name in KINDS:
        if name in config.thresholds and name not in config.kinds:
            problems.append((f"/thresholds/{name}", "this kind is not looked for: add it to kinds"))
    for index, entry in enumerate(config.allow):
        if len(re.sub("[^0-9A-Za-z]", "", entry)) < 3:
            problems.append((f"/allow/{index}", "too short to name a value: three letters or digits at least"))
    return problems
