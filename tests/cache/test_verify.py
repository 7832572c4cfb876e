"""A check of all bytes that is interrupted goes on from there, and misses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pipeline import runs
from pipeline.base import checked_parts
from pipeline.cache import content_check
from pipeline.cache.chunk_grid import CRC_BYTES, RECORD_BYTES
from pipeline.cache.chunk_table import iterate_gaps
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.content_check import CheckedSegment, Segment
from pipeline.cache.folder import LocalFolder, RemoteFolder, read_manifest, read_table
from pipeline.cache.sample_check import draw_chunks
from pipeline.cache.verify import Verification, take_up_parts, verify_cache
from pipeline.runs.verification import CheckedCache
from tests.cache import test_urls
from tests.cache.test_urls import BLOCKS, VIEWS, forms
from tests.conftest import ROOT, Capture, Run
from tests.store_plans import cut_store

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


# ------------------------------------------------------------------ a sample

WHOLE = 1.0


def write(folder: Path, store: Format, codec: Codec) -> Path:
    """A cache with all chunks in one file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_urls, "cut_store", partial(cut_store, shard_blocks=BLOCKS, shard_views=VIEWS))
        return test_urls.write(folder, store, codec)


def look(cache: Path | str, share: float, seed: int = 0) -> CheckedCache:
    return runs.verify_cache(cache, sample=share, seed=seed)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The ranges that are read from URLs."""
    seen: list[tuple[str, int, int]] = []
    read = RemoteFolder.read_range

    def note(folder: RemoteFolder, file: str, start: int, end: int, fix: str) -> Any:
        seen.append((file, start, end))
        return read(folder, file, start, end, fix)

    monkeypatch.setattr(RemoteFolder, "read_range", note)
    return seen


@forms
def test_a_sample_says_what_it_did_not_see(tmp_path: Path, store: Format, codec: Codec) -> None:
    found = look(write(tmp_path, store, codec), 0.3)
    sampled = found.values["sampled"]
    assert found.values["whole"] is None
    assert found.found.is_whole
    assert sampled["all_chunks"] == VIEWS * BLOCKS > sampled["chunks"] >= 1
    assert sampled["bytes"] < sampled["all_bytes"]
    (line,) = found.text
    assert f"whole as far as was looked: {sampled['chunks']} of {VIEWS * BLOCKS} chunks" in str(line)
    assert "the rest was not read (--seed 0 " in str(line)
    found.refuse_damage()


@forms
def test_a_sample_finds_damage_where_it_looks_and_nowhere_else(tmp_path: Path, store: Format, codec: Codec) -> None:
    dump = write(tmp_path, store, codec)
    local = LocalFolder(dump)
    manifest = read_manifest(local, "")
    records = np.array(read_table(local, manifest, "").records)
    chosen = draw_chunks(records, 0.2, seed=5)
    assert 0 < chosen.sum() < len(chosen)
    for number, record in enumerate(records):
        file = dump / sorted(manifest.files)[record["file"]]
        before = file.read_bytes()
        flip(file, int(record["offset"]) + 3)
        found = look(dump, 0.2, seed=5)
        assert found.values["whole"] is (False if chosen[number] else None)
        assert len([line for line in found.values["problems"] if "damaged chunk" in line]) == chosen[number]
        file.write_bytes(before)


@forms
def test_a_sample_of_all_finds_any_flip(tmp_path: Path, store: Format, codec: Codec) -> None:
    dump = write(tmp_path, store, codec)
    assert look(dump, WHOLE).values["whole"] is True
    generator = np.random.default_rng(0)
    for name in read_manifest(LocalFolder(dump), "").files:
        before = (dump / name).read_bytes()
        places = {0, len(before) - 1, *generator.integers(0, len(before), 12).tolist()}
        for at in sorted(places):
            flip(dump / name, at)
            found = look(dump, WHOLE)
            assert found.values["whole"] is False, (name, at)
            assert {each.file for each in found.found.damage} == {name}
            (dump / name).write_bytes(before)


@forms
def test_a_sample_finds_any_flip_beside_chunks(tmp_path: Path, store: Format, codec: Codec) -> None:
    dump = write(tmp_path, store, codec)
    manifest = read_manifest(LocalFolder(dump), "")
    records = read_table(LocalFolder(dump), manifest, "").records
    for number, name in enumerate(sorted(manifest.files)):
        before = (dump / name).read_bytes()
        gaps = iterate_gaps(records[records["file"] == number], len(before))
        checksums = store == "zarr" and number in records["file"]
        for start, end in gaps:
            if checksums and end - start == CRC_BYTES:
                continue  # of a chunk that may not be looked at
            for at in {start, end - 1} if not checksums else {end - 1}:
                flip(dump / name, at)
                assert look(dump, 0.1).values["whole"] is False, (name, at)
                (dump / name).write_bytes(before)


@forms
def test_a_sample_of_a_url_reads_only_its_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Format, codec: Codec
) -> None:
    dump, url = write(tmp_path, store, codec), f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").put(str(dump), url, recursive=True)
    reads = count_reads(monkeypatch)
    found = look(url, 0.1)
    table = len(read_table(LocalFolder(dump), read_manifest(LocalFolder(dump), ""), "").records) * RECORD_BYTES
    sampled = found.values["sampled"]
    assert found.values["whole"] is None
    assert sampled["chunks"] < sampled["all_chunks"]
    # The table is read to know the places, before it is looked at.
    assert sum(end - start for _, start, end in reads) <= sampled["bytes"] + 2 * table
    assert look(url, WHOLE).values["whole"] is True
    damaged = next(each for each in reads if each[0] == "card.md")
    fsspec.filesystem("memory").pipe(f"{url}/{damaged[0]}", b"x" * damaged[2])
    assert look(url, 0.1).values["whole"] is False


def test_a_sample_is_no_check(read: list[tuple[str, bool]], copy_of: Path) -> None:
    interrupt(copy_of / DUMP, 3)
    notes = {path: path.read_bytes() for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()}
    read.clear()
    assert look(copy_of / DUMP, WHOLE).values["whole"] is True
    assert not any(skipped for _, skipped in read)
    assert {file for file, _ in read} == set(read_manifest(LocalFolder(copy_of / DUMP), "").files)
    after = {path: path.read_bytes() for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()}
    assert notes == after


def test_the_command_takes_a_sample(run: Run, capsys: Capture, copy_of: Path) -> None:
    assert run(copy_of, "cache", "verify", DUMP, "--sample", "1%", "--seed", "4", "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["whole"] is True  # its one chunk
    assert values["sampled"]["seed"] == 4
    flip(copy_of / DUMP / CHUNK, 77)
    assert run(copy_of, "cache", "verify", DUMP, "--sample", "0.01") == 2
    assert "damaged chunk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--sample", "0"), "--sample: expected a share"),
        (("--sample", "101%"), "--sample: expected a share"),
        (("--sample", "-1%"), "--sample: expected a share"),
        (("--sample", "nan"), "--sample: expected a share"),
        (("--sample", "x"), "--sample: expected a share"),
        (("--sample", "1%", "--restart"), "found --restart with it"),
        (("--sample", "1%", "--repair", "new"), "found --repair with it"),
        (("--seed", "1"), "--seed: expected --sample with it"),
    ],
)
def test_a_bad_sample_is_refused(run: Run, capsys: Capture, copy_of: Path, options: tuple[str, ...], told: str) -> None:
    assert run(copy_of, "cache", "verify", DUMP, *options) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


# ------------------------------------------------------------------ ended from outside


SLOW = """
import signal, sys, time
from pipeline.base import checked_parts
from pipeline.cache import content_check
signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
checked_parts.NOTE_SECONDS = 0.0
content_check.SEGMENT_BYTES = 64
check = content_check._check_segment
def slow(*args):
    if args[-1].start > 4000:
        time.sleep(1)  # the end comes here
    return check(*args)
content_check._check_segment = slow
from stages.main import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_check_that_is_ended_goes_on(
    run: Run, capsys: Capture, copy_of: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    dump = write(copy_of, "hdf5", "none")
    notes = Path(os.environ["XDG_CACHE_HOME"])
    before = set(notes.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "cache", "verify", str(dump)], cwd=copy_of, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not [path for path in set(notes.rglob("verifying/*")) - before if len(path.name) == 32]:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(60) != 0
    monkeypatch.setattr(content_check, "SEGMENT_BYTES", 64)
    assert run(copy_of, "cache", "verify", str(dump)) == 0
    shown = capsys.readouterr()
    assert "goes on from" in shown.err
    assert ": whole: " in shown.out
    flip(dump / "data.h5", 3000)
    assert run(copy_of, "cache", "verify", str(dump)) == 2
