"""The one exception that a user's mistake raises."""

from __future__ import annotations


class InputError(Exception):
    """Bad input, told in one line: what is wrong, what was expected, what was found, what to do.

    The command line prints it as it stands and exits with code 2; everything else that is
    raised is a bug and keeps its traceback.
    """

    def __init__(self, what: str, *, expected: str = "", found: str = "", fix: str = "") -> None:
        comparison = [f"expected {expected}"] * bool(expected) + [f"found {found}"] * bool(found)
        parts = [": ".join(filter(None, [what, ", ".join(comparison)]))] + [fix] * bool(fix)
        super().__init__(" ".join("; ".join(parts).split()))
