"""The columns of a file of outputs, matched with the classes of a data set by name."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.base.errors import InputError, join_names
from pipeline.base.files import refuse_irregular_file

MAX_NAMES = 5  # names that a message lists of each kind


def match_columns(path: Path, classes: Sequence[str]) -> list[int]:
    """For each class of a data set, in its order, the column that bears its name.

    Args:
        path: a text file, UTF-8, one name a line in the order of the columns. Line ends of any system, a byte-order
            mark and blank lines do not matter; nor do blanks around a name, or how its accents are composed.
        classes: of the data set.

    Raises:
        InputError: a name that is missing, stands there twice, or is no class: all of them are named.
    """
    lines = _read_lines(path)
    key = _make_key(classes)
    places: dict[str, list[int]] = {}
    for number, (_, name) in enumerate(lines):
        places.setdefault(key(name), []).append(number)
    problems = list(_find_problems(lines, places, classes, key))
    if problems:
        raise InputError(
            str(path),
            expected=f"each of the data set's {len(classes)} classes once, one a line",
            found="; ".join(problems),
        )
    return [places[key(name)][0] for name in classes]


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    refuse_irregular_file(path, "a text file, one class a line")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(str(path), expected="a text file, one class a line", found=str(error.strerror)) from None
    except UnicodeDecodeError:
        raise InputError(str(path), expected="text in UTF-8", found="other bytes", fix="save it as UTF-8") from None
    # Not `splitlines`: a name may hold what Unicode takes for a line end.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _make_key(classes: Sequence[str]) -> Callable[[str], str]:
    """What of a name is compared: all of it, where classes differ in nothing else."""

    def normalise(name: str) -> str:
        return unicodedata.normalize("NFC", name.strip())

    return normalise if len({normalise(name) for name in classes}) == len(classes) else str


def _find_problems(
    lines: Sequence[tuple[int, str]], places: dict[str, list[int]], classes: Sequence[str], key: Callable[[str], str]
) -> Iterator[str]:
    missing = [name for name in classes if key(name) not in places]
    if missing:
        yield "none of " + join_names([repr(name) for name in missing], most=MAX_NAMES)
    known = {key(name) for name in classes}
    strange = {name: lines[numbers[0]][0] for name, numbers in places.items() if name not in known}
    if strange:
        listed = [f"{name!r} (line {at}{_suggest_name(name, missing)})" for name, at in strange.items()]
        yield "no class: " + join_names(listed, most=MAX_NAMES)
    twice = {name: [str(lines[number][0]) for number in numbers] for name, numbers in places.items() if numbers[1:]}
    if twice:
        yield "twice: " + join_names(
            [f"{name!r} (lines {join_names(at, most=MAX_NAMES)})" for name, at in twice.items()], most=MAX_NAMES
        )


def _suggest_name(name: str, missing: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, missing[:1000], n=1)
    return f": {near[0]!r}?" if near else ""
