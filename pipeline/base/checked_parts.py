"""Note which parts of a copy have been checked and were sound, so that an interrupted check goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.base.checked_copies import read_facts
from pipeline.base.files import hash_json, write_bytes
from pipeline.base.user_cache import find_user_folder

NOTE_SECONDS = 5.0  # between two notes


class CheckedParts:
    """The sound parts of one copy's files; a file that was touched since starts anew.

    Attributes:
        sound: by file, the ends of its sound stretches by their starts.
        whole: files that were sound from end to end.
        noted: when an earlier check noted some of that, in seconds of the clock; None: nothing was taken up.
    """

    def __init__(self, folder: Path, names: Iterable[str], root: str, kind: str, *, restart: bool = False) -> None:
        """Take up what the last interrupted check of this kind noted.

        Args:
            folder: of the copy.
            names: of its files.
            root: the digest that a copy has whose files are as they should be.
            kind: of the check.
            restart: take up nothing.
        """
        notes = find_user_folder(kind)
        self._note = notes and notes / hash_json(str(folder.resolve()))[:32]
        self._root = root
        self._facts = {str(name): facts for name, *facts in read_facts(folder, names)}
        self.sound: dict[str, dict[int, int]] = {}
        self.whole: set[str] = set()
        self.noted: float | None = None
        self._saved = time.monotonic()
        if not restart:
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or of another version
                self._take_up(json.loads((self._note or Path()).read_bytes()))

    def _take_up(self, note: dict[str, Any]) -> None:
        if note["root"] != self._root:
            return
        for name, (facts, whole, starts, ends) in note["files"].items():
            if self._facts.get(name) == facts:
                self.sound[name] = dict(zip(starts, ends, strict=True))
                self.whole |= {name} if whole else set()
                self.noted = float(note["time"])

    def holds(self, file: str, start: int, end: int) -> bool:
        """Whether a stretch was found sound."""
        return file in self.whole or self.sound.get(file, {}).get(start) == end

    def add(self, file: str, start: int, end: int) -> None:
        """Take in a sound stretch, and note all of them now and then."""
        self.sound.setdefault(file, {})[start] = end
        if time.monotonic() - self._saved >= NOTE_SECONDS:
            self.save()

    def save(self) -> None:
        """Note what is sound; where nothing can be noted, the next check starts anew."""
        self._saved = time.monotonic()
        files = {
            name: [self._facts[name], name in self.whole, *_split(self.sound.get(name, {}))]
            for name in sorted(self.sound.keys() | self.whole)
        }
        note = {"root": self._root, "time": time.time(), "files": files}
        if self._note and files:
            with suppress(OSError):
                write_bytes(self._note, json.dumps(note).encode(), flush=False)

    def forget(self) -> None:
        """The check is done."""
        if self._note:
            with suppress(OSError):
                self._note.unlink(missing_ok=True)


def _split(stretches: dict[int, int]) -> Sequence[list[int]]:
    return list(stretches), list(stretches.values())
