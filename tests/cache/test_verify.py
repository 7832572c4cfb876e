"""A check of all bytes that is interrupted goes on from there, and misses nothing."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import checked_parts
from pipeline.cache import content_check
from pipeline.cache.content_check import CheckedSegment, Segment
from pipeline.cache.folder import LocalFolder, read_manifest
from pipeline.cache.verify import Verification, take_up_parts, verify_cache
from tests.conftest import Capture, Run

DUMP = "data/cache/big-logits"
CHUNK = "data.zarr/logits/c/0/0/0"


class Interrupted(BaseException):
    """As Ctrl-C is: no Exception."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The segments that are checked, and whether they were skipped; files in pieces of 1,000 bytes."""
    seen: list[tuple[str, bool]] = []
    check = content_check._check_segment

    def note(folder: Any, records: Any, parts: Any, segment: Segment) -> CheckedSegment:
        found = check(folder, records, parts, segment)
        seen.append((segment.file, found.skipped))
        return found

    monkeypatch.setattr(content_check, "_check_segment", note)
    monkeypatch.setattr(content_check, "PIECE_BYTES", 100)
    monkeypatch.setattr(checked_parts, "NOTE_SECONDS", 0.0)
    return seen


def verify(folder: Path, *, stop_after: int | None = None, restart: bool = False) -> Verification:
    """A check that is interrupted after so many sound segments."""
    local = LocalFolder(folder)
    manifest = read_manifest(local, "")
    parts = take_up_parts(local, manifest, restart=restart)
    if parts and stop_after is not None:
        add, left = parts.add, [stop_after]

        def add_some(file: str, start: int, end: int) -> None:
            if not left[0]:
                raise Interrupted
            left[0] -= 1
            add(file, start, end)

        parts.add = add_some  # type: ignore[method-assign]
    return verify_cache(local, manifest, parts)


def interrupt(folder: Path, after: int) -> None:
    with pytest.raises(Interrupted):
        verify(folder, stop_after=after)


def test_an_interrupted_check_goes_on(read: list[tuple[str, bool]], copy_of: Path) -> None:
    assert verify(copy_of / DUMP).is_whole
    files = sorted(file for file, _ in read)
    interrupt(copy_of / DUMP, 3)
    read.clear()
    assert verify(copy_of / DUMP).is_whole
    assert sorted(file for file, _ in read) == files[3:]  # the others were whole
    read.clear()
    assert verify(copy_of / DUMP).is_whole  # it was finished: the next one begins anew
    assert sorted(file for file, _ in read) == files


def test_damage_before_the_interruption_is_found_again(read: list[tuple[str, bool]], copy_of: Path) -> None:
    for file, at in ((CHUNK, 77), ("card.md", 3)):
        data = bytearray((copy_of / DUMP / file).read_bytes())
        data[at] ^= 1
        (copy_of / DUMP / file).write_bytes(data)
    whole = verify(copy_of / DUMP)
    assert {each.file for each in whole.damage} == {CHUNK, "card.md"}
    for after in range(4):
        with suppress(Interrupted):
            verify(copy_of / DUMP, stop_after=after)
        assert verify(copy_of / DUMP) == whole


def test_a_file_that_was_touched_starts_anew(read: list[tuple[str, bool]], copy_of: Path) -> None:
    interrupt(copy_of / DUMP, 3)
    os.utime(copy_of / DUMP / "card.md")
    read.clear()
    assert verify(copy_of / DUMP).is_whole
    assert "card.md" in {file for file, _ in read}


def test_another_copy_at_the_same_place_starts_anew(read: list[tuple[str, bool]], copy_of: Path) -> None:
    interrupt(copy_of / DUMP, 3)
    shutil.copytree(copy_of / DUMP, copy_of / "other")
    shutil.rmtree(copy_of / DUMP)
    (copy_of / "other").rename(copy_of / DUMP)
    read.clear()
    assert verify(copy_of / DUMP).is_whole
    assert {file for file, _ in read} == set(read_manifest(LocalFolder(copy_of / DUMP), "").files)


def test_the_command_says_where_it_goes_on(
    read: list[tuple[str, bool]], run: Run, capsys: Capture, copy_of: Path
) -> None:
    interrupt(copy_of / DUMP, 3)
    capsys.readouterr()
    assert run(copy_of, "cache", "verify", DUMP) == 0
    told = capsys.readouterr().err
    assert "note:" in told
    assert "goes on from" in told
    assert "checked 0 minutes ago" in told
    interrupt(copy_of / DUMP, 3)
    capsys.readouterr()
    read.clear()
    assert run(copy_of, "cache", "verify", DUMP, "--restart") == 0
    assert capsys.readouterr().err == ""
    assert len(read) == len(read_manifest(LocalFolder(copy_of / DUMP), "").files)
