"""Names and numbers as they are shown: on one line, with no mark that a terminal, Markdown or a table takes for its
own.

A class may be called anything, and so may what a stranger's cache or card says.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

# Marks of Markdown wherever they stand; `_` between two letters is none, `<` only where a tag could begin.
MARKS = re.compile(r"[*`\[\]\\#$~>]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")  # a lone pair: two marks in a row are something else in Markdown


def escape_unprintable(value: object) -> str:
    """Return text on one line: line ends, controls and surrogates as the escapes that Python writes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it; a file's name of other bytes holds surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_markdown(value: object) -> str:
    """Return one line of text with the marks of Markdown escaped."""
    return MARKS.sub(r"\\\g<0>", escape_unprintable(value))


def escape_cell(value: object) -> str:
    """Return one line for a cell of a Markdown table, where a bar would end the cell."""
    return escape_markdown(value).replace("|", r"\|")


def escape_code(value: object) -> str:
    """Return one line to stand between backquotes."""
    return escape_unprintable(value).replace("`", "'")


def escape_prose(text: str) -> str:
    """Return a paragraph with the marks of Markdown escaped, except for its own `code`."""
    return "".join(f"`{part}`" if code else escape_markdown(part) for part, code in _split_code(text))


def render_prose(text: str) -> str:
    """Return the same paragraph as HTML: text and `code`, no element of its own."""
    parts = ((html.escape(part), code) for part, code in _split_code(text))
    return "".join(f"<code>{part}</code>" if code else part for part, code in parts)


def _split_code(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of one line, each with whether it is code."""
    for place, part in enumerate(CODE.split(escape_unprintable(text))):
        yield part, bool(place % 2)


def shorten_names(names: Sequence[str], most: int) -> list[str]:
    """The names on one line of at most `most` letters each; different ones stay different, by a number at the end."""
    made: dict[str, str] = {}
    for name in dict.fromkeys(names):
        whole = escape_unprintable(name)
        short, number = (whole if len(whole) <= most else f"{whole[: most - 1]}…"), 1
        while short in made.values():
            number += 1
            short = f"{whole[: most - 1 - len(str(number))]}…{number}"
        made[name] = short
    return [made[name] for name in names]


def format_duration(seconds: float) -> str:
    """Seconds for people: 26 days, 3.2 h, 41 s, 1.7 ms."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length or (unit == "s" and seconds >= 1):
            return f"{seconds / length:.2g} {unit}" if seconds < 99 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds * 1000:.2g} ms"
