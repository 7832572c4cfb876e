"""The one exception that a user's mistake raises, and what its line has room for."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 2000  # characters of a line
LONGEST_NAME = 200  # characters of one of several names
MOST_NAMES = 3


class InputError(Exception):
    """Bad input, told in one line: what is wrong, what was expected, what was found, what to do.

    The command line prints it as it stands and exits with code 2; everything else that is
    raised is a bug and keeps its traceback.
    """

    def __init__(self, what: str, *, expected: str = "", found: str = "", fix: str = "") -> None:
        comparison = [f"expected {expected}"] * bool(expected) + [f"found {found}"] * bool(found)
        parts = [": ".join(filter(None, [what, ", ".join(comparison)]))] + [fix] * bool(fix)
        line = " ".join("; ".join(parts).split())
        # A stranger's cache may hold names of any length.
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}")


def few(names: Sequence[str]) -> str:
    """Some names, as a line has room for: the first of them, and how many more there are."""
    half = LONGEST_NAME // 2
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:half]} ... {name[-half:]}" for name in names[:MOST_NAMES]]
    return ", ".join(shown) + f" and {len(names) - MOST_NAMES} more" * (len(names) > MOST_NAMES)
