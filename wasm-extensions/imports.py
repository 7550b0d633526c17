#!/usr/bin/env python3
"""Says what components import, and fails where one imports WASI, which no host of these links.

imports.py FILE...
"""

import os
import sys

IMPORTS = 10


class Reader:
    """Reads the binary form of a component."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def bytes(self, length):
        self.at += length
        return self.data[self.at - length:self.at]

    def import_name(self):
        """The name of one import; what it is like is read past."""
        if self.byte() > 0x01:
            raise ValueError("an import's name of a form unknown here")
        name = self.bytes(self.number()).decode()
        sort = self.byte()
        if sort == 0x00 and self.byte() != 0x11:
            raise ValueError("an import of a form unknown here")
        # Types and values say first whether they equal another or are bounded.
        if sort not in (0x02, 0x03) or self.byte() == 0x00:
            self.number()
        return name


def imports(component):
    """The names that the component itself imports; what lies within it imports from its own parts.

    Types come without a colon, interfaces with one.
    """
    if component[:8] != b"\0asm\x0d\x00\x01\x00":
        raise ValueError("not a component")
    sections = Reader(component)
    sections.at = 8
    names = []
    while sections.at < len(component):
        kind = sections.byte()
        section = Reader(sections.bytes(sections.number()))
        if kind == IMPORTS:
            names += [section.import_name() for _ in range(section.number())]
    return names


def main(paths):
    failed = False
    for path in paths:
        with open(path, "rb") as file:
            component = file.read()
        names = [name for name in imports(component) if ":" in name]
        print(f"{os.path.basename(path):<34} {len(component):>8} bytes   {' '.join(names)}")
        wasi = [name for name in names if name.startswith("wasi:")]
        if wasi:
            print(f"imports.py: {path} imports {', '.join(wasi)}: build it with WASI stubbed", file=sys.stderr)
            failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
