"""The one exception that a user's mistake raises."""

from __future__ import annotations

LONGEST = 2000  # characters of a line


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
