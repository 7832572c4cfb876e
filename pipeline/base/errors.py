"""The one exception that a user's mistake raises, and what its line has room for."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_LINE = 2000  # characters of a line
LONGEST_NAME = 150  # characters of one of several names
MOST_NAMES = 3


class InputError(Exception):
    """Bad input, told in one line: what is wrong, what was expected, what was found, what to do.

    The command line prints it as it stands and exits with code 2; everything else that is
    raised is a bug and keeps its traceback.
    """

    def __init__(self, what: str, *, expected: str = "", found: str = "", fix: str = "") -> None:
        found = _shorten(found, LONGEST_LINE // 3)
        comparison = [f"expected {expected}"] * bool(expected) + [f"found {found}"] * bool(found)
        parts = [": ".join(filter(None, [_shorten(what, LONGEST_LINE // 3), ", ".join(comparison)]))] + [fix] * bool(
            fix
        )
        # A stranger's cache, or a folder of images, may hold names of any length.
        super().__init__(_shorten(" ".join("; ".join(parts).split()), LONGEST_LINE))


class NotNowError(InputError):
    """Nothing is wrong with what was asked: the same run may succeed later, and go on from what is done."""


def join_names(names: Sequence[str], *, most: int = MOST_NAMES, longest: int = LONGEST_NAME) -> str:
    """Return the first `most` names, joined by commas, and how many more there are."""
    shown = ", ".join(_shorten(name, longest) for name in names[:most])
    return shown + f" and {len(names) - most} more" * (len(names) > most)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
