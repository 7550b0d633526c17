"""Tables that read well in a terminal and are Markdown at once."""

from statistics import median


def table(head, rows):
    cells = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def middle(values, digits=1):
    return f"{median(values):,.{digits}f}"


def spread(values, digits=1):
    """The median, and between which values the rounds lay."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})"


def ratio(values, others):
    """Computed within each round, because figures drift from one to the next."""
    return spread([value / other for value, other in zip(values, others)], 2)


def mebibytes(count):
    return f"{count / 2**20:.1f} MiB"
