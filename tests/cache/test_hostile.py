"""Hostile caches: their digests are all right, and what they say is wrong. Each is refused in one line.

`reseal` makes the digests right again after a cache was tampered with, so that nothing but the
check that a test is about stands between the cache and its reader.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import math
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from numcodecs import zstd
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.base.files import encode_json
from pipeline.cache import codecs, hdf5_store, writer
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.chunk_grid import NO_CHUNK, RECORD, SLOT, ChunkGrid
from pipeline.cache.chunk_table import iterate_gaps
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.crc import crc32c, crc_to_bytes
from pipeline.cache.damage import Damage, read_sound_table
from pipeline.cache.decoded_array import DecodedArray
from pipeline.cache.folder import LocalFolder, read_manifest, read_table
from pipeline.cache.manifest import MAX_CHUNKS
from pipeline.cache.shard_index import encode_shard_index
from pipeline.cache.verify import verify_cache
from pipeline.dumps.logits import round_logits
from tests.cache.test_cache import DESCRIPTION
from tests.conftest import ROOT
from tests.store_plans import cut_store

ROWS, CLASSES, CHUNK_ROWS = 70, 5, 32
CHUNK_BYTES = CHUNK_ROWS * CLASSES * 4
CHUNK = "data.zarr/logits/c/0/1/0"
MOST = 32 << 20  # bytes that a refusal may take
Entries = dict[str, Any]
Change = Callable[[Entries], object]
Records = NDArray[Any]
TableChange = Callable[[Records], object]


def values() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(1, ROWS, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Format, Codec], Path]:
    """A cache of each store and codec, never to be changed."""
    made: dict[tuple[Format, Codec], Path] = {}
    for store, names in codecs.CODECS.items():
        for codec in names:
            folder = tmp_path_factory.mktemp("sound") / "dump"
            plan = cut_store({"logits": ArrayPlan((CLASSES,), "float32", codec)}, 1, ROWS, CHUNK_ROWS)

            def compute(block: Block) -> dict[str, NDArray[Any]]:
                return {"logits": values()[block.view, block.start : block.stop]}

            writer.write_cache(folder, folder.parent / "work", plan, compute, store=store, description=DESCRIPTION)
            made[store, codec] = folder
    return made


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Zarr cache with two chunks a shard: the last shard has one, and an empty slot."""
    folder = tmp_path_factory.mktemp("packed") / "dump"
    plan = cut_store({"logits": ArrayPlan((CLASSES,), "float32", "none")}, 1, ROWS, 16, block_chunks=2)

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        return {"logits": values()[block.view, block.start : block.stop]}

    writer.write_cache(folder, folder.parent / "work", plan, compute, store="zarr", description=DESCRIPTION)
    return folder


Make = Callable[..., Path]


@pytest.fixture
def make(sound: dict[tuple[Format, Codec], Path], tmp_path: Path) -> Make:
    """A copy of a cache, to be tampered with."""

    def copy(store: Format = "zarr", codec: Codec = "none") -> Path:
        return Path(shutil.copytree(sound[store, codec], tmp_path / "dump"))

    return copy


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """A copy of a cache with packed shards, to be tampered with."""
    return Path(shutil.copytree(packed, tmp_path / "dump"))


def entries_of(folder: Path) -> Entries:
    made: Entries = json.loads((folder / "manifest.json").read_bytes())
    del made["root"]
    return made


def seal(folder: Path, entries: Entries, swap: tuple[bytes, bytes] | None = None) -> None:
    """Write a manifest with the right root digest, after one text was put in another's place."""

    def text(value: Entries) -> bytes:
        made = encode_json(value)
        assert swap is None or made.count(swap[0]) == 1
        return made.replace(*swap) if swap else made

    root = hashlib.sha256(text(entries)).hexdigest()
    (folder / "manifest.json").write_bytes(text({**entries, "root": root}))


def records_of(folder: Path) -> Records:
    return np.fromfile(folder / "chunks.bin", RECORD)


def reseal(folder: Path, change: Change = lambda _: None, *, table: TableChange = lambda _: None) -> None:
    """Make every digest and size right, as the files lie there now; then change the chunk table and the manifest's
    entries, and seal them.

    Args:
        folder: of the cache.
        change: of the manifest's entries.
        table: a change of the chunk table's records.
    """
    entries, records = entries_of(folder), records_of(folder)
    names = sorted(entries["files"])
    for record in records:
        if record["file"] < len(names) and (folder / names[record["file"]]).is_file():
            data = (folder / names[record["file"]]).read_bytes()[int(record["offset"]) :][: int(record["bytes"])]
            record["crc32c"] = crc32c(np.frombuffer(data, np.uint8))
            record["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    for number, name in enumerate(names):
        if (folder / name).is_file():
            data, mine = (folder / name).read_bytes(), records[records["file"] == number]
            # Of chunks that overlap, or lie outside, there is no right one.
            gaps = b"".join(data[start:end] for start, end in iterate_gaps(mine, len(data)))
            entries["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(gaps).hexdigest()}
    table(records)
    put_table(folder, entries, records.tobytes())
    change(entries)
    seal(folder, entries)


def put_table(folder: Path, entries: Entries, data: bytes) -> None:
    """Other bytes for the chunk table, with the right digest."""
    (folder / "chunks.bin").write_bytes(data)
    entries["files"]["chunks.bin"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def put_payload(folder: Path, payload: bytes) -> None:
    """Another chunk in the shard `CHUNK`, which has just the one, and its bytes in the table; without their digests."""
    grid = ChunkGrid(1, ROWS, CHUNK_ROWS, (1, CHUNK_ROWS))
    sum_ = crc_to_bytes(crc32c(np.frombuffer(payload, np.uint8)))
    (folder / CHUNK).write_bytes(
        payload + sum_ + encode_shard_index(math.prod(grid.slots), np.array([0]), np.array([len(payload)]))
    )
    records = records_of(folder)
    records["bytes"][1] = len(payload)
    records.tofile(folder / "chunks.bin")


OPENED: list[str] | None = None


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is not None and event == "open" and isinstance(arguments[0], str | bytes):
        OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note_opened)


def refusal(folder: Path, *, read: bool = False, most: int = MOST) -> str:
    """How a cache is refused: in one printable line, at once, with little memory, without a look elsewhere.

    Args:
        folder: of the cache.
        read: it opens, and refuses when its rows are read.
        most: bytes that this may take.
    """
    global OPENED  # noqa: PLW0603 - an audit hook cannot be taken away
    OPENED = []
    opened = cache.open(folder) if read else None
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            opened.load() if opened else cache.open(folder)
        if opened:
            with pytest.raises(InputError):
                opened.rows(np.arange(ROWS))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        names, OPENED = OPENED, None
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 2100  # names of any length are cut
    assert peak < most, peak
    assert not [name for name in names if "elsewhere" in name or "passwd" in name]
    return text


def test_a_resealed_cache_is_a_sound_one(make: Make) -> None:
    for number, (store, names) in enumerate(codecs.CODECS.items()):
        for codec in names:
            folder = make(store, codec)
            before = (folder / "manifest.json").read_bytes()
            reseal(folder)
            assert (folder / "manifest.json").read_bytes() == before
            assert np.array_equal(cache.open(folder).load(), values())
            shutil.rmtree(folder)
        assert number < 2


def test_a_resealed_cache_of_packed_shards_is_a_sound_one(shards: Path) -> None:
    before = (shards / "manifest.json").read_bytes()
    reseal(shards)
    assert (shards / "manifest.json").read_bytes() == before
    assert np.array_equal(cache.open(shards).load(), values())


def cases(table: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Rows as parameters; the first of each is its name."""
    return [pytest.param(*row[1:], id=row[0]) for row in table]


# Manifests whose root digest is right.


def logits(entries: Entries) -> Entries:
    found: Entries = entries["arrays"]["logits"]
    return found


def renamed(name: str) -> Change:
    """The array under another name, with the paths that such a name gives."""

    def change(entries: Entries) -> None:
        entries["arrays"][name] = entries["arrays"].pop("logits")
        entries["files"] = {old.replace("/logits/", f"/{name}/"): info for old, info in entries["files"].items()}

    return change


def moved(name: str) -> Change:
    """A shard in another file, which is listed with its right digest."""

    def change(entries: Entries) -> None:
        entries["files"][name] = entries["files"].pop(CHUNK)

    return change


def rows(count: Any) -> Change:
    def change(entries: Entries) -> None:
        entries.update(rows=count)
        entries["dataset"].update(samples=count)
        logits(entries)["shape"][1] = count

    return change


def drop_shards(entries: Entries) -> None:
    """List the first shard alone."""
    for number in (1, 2):
        del entries["files"][f"data.zarr/logits/c/0/{number}/0"]


def one_shard(count: int, chunk_rows: int = CHUNK_ROWS) -> Change:
    """So many rows, all of them claimed to lie in one shard."""

    def change(entries: Entries) -> None:
        rows(count)(entries)
        drop_shards(entries)
        logits(entries).update(chunk_rows=chunk_rows, shard=[1, -(-count // chunk_rows) * chunk_rows])

    return change


def many_views(count: int, shard: int) -> Change:
    def change(entries: Entries) -> None:
        entries["views"].update(count=count)
        drop_shards(entries)
        logits(entries).update(shape=[count, ROWS, CLASSES], shard=[shard, 96])

    return change


def many_arrays(entries: Entries) -> None:
    """A thousand arrays that claim a thousand shards each, in a manifest of some hundred kilobytes."""
    rows(1000)(entries)
    array = {**logits(entries), "shape": [1, 1000, CLASSES], "chunk_rows": 1, "shard": [1, 1]}
    entries["arrays"] = {f"a{number:03}": array for number in range(1000)}


def cut(chunk_rows: Any, shard: Any) -> Change:
    return lambda entries: logits(entries).update(chunk_rows=chunk_rows, shard=shard)


SHARD = "arrays.logits.shard: expected whole chunks, at most those that it has, found "
MANIFESTS: list[tuple[str, Change, str]] = [
    ("2^40 rows", rows(1 << 40), "arrays.logits.shard: expected at most 1000 shards"),
    ("2^40 rows in one shard", one_shard(1 << 40), f"files.chunks.bin: expected {56 << 35} bytes, of {1 << 35} chunks, found 168"),
    ("2^48 chunks in one shard", one_shard(1 << 48, 1), f"files.chunks.bin: expected {56 << 48} bytes, of {1 << 48} chunks, found 168"),
    ("2^40 rows in one chunk", one_shard(1 << 40, 1 << 40), "arrays.logits.chunk_rows: expected at most"),
    ("2^62 rows", rows(1 << 62), "less than or equal to"),
    ("2^64 rows", rows(1 << 64), "less than or equal to"),
    ("no rows", rows(0), "greater than or equal to 1"),
    ("fewer than no rows", rows(-70), "greater than or equal to 1"),
    ("float rows", rows(70.0), "valid integer"),
    ("text rows", rows("70"), "valid integer"),
    ("true rows", rows(True), "valid integer"),
    ("null rows", rows(None), "valid integer"),
    ("rows of another shape", lambda m: m.update(rows=69), "arrays.logits.shape: expected to begin with [1, 69]"),
    ("more rows than samples", lambda m: m["dataset"].update(samples=69), "expected at most the 69 samples, found 70"),
    ("chunk of no rows", lambda m: logits(m).update(chunk_rows=0), "chunk_rows: Input should be greater than"),
    ("chunk of -1 rows", lambda m: logits(m).update(chunk_rows=-1), "chunk_rows: Input should be greater than"),
    ("chunk of 2^40 rows", lambda m: logits(m).update(chunk_rows=1 << 40), "arrays.logits.chunk_rows: expected at most 70"),
    ("chunk of 71 rows", lambda m: logits(m).update(chunk_rows=71), "arrays.logits.chunk_rows: expected at most 70"),
    ("chunk of 35 rows", lambda m: logits(m).update(chunk_rows=35), SHARD),
    ("chunk and shard of 35 rows", cut(35, [1, 35]), "found 'data.zarr/logits/c/0/2/0' besides"),
    ("chunk and shard of 33 rows", cut(33, [1, 33]), f"bytes 0 to 640 of '{CHUNK.replace('1/0', '0/0')}' are not its place"),
    ("chunk of a row", cut(1, [1, 32]), "files.chunks.bin: expected 3920 bytes, of 70 chunks, found 168"),
    ("chunk of 16 rows", cut(16, [1, 32]), "files.chunks.bin: expected 280 bytes, of 5 chunks, found 168"),
    ("shard of 33 rows", cut(32, [1, 33]), SHARD + "[1, 33]"),
    ("shard of 31 rows", cut(32, [1, 31]), SHARD + "[1, 31]"),
    ("shard of 64 rows", cut(32, [1, 64]), "found 'data.zarr/logits/c/0/2/0' besides"),
    ("shard of 128 rows", cut(32, [1, 128]), SHARD + "[1, 128]"),
    ("shard of 2^48 rows", cut(32, [1, 1 << 48]), SHARD),
    ("shard of 2^64 rows", cut(32, [1, 1 << 64]), "arrays.logits.shard"),
    ("shard of 2 views", cut(32, [2, 32]), SHARD + "[2, 32]"),
    ("shard of 2^48 views", cut(32, [1 << 48, 32]), SHARD),
    ("shard of no views", cut(32, [0, 32]), "arrays.logits.shard"),
    ("shard of no rows", cut(32, [1, 0]), "arrays.logits.shard"),
    ("shard of -32 rows", cut(32, [1, -32]), "arrays.logits.shard"),
    ("shard of 32.0 rows", cut(32, [1, 32.0]), "arrays.logits.shard"),
    ("shard of true views", cut(32, [True, 32]), "arrays.logits.shard"),
    ("shard of one axis", cut(32, [32]), "arrays.logits.shard"),
    ("shard of three axes", cut(32, [1, 32, CLASSES]), "arrays.logits.shard"),
    ("shard of no list", cut(32, 32), "arrays.logits.shard"),
    ("null shard", cut(32, None), "arrays.logits.shard: expected one in zarr alone, found None in zarr"),
    ("no shard", lambda m: logits(m).pop("shard"), "arrays.logits.shard: Field required"),
    ("row of 2^40", lambda m: logits(m).update(shape=[1, ROWS, 1 << 40]), "1 GiB a chunk"),
    ("row of 2^48 x 15", lambda m: logits(m).update(shape=[1, ROWS, *[1 << 48] * 14]), "1 GiB a chunk"),
    ("product of 2^64", lambda m: logits(m).update(shape=[1, ROWS, *[1 << 16] * 4]), "1 GiB a chunk"),
    ("17 axes", lambda m: logits(m).update(shape=[1, ROWS, *[1] * 15]), "at most 16 items"),
    ("1 axis", lambda m: logits(m).update(shape=[1]), "at least 2 items"),
    ("2^40 views", many_views(1 << 40, 1), "arrays.logits.shard: expected at most 1000 shards"),
    ("2^40 views in one shard", many_views(1 << 40, 1 << 40), f"files.chunks.bin: expected {(3 * 56) << 40} bytes"),
    ("more chunks than any cache", one_shard(MAX_CHUNKS + 1, 1), f"of {MAX_CHUNKS + 1} chunks"),
    ("1,000,000 shards", many_arrays, "files: expected those of its arrays, found "),
    ("views of another count", lambda m: m["views"].update(count=2), "expected to begin with [2, 70]"),
    ("other axes", lambda m: m.update(axes="sample, view"), "axes"),
    ("another row", lambda m: logits(m).update(shape=[1, ROWS, CLASSES + 1]), "are not its place"),
    ("another dtype", lambda m: logits(m).update(dtype="float16"), "are not its place"),
    ("object dtype", lambda m: logits(m).update(dtype="object"), "arrays.logits.dtype"),
    ("pickled dtype", lambda m: logits(m).update(dtype="|O"), "arrays.logits.dtype"),
    ("unknown codec", lambda m: logits(m).update(codec="blosc"), "arrays.logits.codec"),
    ("unknown store", lambda m: m.update(store="npy"), "store"),
    ("no arrays", lambda m: m.update(arrays={}), "arrays: "),
    ("short digest", lambda m: m["files"][CHUNK].update(sha256="ab"), f"files.{CHUNK}.sha256"),
    ("digest with a line end", lambda m: m["files"][CHUNK].update(sha256="ab" * 32 + "\n"), f"files.{CHUNK}.sha256"),
    ("file of 2^70 bytes", lambda m: m["files"][CHUNK].update(bytes=1 << 70), f"files.{CHUNK}.bytes"),
    ("file of 0.5 bytes", lambda m: m["files"][CHUNK].update(bytes=0.5), f"files.{CHUNK}.bytes"),
    ("file of -1 bytes", lambda m: m["files"]["card.md"].update(bytes=-1), "files.card.md.bytes"),
    ("shard too long", lambda m: m["files"][CHUNK].update(bytes=665), f"file {CHUNK}: expected 665 bytes, found 664"),
    ("shard too short", lambda m: m["files"][CHUNK].update(bytes=663), f"file {CHUNK}: expected 663 bytes, found 664"),
    ("table too long", lambda m: m["files"]["chunks.bin"].update(bytes=224), "files.chunks.bin: expected 168 bytes, of 3 chunks, found 224"),
    ("table too short", lambda m: m["files"]["chunks.bin"].update(bytes=167), "files.chunks.bin: expected 168 bytes, of 3 chunks, found 167"),
    ("table of another digest", lambda m: m["files"]["chunks.bin"].update(sha256="ab" * 32), "file chunks.bin: expected the chunk table that was sealed"),
    ("an unlisted table", lambda m: m["files"].pop("chunks.bin"), "found 'chunks.bin' besides"),
    ("shard of another digest", lambda m: m["files"][CHUNK].update(sha256="ab" * 32), f"file {CHUNK}: expected its sealed bytes"),
    ("card of another size", lambda m: m["files"]["card.md"].update(bytes=1 << 30), f"file card.md: expected {1 << 30} bytes"),
    ("card of 2^40 bytes", lambda m: m["files"]["card.md"].update(bytes=1 << 40), "files.card.md: expected at most 1 GiB"),
    ("zarr.json of 2^40 bytes", lambda m: m["files"]["data.zarr/zarr.json"].update(bytes=1 << 40), "files.data.zarr/zarr.json: expected at most 1 GiB"),
    ("card of another digest", lambda m: m["files"]["card.md"].update(sha256="ab" * 32), "file card.md: expected its sealed bytes"),
    ("an unlisted shard", lambda m: m["files"].pop(CHUNK), f"found '{CHUNK}' besides"),
    ("an unlisted card", lambda m: m["files"].pop("card.md"), "found 'card.md' besides"),
    ("a file too many", lambda m: m["files"].update(x=m["files"]["card.md"]), "found 'x' besides"),
    ("the manifest lists itself", lambda m: m["files"].update({"manifest.json": m["files"]["card.md"]}), "'manifest.json' besides"),
    ("../../etc/passwd", moved("../../../../../../../../etc/passwd"), "etc/passwd' besides"),
    ("/etc/passwd", moved("/etc/passwd"), "'/etc/passwd' besides"),
    ("file:///etc/passwd", moved("file:///etc/passwd"), "' besides"),
    ("data.zarr/../elsewhere", moved("data.zarr/../elsewhere"), "' besides"),
    ("no file name", moved(""), "'' besides"),
    ("a dot", moved("."), "'.' besides"),
    ("a doubled slash", moved(CHUNK.replace("/c/", "//c/")), "' besides"),
    ("a zero byte", moved("data.zarr/\0"), "' besides"),
    ("backslashes", moved("data.zarr\\logits"), "' besides"),
    ("array ../x", renamed("../x"), "arrays.../x"),
    ("array a/b", renamed("a/b"), "arrays.a/b"),
    ("array ..", renamed(".."), "arrays..."),
    ("array .", renamed("."), "arrays.."),
    ("array of no name", renamed(""), "arrays."),
    ("array /etc", renamed("/etc"), "arrays./etc"),
    ("array with a zero byte", renamed("a\0b"), "arrays.a\0b"),
    ("array with a line end", renamed("logits\n"), "arrays.logits"),
    ("array of a Greek name", renamed("\u03bb"), "arrays.\u03bb"),
    ("array of Arabic digits", renamed("a\u0663"), "arrays.a\u0663"),
    ("array with an escape", renamed("a\x1b[2J"), "arrays.a"),
    ("array of 101 letters", renamed("a" * 101), "arrays.aaa"),
    ("array zarr.json", renamed("zarr.json"), "file "),
    ("no field", lambda m: m.pop("field"), "field: Field required"),
    ("extra entry", lambda m: m.update(extra=1), "extra: unknown entry"),
    ("extra in an array", lambda m: logits(m).update(url="http://localhost/"), "arrays.logits.url: unknown entry"),
    ("blocks, as once", lambda m: logits(m).update(blocks=[]), "arrays.logits.blocks: unknown entry"),
    ("extra in a file", lambda m: m["files"][CHUNK].update(url="http://localhost/"), f"files.{CHUNK}.url: unknown entry"),
    ("a list", lambda m: m.update(arrays=[]), "arrays: "),
    ("accuracy in words", lambda m: m["teacher"].update(test_accuracy="nan"), "teacher.test_accuracy"),
    ("another format", lambda m: m.update(format="pickle"), "format: "),
    ("version true", lambda m: m.update(version=True), "version: "),
    ("version 3.0", lambda m: m.update(version=3.0), "a manifest changed since"),
    ("version of 20 digits", lambda m: m.update(version=10**19), "version: "),
    ("version -1", lambda m: m.update(version=-1), "version: "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part"), cases(MANIFESTS))
def test_a_hostile_manifest_is_refused(make: Make, change: Change, part: str) -> None:
    folder = make()
    reseal(folder, change)
    assert part in refusal(folder)


def put(key: str, number: int, value: Any) -> TableChange:
    """Another number in a record; a function is given the old one."""

    def change(records: Records) -> None:
        records[key][number] = value(records[key][number]) if callable(value) else value

    return change


def exchange(records: Records) -> None:
    records[:] = records[::-1].copy()


CARD, TABLE, GROUP = 0, 1, 5  # numbers of files; the shards are 2, 3, 4
TABLES: list[tuple[str, TableChange, str]] = [
    ("chunks exchanged", exchange, "are not its place"),
    ("all alike", lambda r: r.__setitem__(slice(None), r[1]), "are not its place"),
    ("zeros", lambda r: r.__setitem__(slice(None), np.zeros(3, RECORD)), "are not its place"),
    ("two chunks in one file", put("file", 0, 3), f"bytes 0 to 640 of '{CHUNK}' are not its place"),
    ("offset beyond the file", put("offset", 1, 1 << 40), "are not its place"),
    ("offset of 4", put("offset", 1, 4), f"bytes 4 to 644 of '{CHUNK}' are not its place"),
    ("offset of 2^63", put("offset", 1, 1 << 63), "are not its place"),
    ("offset of -1", put("offset", 1, (1 << 64) - 1), "are not its place"),
    ("offset that wraps round", put("offset", 1, (1 << 64) - 640), "are not its place"),
    ("chunk of no bytes", put("bytes", 1, 0), "are not its place"),
    ("chunk of 639 bytes", put("bytes", 1, 639), "are not its place"),
    ("chunk with its checksum", put("bytes", 1, 644), "are not its place"),
    ("chunk of 2^40 bytes", put("bytes", 1, 1 << 40), "are not its place"),
    ("chunk of 2^64 - 1 bytes", put("bytes", 1, (1 << 64) - 1), "are not its place"),
    ("in the card", put("file", 1, CARD), "of 'card.md' are not its place"),
    ("in the table itself", put("file", 1, TABLE), "of 'chunks.bin' are not its place"),
    ("in metadata", put("file", 1, GROUP), "are not its place"),
    ("in a file beyond the last", put("file", 1, 7), "of a file 7 that is not listed are not its place"),
    ("in a file 2^32 - 1", put("file", 1, (1 << 32) - 1), f"of a file {(1 << 32) - 1} that is not listed"),
    ("another digest", put("sha256", 1, 0), f"file {CHUNK}: expected its sealed bytes, found another SHA-256 (view 0, rows 32 to 63"),
    ("another checksum", put("crc32c", 1, 0), f"{CHUNK}: expected the index of its chunks, found another"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "part"), cases(TABLES))
def test_a_hostile_chunk_table_is_refused(make: Make, table: TableChange, part: str) -> None:
    folder = make()
    assert sorted(entries_of(folder)["files"])[:5] == [
        "card.md", "chunks.bin", *(f"data.zarr/logits/c/0/{number}/0" for number in range(3)),
    ]  # fmt: skip
    reseal(folder, table=table)
    assert part in refusal(folder)
    found = verify_cache(LocalFolder(folder), read_manifest(LocalFolder(folder), ""))
    assert part.partition(" (")[0].removeprefix("file ") in str(InputError(" ".join(found.lines())))


LENGTHS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("nothing", lambda data: b""),
    ("half a record", lambda data: data[:28]),
    ("a record less", lambda data: data[:-56]),
    ("a byte less", lambda data: data[:-1]),
    ("a byte more", lambda data: data + b"\0"),
    ("a record twice", lambda data: data + data[-56:]),
    ("a megabyte more", lambda data: data + bytes(1 << 20)),
]


@pytest.fixture
def distant() -> Iterator[Callable[[Path], str]]:
    """Puts a cache at a URL."""
    system = fsspec.filesystem("memory")

    def put_there(folder: Path) -> str:
        system.put(f"{folder}/", "/hostile", recursive=True)
        return "memory://hostile"

    yield put_there
    system.rm("/hostile", recursive=True)


@pytest.mark.parametrize(("table", "part"), cases(TABLES))
def test_a_hostile_chunk_table_is_refused_over_a_url(
    make: Make, distant: Callable[[Path], str], table: TableChange, part: str
) -> None:
    folder = make()
    reseal(folder, table=table)
    url = distant(folder)
    if "are not its place" in part or "not listed" in part:
        with pytest.raises(InputError) as caught:
            cache.open(url)
        assert part in str(caught.value)
    elif "SHA-256" in part:
        with pytest.raises(InputError, match="of another SHA-256"):
            cache.open(url).load()
    else:  # the checksum, which only a local copy is read by
        assert np.array_equal(cache.open(url).load(), values())


@pytest.mark.parametrize("change", cases(LENGTHS))
def test_a_chunk_table_of_another_length_is_refused_over_a_url(
    make: Make, distant: Callable[[Path], str], change: Callable[[bytes], bytes]
) -> None:
    folder = make()
    data, entries = change((folder / "chunks.bin").read_bytes()), entries_of(folder)
    put_table(folder, entries, data)
    entries["files"]["chunks.bin"]["bytes"] = 168
    seal(folder, entries)
    with pytest.raises(InputError, match=f"file chunks.bin: expected 168 bytes, found {len(data)}"):
        cache.open(distant(folder))


def test_a_server_that_tells_no_sizes_is_not_believed(
    make: Make, distant: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make()
    data, entries = (folder / "chunks.bin").read_bytes(), entries_of(folder)
    put_table(folder, entries, data[:-56])
    entries["files"]["chunks.bin"]["bytes"] = 168
    seal(folder, entries)
    url = distant(folder)
    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "info", lambda *_, **__: {})
        with pytest.raises(InputError, match=r"file chunks.bin: expected the chunk table that was sealed, found 112"):
            cache.open(url)


@pytest.mark.parametrize("codec", ["none", "zstd", "gzip"])
@pytest.mark.parametrize("key", ["offset", "bytes", "file"])
def test_every_bit_of_a_place_is_looked_at(make: Make, codec: Codec, key: str) -> None:
    folder = make("zarr", codec)
    before = records_of(folder)
    for bit in range(RECORD[key].itemsize * 8):
        records = before.copy()
        records[key][1] ^= records[key].dtype.type(1 << bit)
        entries = entries_of(folder)
        put_table(folder, entries, records.tobytes())
        seal(folder, entries)
        assert isinstance(read_sound_table(LocalFolder(folder), read_manifest(LocalFolder(folder), "")), Damage), bit


@pytest.mark.parametrize("change", cases(LENGTHS))
def test_a_chunk_table_of_another_length_is_refused(make: Make, change: Callable[[bytes], bytes]) -> None:
    folder = make()
    data, entries = change((folder / "chunks.bin").read_bytes()), entries_of(folder)
    put_table(folder, entries, data)
    seal(folder, entries)
    assert f"files.chunks.bin: expected 168 bytes, of 3 chunks, found {len(data)}" in refusal(folder)
    entries["files"]["chunks.bin"]["bytes"] = 168
    seal(folder, entries)
    words = refusal(folder)
    assert f"file chunks.bin: expected 168 bytes, found {len(data)}" in words


def test_a_chunk_table_of_terabytes_is_refused_unread(make: Make) -> None:
    folder = make()
    os.truncate(folder / "chunks.bin", 1 << 42)
    reseal_size = entries_of(folder)
    assert "file chunks.bin: expected 168 bytes" in refusal(folder)
    reseal_size["files"]["chunks.bin"]["bytes"] = 1 << 42
    seal(folder, reseal_size)
    assert "files.chunks.bin: expected 168 bytes" in refusal(folder)


def test_a_million_claims_take_no_more_than_their_table(make: Make) -> None:
    folder, count = make(), 1 << 20
    entries = entries_of(folder)
    one_shard(count, 1)(entries)
    with (folder / "chunks.bin").open("wb") as file:
        file.truncate(count * 56)
    digest = hashlib.sha256(bytes(count * 56)).hexdigest()
    entries["files"]["chunks.bin"] = {"bytes": count * 56, "sha256": digest}
    for shard in (1, 2):
        shutil.rmtree(folder / f"data.zarr/logits/c/0/{shard}")
    seal(folder, entries)
    assert "are not its place" in refusal(folder, most=count * 56)


# Shards whose digests are right, and whose index or checksums say something else than the table.


def index_of(data: bytes) -> NDArray[Any]:
    return np.frombuffer(data[-36:-4], SLOT).copy()


def with_index(data: bytes, index: NDArray[Any]) -> bytes:
    raw = index.tobytes()
    return data[:-36] + raw + crc_to_bytes(crc32c(np.frombuffer(raw, np.uint8)))


def slot(number: int, offset: int, size: int) -> Callable[[bytes], bytes]:
    """Another place of one of a shard's chunks."""

    def change(data: bytes) -> bytes:
        index = index_of(data)
        index[number] = offset, size
        return with_index(data, index)

    return change


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


FIRST, LAST = "data.zarr/logits/c/0/0/0", "data.zarr/logits/c/0/2/0"  # two chunks, and one
INDEX = "expected the index of its chunks, found another"
INDICES: list[tuple[str, str, Callable[[bytes], bytes], str]] = [
    ("slots exchanged", FIRST, lambda d: with_index(d, index_of(d)[::-1]), INDEX),
    ("a slot at another chunk", FIRST, slot(1, 0, 324), INDEX),
    ("a slot within a chunk", FIRST, slot(1, 4, 324), INDEX),
    ("a slot beyond the shard", FIRST, slot(1, 1 << 40, 324), INDEX),
    ("a slot over the index", FIRST, slot(1, 360, 324), INDEX),
    ("a slot of 2^40 bytes", FIRST, slot(1, 324, 1 << 40), INDEX),
    ("a slot of no bytes", FIRST, slot(1, 324, 0), INDEX),
    ("a slot without its checksum", FIRST, slot(1, 324, 320), INDEX),
    ("a slot that is half empty", FIRST, slot(1, NO_CHUNK, 324), INDEX),
    ("a chunk that is said to be missing", FIRST, slot(1, NO_CHUNK, NO_CHUNK), INDEX),
    ("a chunk beyond the edge", LAST, slot(1, 0, 324), INDEX),
    ("zeros in the empty slot", LAST, slot(1, 0, 0), INDEX),
    ("an index of zeros", FIRST, lambda d: with_index(d, np.zeros(2, SLOT)), INDEX),
    ("a big-endian index", FIRST, lambda d: with_index(d, np.frombuffer(index_of(d).view("<u8").byteswap().tobytes(), SLOT)), INDEX),
    ("another checksum of the index", FIRST, flip(683), INDEX),
    ("another checksum of the first chunk", FIRST, flip(321), INDEX),
    ("another checksum of the last chunk", FIRST, flip(647), INDEX),
    ("checksums exchanged", FIRST, lambda d: d[:320] + d[644:648] + d[324:644] + d[320:324] + d[648:], INDEX),
    ("no index", FIRST, lambda d: d[:-36], "are not its place"),
    ("half an index", FIRST, lambda d: d[:-20], "are not its place"),
    ("an index of a slot", FIRST, lambda d: d[:-36] + d[-20:], "are not its place"),
    ("an index of three slots", FIRST, lambda d: d[:-4] + d[-20:], "are not its place"),
    ("the index first", FIRST, lambda d: d[-36:] + d[:-36], INDEX),
    ("cut by a byte", FIRST, lambda d: d[:-1], "are not its place"),
    ("a byte more", FIRST, lambda d: d + b"\0", "are not its place"),
    ("a byte before the index", FIRST, lambda d: d[:-36] + b"\0" + d[-36:], "are not its place"),
    ("nothing", FIRST, lambda d: b"", "are not its place"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "part"), cases(INDICES))
def test_a_shard_that_says_something_else_than_the_table_is_refused(
    shards: Path, file: str, change: Callable[[bytes], bytes], part: str
) -> None:
    before = (shards / file).read_bytes()
    (shards / file).write_bytes(change(before))
    assert (shards / file).read_bytes() != before
    reseal(shards)
    assert part in refusal(shards)


def swap_chunks(folder: Path) -> None:
    """The two chunks of a shard in another order, with an index and a table that say so."""
    data = (folder / FIRST).read_bytes()
    index = index_of(data)[::-1]
    (folder / FIRST).write_bytes(with_index(data[324:648] + data[:324] + data[-36:], index))
    records = records_of(folder)
    records["offset"][:2] = 324, 0
    records.tofile(folder / "chunks.bin")


def spread_chunks(folder: Path) -> None:
    """A gap between the two chunks of a shard, with an index and a table that say so."""
    data = (folder / FIRST).read_bytes()
    index = index_of(data)
    index["offset"][1] = 334
    (folder / FIRST).write_bytes(with_index(data[:324] + bytes(10) + data[324:], index))
    records = records_of(folder)
    records["offset"][1] = 334
    records.tofile(folder / "chunks.bin")


def share_chunk(folder: Path) -> None:
    """Both slots at one chunk, as an index and a table say."""
    data = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(slot(1, 0, 324)(data))
    records = records_of(folder)
    records["offset"][1] = 0
    records.tofile(folder / "chunks.bin")


@pytest.mark.parametrize("change", [swap_chunks, spread_chunks, share_chunk])
def test_chunks_in_another_order_than_their_slots_are_refused(shards: Path, change: Callable[[Path], None]) -> None:
    change(shards)
    reseal(shards)
    assert "are not its place" in refusal(shards)


def test_what_a_library_reads_by_another_index_is_not_what_we_read(shards: Path) -> None:
    data = (shards / FIRST).read_bytes()
    (shards / FIRST).write_bytes(with_index(data, index_of(data)[::-1]))
    reseal(shards)
    read = np.asarray(zarr.open_array(shards / "data.zarr/logits", mode="r")[...])
    assert np.array_equal(read[0, :16], values()[0, 16:32])
    assert INDEX in refusal(shards)


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_checksum_that_no_chunk_has_is_refused_when_it_is_read(make: Make, store: Format, codec: Codec) -> None:
    """The one number of a re-sealed cache that only a read looks at."""
    folder = make(store, codec)
    size = int(records_of(folder)["bytes"][1])
    if store == "zarr":
        (folder / CHUNK).write_bytes(flip(size)((folder / CHUNK).read_bytes()))
    reseal(folder, table=put("crc32c", 1, lambda crc: crc ^ 1))
    assert "expected the chunk that was sealed, found another CRC-32C" in refusal(folder, read=True)


def over(name: str) -> Change:
    """An HDF5 store in another file than the one there is."""

    def change(entries: Entries) -> None:
        entries["files"][name] = entries["files"].pop("data.h5")

    return change


HDF5_MANIFESTS: list[tuple[str, Codec, Change, str]] = [
    ("another file", "none", over("../elsewhere.h5"), "besides"),
    ("/etc/passwd", "none", over("/etc/passwd"), "besides"),
    ("a shard", "none", lambda m: logits(m).update(shard=[1, 96]), "arrays.logits.shard: expected one in zarr alone, found [1, 96] in hdf5"),
    ("a shard of all", "none", lambda m: logits(m).update(shard=[1, ROWS]), "arrays.logits.shard: expected one in zarr alone"),
    ("a huge shard", "none", lambda m: logits(m).update(shard=[1 << 48, 1 << 48]), "arrays.logits.shard: expected one in zarr alone"),
    ("2^40 rows", "none", rows(1 << 40), f"files.chunks.bin: expected {56 << 35} bytes, of {1 << 35} chunks, found 168"),
    ("2^40 views", "none", lambda m: (logits(m).update(shape=[1 << 40, ROWS, CLASSES]), m["views"].update(count=1 << 40)), "files.chunks.bin: expected"),
    ("1,000 arrays", "none", lambda m: m.update(arrays={f"a{number}": logits(m) for number in range(1000)}), "of 3000 chunks, found 168"),
    ("zstd", "none", lambda m: logits(m).update(codec="zstd"), "hdf5 has no zstd"),
    ("gzip of what is not", "none", lambda m: logits(m).update(codec="gzip"), "array 'logits': another layout"),
    ("another type of as many bytes", "none", lambda m: logits(m).update(dtype="int32"), "another dtype"),
    ("another shape of as many bytes", "none", lambda m: logits(m).update(shape=[1, ROWS, CLASSES, 1]), "another shape"),
    ("another array's name", "none", lambda m: m["arrays"].update(x=m["arrays"].pop("logits")), "besides the manifest's arrays"),
    ("an array more", "none", lambda m: m["arrays"].update(x=logits(m)), "files.chunks.bin: expected 336 bytes"),
    ("none of what is gzip", "gzip", lambda m: logits(m).update(codec="none"), "are not its place"),
    ("another chunk", "gzip", lambda m: logits(m).update(chunk_rows=34), "another chunks"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "change", "part"), cases(HDF5_MANIFESTS))
def test_a_hostile_manifest_of_an_hdf5_cache_is_refused(make: Make, codec: Codec, change: Change, part: str) -> None:
    folder = make("hdf5", codec)
    reseal(folder, change)
    assert part in refusal(folder)


H5 = 2  # the number of the file
SHARED = "expected the place of each chunk, found chunks that share bytes"
HDF5_TABLES: list[tuple[str, Codec, TableChange, str]] = [
    ("chunks exchanged", "none", exchange, "are not its place"),
    ("overlapping chunks", "none", lambda r: put("offset", 1, int(r["offset"][0]))(r), SHARED),
    ("offset + 4", "none", put("offset", 1, lambda o: o + 4), SHARED),
    ("offset of the header", "none", put("offset", 1, 0), "rows 32 to 63 at another place"),
    ("last chunk in metadata", "none", put("offset", 2, 48), "rows 64 to 69 at another place"),
    ("first chunk - 1", "none", put("offset", 0, lambda o: o - 1), "rows 0 to 31 at another place"),
    ("offset beyond the file", "none", put("offset", 1, 1 << 47), "are not its place"),
    ("offset of 2^64 - 1", "none", put("offset", 1, (1 << 64) - 1), "are not its place"),
    ("offset that wraps round", "none", put("offset", 1, (1 << 64) - 640), "are not its place"),
    ("padded chunk", "none", put("bytes", 2, 640), "are not its place"),
    ("chunk of 2^64 - 1 bytes", "none", put("bytes", 2, (1 << 64) - 1), "are not its place"),
    ("in the card", "none", lambda r: (put("file", 2, CARD)(r), put("offset", 2, 0)(r)), "of 'card.md' are not its place"),
    ("in the table", "none", lambda r: (put("file", 2, TABLE)(r), put("offset", 2, 0)(r)), "of 'chunks.bin' are not its place"),
    ("in a file 3", "none", put("file", 2, 3), "of a file 3 that is not listed"),
    ("overlapping gzip chunks", "gzip", lambda r: put("offset", 1, int(r["offset"][0]))(r), SHARED),
    ("a chunk over all others", "gzip", lambda r: (put("offset", 1, int(r["offset"][0]))(r), put("bytes", 1, int(r["bytes"].max()))(r)), SHARED),
    ("chunk shorter than stored", "gzip", put("bytes", 1, lambda size: size - 1), "at another place"),
    ("last chunk longer than stored", "gzip", lambda r: (put("bytes", 2, int(r["bytes"][2]) - 1)(r)), "at another place"),
    ("gzip chunk in metadata", "gzip", put("offset", 0, 48), "rows 0 to 31 at another place"),
    ("chunk of no bytes", "gzip", put("bytes", 1, 0), "are not its place"),
    ("chunk of far too many bytes", "gzip", put("bytes", 1, CHUNK_BYTES + 2000), "are not its place"),
    ("chunk of 2^64 - 1 bytes in gzip", "gzip", put("bytes", 1, (1 << 64) - 1), "are not its place"),
    ("gzip offset of 2^64 - 1", "gzip", put("offset", 1, (1 << 64) - 1), "are not its place"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "table", "part"), cases(HDF5_TABLES))
def test_a_hostile_chunk_table_of_an_hdf5_cache_is_refused(
    make: Make, codec: Codec, table: TableChange, part: str
) -> None:
    folder = make("hdf5", codec)
    reseal(folder, table=table)
    if "another place" in part:
        reseal(folder)  # the digests of what it points at now
    assert part in refusal(folder)


@pytest.mark.parametrize("codec", codecs.CODECS["hdf5"])
def test_an_hdf5_file_with_far_more_than_its_rows_is_refused(make: Make, codec: Codec) -> None:
    folder = make("hdf5", codec)
    os.truncate(folder / "data.h5", 4 << 20)
    reseal(folder)
    assert "of 'data.h5' that hold no rows" in refusal(folder)


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


SWAPS: list[tuple[str, bytes, bytes, str]] = [  # text of the manifest, and what stands in its place
    ("rows of 5,000 digits", b'"rows": 70', b'"rows": ' + b"9" * 5000, "the whole: Exceeds the limit"),
    ("seed of 5,000 digits", b'"policy": "none",\n    "seed": 0', b'"policy": "none",\n    "seed": ' + b"9" * 5000, ""),
    ("parameter of 5,000 digits", b'"dtype": "float32"\n', b'"dtype": ' + b"9" * 5000 + b"\n", ""),
    ("rows of 1e1", b'"rows": 70', b'"rows": 7e1', "rows"),
    ("NaN", b'"test_accuracy": 0.9', b'"test_accuracy": NaN', "teacher.test_accuracy"),
    ("Infinity", b'"test_accuracy": 0.9', b'"test_accuracy": Infinity', "teacher.test_accuracy"),
    ("-Infinity", b'"test_accuracy": 0.9', b'"test_accuracy": -Infinity', "teacher.test_accuracy"),
    ("1e999", b'"test_accuracy": 0.9', b'"test_accuracy": 1e999', "teacher.test_accuracy"),
    ("NaN among parameters", b'"dtype": "float32"\n', b'"dtype": NaN\n', "field.parameters"),
    ("1e999 among parameters", b'"dtype": "float32"\n', b'"dtype": 1e999\n', "field.parameters"),
    ("no UTF-8", b'"name": "digits"', b'"name": "\xff\xfe"', "the whole"),
    ("overlong UTF-8", b'"name": "digits"', b'"name": "\xc0\xaf"', "the whole"),
    ("a surrogate in UTF-8", b'"name": "digits"', b'"name": "\xed\xa0\x80"', "the whole"),
    ("a lone surrogate", b'"name": "digits"', b'"name": "\\ud800"', "the whole"),
    ("a zero byte", b'"name": "digits"', b'"name": "\0"', "the whole"),
    ("nesting of 100,000", b'"dtype": "float32"\n', b'"dtype": ' + deep(100_000) + b"\n", "the whole"),
    ("nesting where text is due", b'"name": "digits"', b'"name": ' + deep(100_000), "the whole"),
    ("a key twice", b'"rows": 70', b'"rows": 7,\n  "rows": 70', "a manifest changed since"),
    ("a comment", b'"rows": 70', b'"rows": 70 // all', "the whole"),
    ("a plus sign", b'"rows": 70', b'"rows": +70', "the whole"),
    ("a leading zero", b'"rows": 70', b'"rows": 070', "the whole"),
    ("an escaped letter", b'"name": "digits"', b'"name": "\\u0064igits"', "a manifest changed since"),
    ("another order", b'"rows": 70,\n  "store": "zarr"', b'"store": "zarr",\n  "rows": 70', "a manifest changed since"),
    ("one more space", b'"rows": 70', b'"rows":  70', "a manifest changed since"),
    ("other line ends", b'"rows": 70,\n', b'"rows": 70,\r\n', "Windows line ends"),
    ("another number's text", b'"test_accuracy": 0.9', b'"test_accuracy": 0.90', "a manifest changed since"),
    ("-0", b'"policy": "none",\n    "seed": 0', b'"policy": "none",\n    "seed": -0', "a manifest changed since"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "part"), cases(SWAPS))
def test_hostile_json_is_refused(make: Make, old: bytes, new: bytes, part: str) -> None:
    folder = make()
    seal(folder, entries_of(folder), (old, new))
    assert part in refusal(folder)


RAW: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("a byte order mark", lambda data: b"\xef\xbb\xbf" + data, "the whole: "),
    ("UTF-16", lambda data: data.decode().encode("utf-16"), "the whole: "),
    ("compact", lambda data: json.dumps(json.loads(data), sort_keys=True).encode(), "a manifest changed since"),
    ("two values", lambda data: data * 2, "the whole: "),
    ("a list", lambda data: b"[" + data + b"]", "the whole: Input should be an object"),
    ("null", lambda data: b"null", "the whole: Input should be an object"),
    ("100,000 levels", lambda data: deep(100_000), "the whole: "),
    ("100,000 objects", lambda data: b'{"a":' * 100_000, "the whole: "),
    ("zeros", lambda data: bytes(1000), "the whole: "),
    ("a pickle", lambda data: b"\x80\x04cos\nsystem\n.", "the whole: "),
    ("over 8 MB", lambda data: data + b" " * (8 << 20), "expected a manifest of at most 8 MB, found a larger file"),
    ("a newer version", lambda data: data.replace(b'"version": 3', b'"version": 4'), "found 4; read it with a newer teachercache"),
    ("a much newer one", lambda data: b'{\n  "unheard": [],\n  "version": 999999999\n}\n', "found 999999999; read it with a newer teachercache"),
    ("an older version", lambda data: data.replace(b'"version": 3', b'"version": 2'), "expected format version 3, found 2; dump it again"),
    ("the first version", lambda data: data.replace(b'"version": 3', b'"version": 1'), "expected format version 3, found 1; dump it again"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part"), cases(RAW))
def test_other_bytes_for_a_manifest_are_refused(make: Make, change: Callable[[bytes], bytes], part: str) -> None:
    folder = make()
    path = folder / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    assert part in refusal(folder)


def test_a_manifest_of_terabytes_is_refused_unread(make: Make) -> None:
    folder = make()
    os.truncate(folder / "manifest.json", 1 << 42)
    assert "at most 8 MB" in refusal(folder)


NESTED = b'"x": ' + b"[" * 150 + b"0," * 30_000 + b"0" + b"]" * 150
KEYS = b"".join(b'"k%d":1,' % number for number in range(30_000))
BOMBS: list[tuple[str, bytes, bytes]] = [
    ("wrong shards", b'"shard": [\n        1', b'"shard": [\n        ' + b'"",' * 30_000 + b"1"),
    ("long shards", b'"shard": [\n        1', b'"shard": [\n        ' + b"1," * 30_000 + b"1"),
    ("wrong numbers", b'"shape": [\n        1', b'"shape": [\n        ' + b'"",' * 30_000 + b"1"),
    ("unknown entries", b'{\n  "arrays"', b"{" + KEYS + b'"arrays"'),
    ("unknown arrays", b'"arrays": {', b'"arrays": {' + KEYS),
    ("unknown files", b'"files": {', b'"files": {' + KEYS),
    ("lines that grow", b'"dtype": "float32"\n', b'"dtype": "float32",' + NESTED),
    ("a key of a megabyte", b'{\n  "arrays"', b'{"' + b"k" * (1 << 20) + b'": 1, "arrays"'),
    ("a file name of a megabyte", b'"card.md"', b'"' + b"k" * (1 << 20) + b'"'),
    ("an array name of a megabyte", b'"logits": {', b'"' + b"k" * (1 << 20) + b'": {'),
]


@pytest.mark.parametrize(("old", "new"), cases(BOMBS))
def test_a_manifest_that_swells_is_refused_without_swelling(make: Make, old: bytes, new: bytes) -> None:
    folder = make()
    seal(folder, entries_of(folder), (old, new))
    assert "expected a valid manifest" in refusal(folder, most=max(12, 32 * len(new) >> 20) << 20)


# Files that are no files, and files that nobody listed.


def away(folder: Path, name: str) -> Path:
    """Move what lies in a cache to a place outside it."""
    target = folder.parent / "elsewhere"
    (folder / name).rename(target)
    return target


def linked(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(away(folder, name))


def pipe(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def socket_at(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        here = Path.cwd()
        os.chdir((folder / name).parent)  # an address is at most 108 bytes
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(Path(name).name)
        finally:
            os.chdir(here)

    return change


def missing(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).rename(folder.parent / "gone")


def emptied(name: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, 0)


def folder_at(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def added(name: str | bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = os.fsencode(folder) + b"/" + os.fsencode(name)
        with open(path, "xb"):  # noqa: PTH123 - a name that no Path holds
            pass

    return change


def nested(levels: int) -> Callable[[Path], object]:
    """Folders in folders, deeper than a path may be long."""

    def change(folder: Path) -> None:
        here = os.open(folder, os.O_RDONLY)
        for _ in range(levels):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)

    return change


LINK = "expected exactly the manifest's files, found a link or no regular file"
UNLISTED_FOLDER = "expected exactly the manifest's files, found a folder that is not listed in the manifest"
UNLISTED = "expected exactly the manifest's files, found not listed in the manifest"
FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("a linked chunk", linked(CHUNK), f"file {CHUNK}: {LINK}"),
    ("a linked card", linked("card.md"), f"file card.md: {LINK}"),
    ("a linked folder", linked("data.zarr/logits"), f"file data.zarr/logits: {LINK}"),
    ("a linked store", linked("data.zarr"), f"file data.zarr: {LINK}"),
    ("a linked manifest", linked("manifest.json"), "manifest.json: expected a cache's manifest"),
    ("a broken link", lambda f: (f / "x").symlink_to("nowhere"), f"file x: {LINK}"),
    ("a link to itself", lambda f: (f / "x").symlink_to("x"), f"file x: {LINK}"),
    ("a link to the cache", lambda f: (f / "data.zarr/x").symlink_to(f), f"file data.zarr/x: {LINK}"),
    ("a link to the folder above", lambda f: (f / "data.zarr/x").symlink_to(".."), f"file data.zarr/x: {LINK}"),
    ("a link to /etc/passwd", lambda f: (f / "x").symlink_to("/etc/passwd"), f"file x: {LINK}"),
    ("a link to the root", lambda f: (f / "x").symlink_to("/"), f"file x: {LINK}"),
    ("a pipe for a chunk", pipe(CHUNK), f"file {CHUNK}: {LINK}"),
    ("a pipe for metadata", pipe("data.zarr/zarr.json"), f"file data.zarr/zarr.json: {LINK}"),
    ("a pipe for the manifest", pipe("manifest.json"), "manifest.json: expected a cache's manifest, found no regular file"),
    ("a pipe more", lambda f: os.mkfifo(f / "x"), f"file x: {LINK}"),
    ("a socket for a chunk", socket_at(CHUNK), f"file {CHUNK}: {LINK}"),
    ("a socket for the manifest", socket_at("manifest.json"), "manifest.json: expected a cache's manifest"),
    ("a folder for a chunk", folder_at(CHUNK), f"file {CHUNK}: expected exactly the manifest's files, found missing"),
    ("a folder for the manifest", folder_at("manifest.json"), "manifest.json: expected a cache's manifest, found no regular file"),
    ("a file for the store", lambda f: (shutil.rmtree(f / "data.zarr"), added("data.zarr")(f)), "file data.zarr"),
    ("a file for the cache", lambda f: (shutil.rmtree(f), f.write_bytes(b"")), "expected a cache's manifest, found nothing"),
    ("a linked table", linked("chunks.bin"), f"file chunks.bin: {LINK}"),
    ("a pipe for the table", pipe("chunks.bin"), f"file chunks.bin: {LINK}"),
    ("a folder for the table", folder_at("chunks.bin"), "file chunks.bin: expected exactly the manifest's files, found missing"),
    ("no table", missing("chunks.bin"), "file chunks.bin: expected exactly the manifest's files, found missing"),
    ("an empty table", emptied("chunks.bin"), "file chunks.bin: expected 168 bytes, found 0"),
    ("an extra file", added("x"), f"file x: {UNLISTED}"),
    ("an extra manifest", added("data.zarr/manifest.json"), f"file data.zarr/manifest.json: {UNLISTED}"),
    ("an extra chunk", added("data.zarr/logits/c/0/3"), f"file data.zarr/logits/c/0/3: {UNLISTED}"),
    ("an extra hidden file", added(".x"), f"file .x: {UNLISTED}"),
    ("consolidated metadata", added("data.zarr/.zmetadata"), f"file data.zarr/.zmetadata: {UNLISTED}"),
    ("another cache", lambda f: shutil.copytree(f / "data.zarr", f / "x"), f"file x/: {UNLISTED_FOLDER}"),
    ("a name of no UTF-8", added(b"data.zarr/\xff\xfe"), f"file data.zarr/\udcff\udcfe: {UNLISTED}"),
    ("a name with a line end", added("a\nb"), f"file a b: {UNLISTED}"),
    ("a name with escapes", added("\x1b[2J\x07"), f"file \x1b[2J\x07: {UNLISTED}"),
    ("a name from right to left", added("\u202etxt.x"), f"file \u202etxt.x: {UNLISTED}"),
    ("a name of blanks", added("   "), UNLISTED),
    ("a name of 255 bytes", added("x" * 255), UNLISTED),
    ("an empty folder", lambda f: (f / "data.zarr/x").mkdir(), "data.zarr/x"),
    ("a file in 300 folders", nested(300), f"d/: {UNLISTED_FOLDER}"),
    ("a file in 1,500 folders", nested(1500), f"d/: {UNLISTED_FOLDER}"),
    ("a file in 5,000 folders", nested(5000), f"d/: {UNLISTED_FOLDER}"),
]  # fmt: skip


@pytest.fixture
def cleared(tmp_path: Path) -> Iterator[None]:
    """Folders too deep for the usual clean-up are deleted by name."""
    yield
    subprocess.run(["rm", "-rf", tmp_path / "dump"], check=True)


@pytest.mark.usefixtures("cleared")
@pytest.mark.parametrize(("change", "part"), cases(FILES))
def test_what_is_no_file_of_the_cache_is_refused(make: Make, change: Callable[[Path], object], part: str) -> None:
    folder = make()
    change(folder)
    assert part in refusal(folder)


@pytest.mark.usefixtures("cleared")
@pytest.mark.parametrize(("change", "part"), cases([row for row in FILES if "a cache's manifest" not in row[2]]))
def test_a_check_of_all_bytes_names_it_too(make: Make, change: Callable[[Path], object], part: str) -> None:
    folder = make()
    manifest = read_manifest(LocalFolder(folder), "")
    change(folder)
    found = verify_cache(LocalFolder(folder), manifest)
    assert not found.is_whole
    if "chunks.bin: " in part:
        part = "chunks.bin: expected the chunk table that was sealed"
    assert part.removeprefix("file ") in str(InputError(" ".join(found.lines())))


def cut_file(name: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 3)


EXCHANGED = {"linked": linked, "pipe": pipe, "folder": folder_at, "missing": missing, "empty": emptied, "cut": cut_file}
AFTER = [
    (f"{store} {codec} {change} {how}", store, codec, change, how)
    for store in ("zarr", "hdf5")
    for codec in ("none", "gzip")
    for change in EXCHANGED
    for how in ("load", "rows")
]


@pytest.mark.parametrize(("store", "codec", "change", "how"), cases(AFTER))
def test_a_file_exchanged_after_opening_is_refused_when_it_is_read(
    make: Make, store: Format, codec: Codec, change: str, how: str
) -> None:
    name = CHUNK if store == "zarr" else "data.h5"
    folder = make(store, codec)
    opened = cache.open(folder)
    EXCHANGED[change](name)(folder)
    with pytest.raises(InputError, match=f"file {name}"):
        opened.load() if how == "load" else opened.rows(np.arange(ROWS))


SHRINK = """
import os, sys
import numpy as np
from pipeline import cache
from pipeline.base.errors import InputError
opened = cache.open(sys.argv[1])
assert opened.rows([0]).tobytes() == np.zeros((1, 512), "<f4").tobytes()
os.truncate(sys.argv[2], 8192)
try:
    opened.load()
except InputError as error:
    print(str(error).partition("expected ")[2].partition(";")[0], flush=True)
opened.rows([63])
print("read")
"""


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_file_that_shrinks_while_it_is_mapped_ends_the_process_and_is_never_read(
    store: Format, tmp_path: Path
) -> None:
    """What remains, as the format says: nothing but another copy of all rows would be proof against it."""
    plan = cut_store({"logits": ArrayPlan((512,), "float32", "none")}, 1, 64, 2, shard_blocks=32)
    writer.write_cache(
        tmp_path / "dump", tmp_path / "work", plan,
        lambda block: {"logits": np.zeros((block.stop - block.start, 512), "<f4")},
        store=store, description=DESCRIPTION,
    )  # fmt: skip
    file = next(path for path in (tmp_path / "dump").rglob("*") if path.is_file() and path.stat().st_size > 64 * 2048)
    command = [sys.executable, "-c", SHRINK, str(tmp_path / "dump"), str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "the chunk that was sealed, found fewer bytes\n")


# Zarr: what a library would make of the metadata.


def array_json(entries: Callable[[Entries], object]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        made = json.loads(data)
        entries(made)
        return encode_json(made)

    return change


def sharding(entries: Callable[[Entries], object]) -> Callable[[bytes], bytes]:
    """A change of how shards are made."""
    return array_json(lambda made: entries(made["codecs"][0]["configuration"]))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}
SHARDS = {
    "name": "sharding_indexed",
    "configuration": {"chunk_shape": [1, 8, 5], "codecs": [BYTES], "index_codecs": [BYTES, CRC]},
}
BLOSC = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0}}
DEEP = b'{"zarr_format": ' + deep(100_000) + b"}"
ZARR: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("blosc", array_json(lambda z: z.update(codecs=[BYTES, BLOSC])), "zarr.json: codecs: expected"),
    ("inner blosc", sharding(lambda c: c["codecs"].insert(1, BLOSC)), "zarr.json: codecs: expected"),
    ("no sharding", array_json(lambda z: z.update(codecs=[BYTES, CRC])), "zarr.json: codecs: expected"),
    ("sharding in shards", sharding(lambda c: c.update(codecs=[SHARDS])), "zarr.json: codecs: expected"),
    ("unknown codec", array_json(lambda z: z.update(codecs=[BYTES, {"name": "pickle"}])), "zarr.json: codecs: expected"),
    ("unknown inner codec", sharding(lambda c: c["codecs"].append({"name": "pickle"})), "zarr.json: codecs: expected"),
    ("no checksum", sharding(lambda c: c["codecs"].pop()), "zarr.json: codecs: expected"),
    ("no checksum of the index", sharding(lambda c: c["index_codecs"].pop()), "zarr.json: codecs: expected"),
    ("index at the start", sharding(lambda c: c.update(index_location="start")), "zarr.json: codecs: expected"),
    ("index of no place", sharding(lambda c: c.pop("index_location")), "zarr.json: codecs: expected"),
    ("other inner chunks", sharding(lambda c: c.update(chunk_shape=[1, 16, 5])), "zarr.json: codecs: expected"),
    ("a gzip of shards", array_json(lambda z: z["codecs"].append({"name": "gzip", "configuration": {"level": 5}})), "zarr.json: codecs"),
    ("transposed", array_json(lambda z: z["codecs"].insert(0, {"name": "transpose", "configuration": {"order": [0, 2, 1]}})), "zarr.json: codecs"),
    ("transposed chunks", sharding(lambda c: c["codecs"].insert(0, {"name": "transpose", "configuration": {"order": [0, 2, 1]}})), "zarr.json: codecs"),
    ("gzip", sharding(lambda c: c["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 5}})), "zarr.json: codecs"),
    ("big endian", sharding(lambda c: c["codecs"][0].update(configuration={"endian": "big"})), "zarr.json: codecs"),
    ("a big-endian index in zarr.json", sharding(lambda c: c["index_codecs"][0].update(configuration={"endian": "big"})), "zarr.json: codecs"),
    ("no codecs", array_json(lambda z: z.pop("codecs")), "zarr.json: codecs: expected"),
    ("object", array_json(lambda z: z.update(data_type="object")), "zarr.json: data_type: expected"),
    ("text", array_json(lambda z: z.update(data_type="variable_length_utf8")), "zarr.json: data_type"),
    ("int32", array_json(lambda z: z.update(data_type="int32", fill_value=0)), "zarr.json: data_type"),
    ("a type of its own", array_json(lambda z: z.update(data_type={"name": "numpy.void"})), "zarr.json: data_type"),
    ("more rows", array_json(lambda z: z.update(shape=[1, 1 << 40, 5])), "zarr.json: shape: expected"),
    ("fewer rows", array_json(lambda z: z.update(shape=[1, 69, 5])), "zarr.json: shape"),
    ("other chunks", array_json(lambda z: z["chunk_grid"]["configuration"].update(chunk_shape=[1, 16, 5])), "zarr.json: chunk_grid"),
    ("irregular chunks", array_json(lambda z: z["chunk_grid"].update(name="rectangular")), "zarr.json: chunk_grid"),
    ("another fill value", array_json(lambda z: z.update(fill_value=1.0)), "zarr.json: fill_value"),
    ("NaN", lambda data: data.replace(b'"fill_value": 0.0', b'"fill_value": NaN'), "zarr.json: fill_value"),
    ("another separator", array_json(lambda z: z["chunk_key_encoding"]["configuration"].update(separator=".")), "zarr.json: chunk_key_encoding"),
    ("the older keys", array_json(lambda z: z["chunk_key_encoding"].update(name="v2")), "zarr.json: chunk_key_encoding"),
    ("a transformer", array_json(lambda z: z.update(storage_transformers=[{"name": "x"}])), "zarr.json: storage_transformers"),
    ("attributes", array_json(lambda z: z.update(attributes={"_ARRAY_OFFSET": 1})), "zarr.json: attributes: expected"),
    ("dimension names", array_json(lambda z: z.update(dimension_names=["a", "b", "c"])), "zarr.json: dimension_names"),
    ("version 2", array_json(lambda z: z.update(zarr_format=2)), "zarr.json: zarr_format: expected"),
    ("a group", array_json(lambda z: z.update(node_type="group")), "zarr.json: node_type: expected"),
    ("a list", lambda data: b"[" + data + b"]", "zarr.json: "),
    ("null", lambda data: b"null", "zarr.json: "),
    ("nothing", lambda data: b"", "zarr.json: no JSON: expected"),
    ("no UTF-8", lambda data: b'{"\xff": 1}', "zarr.json: no JSON: expected"),
    ("deeply nested", lambda data: DEEP, "zarr.json: no JSON: expected"),
    ("5,000 digits", lambda data: data.replace(b'"zarr_format": 3', b'"zarr_format": ' + b"3" * 5000), "zarr.json: no JSON: expected"),
    ("a long text", array_json(lambda z: z.update(data_type="x" * 100_000)), "zarr.json: no JSON: expected"),
    ("a long key", array_json(lambda z: z.update({"A" * 100_000: 1})), "zarr.json: "),
    ("64 MB of spaces", lambda data: data + b" " * (64 << 20), "zarr.json"),
    ("a key twice in zarr.json", lambda data: data.replace(b'"codecs"', b'"codecs": [{"name": "blosc"}],\n  "codecs"'), "zarr.json"),
    ("truth for numbers", lambda data: data.replace(b'"shape": [\n    1', b'"shape": [\n    true'), "zarr.json: its form"),
    ("falsehood for zero", lambda data: data.replace(b'"fill_value": 0.0', b'"fill_value": false'), "zarr.json: its form"),
    ("-0.0", lambda data: data.replace(b'"fill_value": 0.0', b'"fill_value": -0.0'), "zarr.json: its form"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part"), cases(ZARR))
def test_zarr_metadata_that_contradict_the_manifest_are_refused(
    make: Make, change: Callable[[bytes], bytes], part: str
) -> None:
    folder = make()
    path = folder / "data.zarr/logits/zarr.json"
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    reseal(folder)
    assert part in refusal(folder)
    found = verify_cache(LocalFolder(folder), read_manifest(LocalFolder(folder), ""))
    assert not found.damage
    assert part in str(found.structure)


GROUPS: list[tuple[str, Change]] = [
    ("an array", lambda z: z.update(node_type="array")),
    ("attributes", lambda z: z.update(attributes={"a": 1})),
    ("consolidated metadata", lambda z: z.update(consolidated_metadata={"kind": "inline", "metadata": {}})),
    ("version 2", lambda z: z.update(zarr_format=2)),
]


@pytest.mark.parametrize("change", cases(GROUPS))
def test_a_zarr_group_of_anything_else_is_refused(make: Make, change: Change) -> None:
    folder = make()
    path = folder / "data.zarr/zarr.json"
    path.write_bytes(array_json(change)(path.read_bytes()))
    reseal(folder)
    assert "data.zarr/zarr.json: " in refusal(folder)


def test_a_nested_zarr_group_is_refused(make: Make) -> None:
    folder = make()
    shutil.copytree(folder / "data.zarr", folder / "data.zarr/inner")
    info = entries_of(folder)["files"]["data.zarr/zarr.json"]
    reseal(folder, lambda m: m["files"].update({"data.zarr/inner/zarr.json": info}))
    assert "found 'data.zarr/inner/zarr.json' besides" in refusal(folder)


# HDF5: files that the library itself has written.

Build = Callable[[h5py.File, Any], object]  # the file, and the values (views, rows, classes)


def low_level(
    *, filters: Callable[[Any], object] = lambda _: None, chunk: tuple[int, ...] | None = None, compact: bool = False
) -> Build:
    def build(file: h5py.File, data: Any) -> None:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if chunk:
            layout.set_chunk(chunk)
        if compact:
            layout.set_layout(h5py.h5d.COMPACT)
        filters(layout)
        space = h5py.h5s.create_simple(data.shape)
        made = h5py.h5d.create(file.id, b"logits", h5py.h5t.py_create(data.dtype), space, layout)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(data))

    return build


def plain(data: Callable[[Any], Any] = lambda d: d, **options: Any) -> Build:
    def build(file: h5py.File, values: Any) -> None:
        file.create_dataset("logits", data=data(values), **options)

    return build


def external(file: h5py.File, data: Any) -> None:
    outside = Path(file.filename).parent.parent / "elsewhere.raw"
    outside.write_bytes(data.tobytes())
    file.create_dataset("logits", data.shape, "<f4", external=[(str(outside), 0, data.nbytes)])


def secret(file: h5py.File, data: Any) -> None:
    file.create_dataset("logits", data.shape, "<f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def other_file(file: h5py.File, data: Any) -> Path:
    outside = Path(file.filename).parent.parent / "elsewhere.h5"
    with h5py.File(outside, "w") as made:
        made["logits"] = data
    return outside


def external_link(file: h5py.File, data: Any) -> None:
    file["logits"] = h5py.ExternalLink(str(other_file(file, data)), "/logits")


def virtual(file: h5py.File, data: Any) -> None:
    made = h5py.VirtualLayout(data.shape, "<f4")
    made[...] = h5py.VirtualSource(other_file(file, data), "logits", data.shape)
    file.create_virtual_dataset("logits", made)


def cycle(file: h5py.File, data: Any) -> None:
    file["logits"] = file["/"]


def inner_cycle(file: h5py.File, data: Any) -> None:
    group = file.create_group("logits")
    group["logits"] = group


def unfiltered_chunk(file: h5py.File, data: Any) -> None:
    """A chunk that was stored without the filter."""
    made = file.create_dataset("logits", data.shape, "<f4", chunks=(1, CHUNK_ROWS, CLASSES), compression="gzip")
    padded = np.concatenate([data, np.zeros((1, 96 - ROWS, CLASSES), "f4")], 1)
    for start in (0, 32, 64):
        made.id.write_direct_chunk((0, start, 0), padded[:, start : start + 32].tobytes(), filter_mask=1)


def missing_chunk(file: h5py.File, data: Any) -> None:
    made = file.create_dataset("logits", data.shape, "<f4", chunks=(1, CHUNK_ROWS, CLASSES), compression="gzip")
    made[:, :CHUNK_ROWS] = data[:, :CHUNK_ROWS]


SAME = (1, CHUNK_ROWS, CLASSES)
WRONG = "array 'logits': "
NAMES = "expected just what the manifest says, found "
OLDER = "expected an HDF5 file with a superblock of version 3"
HDF5: list[tuple[str, Codec, Build, str]] = [
    ("external storage", "none", external, f"{WRONG}external storage"),
    ("external /etc/passwd", "none", secret, f"{WRONG}external storage"),
    ("external link", "none", external_link, f"{WRONG}a link"),
    ("broken external link", "none", lambda f, _: f.__setitem__("logits", h5py.ExternalLink("/nowhere.h5", "/x")), f"{WRONG}a link"),
    ("soft link", "none", lambda f, d: (f.__setitem__("logits", h5py.SoftLink("/x")), f.__setitem__("x", d)), f"{NAMES}'x' besides"),
    ("soft link to itself", "none", lambda f, _: f.__setitem__("logits", h5py.SoftLink("/logits")), f"{WRONG}a link"),
    ("soft link to nothing", "none", lambda f, _: f.__setitem__("logits", h5py.SoftLink("/a/../b")), f"{WRONG}a link"),
    ("the root in itself", "none", cycle, f"{WRONG}no data set"),
    ("a group in itself", "none", inner_cycle, f"{WRONG}no data set"),
    ("a group", "none", lambda f, d: f.create_group("logits").create_dataset("logits", data=d), f"{WRONG}no data set"),
    ("300 groups", "none", lambda f, d: f.create_dataset("/".join(["logits"] * 300), data=d), f"{WRONG}no data set"),
    ("a type", "none", lambda f, _: f.__setitem__("logits", np.dtype("<f4")), f"{WRONG}no data set"),
    ("virtual", "none", virtual, f"{WRONG}another layout"),
    ("chunked", "none", plain(chunks=SAME), f"{WRONG}another layout"),
    ("compressed", "none", plain(chunks=SAME, compression="gzip"), f"{WRONG}another layout"),
    ("compact", "none", low_level(compact=True), f"{WRONG}another layout"),
    ("contiguous", "gzip", plain(), f"{WRONG}another layout"),
    ("shuffle", "gzip", plain(chunks=SAME, compression="gzip", shuffle=True), f"{WRONG}another filters"),
    ("fletcher32", "gzip", plain(chunks=SAME, compression="gzip", fletcher32=True), f"{WRONG}another filters"),
    ("lzf", "gzip", plain(chunks=SAME, compression="lzf"), f"{WRONG}another filters"),
    ("scaleoffset", "gzip", plain(chunks=SAME, scaleoffset=2), f"{WRONG}another filters"),
    ("no filter", "gzip", low_level(chunk=SAME), f"{WRONG}another filters"),
    ("deflate twice", "gzip", low_level(chunk=SAME, filters=lambda p: (p.set_deflate(5), p.set_deflate(5))), f"{WRONG}another filters"),
    ("an unknown filter", "gzip", low_level(chunk=SAME, filters=lambda p: (p.set_deflate(5), p.set_filter(32000, h5py.h5z.FLAG_OPTIONAL))), f"{WRONG}another filters"),
    ("chunks stored raw", "gzip", unfiltered_chunk, f"{WRONG}view 0, rows 0 to 31 at another place"),
    ("a chunk missing", "gzip", missing_chunk, "array 'logits'"),
    ("no chunk at all", "gzip", lambda f, d: f.create_dataset("logits", d.shape, "<f4", chunks=SAME, compression="gzip"), "data.h5: "),
    ("other chunks", "gzip", plain(chunks=(1, 16, CLASSES), compression="gzip"), f"{WRONG}another chunks"),
    ("chunks across views", "gzip", plain(chunks=(1, CHUNK_ROWS, 1), compression="gzip"), f"{WRONG}another chunks"),
    ("float64", "none", plain(lambda d: d.astype("<f8")), f"{WRONG}another dtype"),
    ("int32", "none", plain(lambda d: d.view("<i4")), f"{WRONG}another dtype"),
    ("big endian", "none", plain(lambda d: d.astype(">f4")), f"{WRONG}another dtype"),
    ("texts of any length", "none", lambda f, d: f.create_dataset("logits", d.shape, h5py.string_dtype()), f"{WRONG}another dtype"),
    ("lists of any length", "none", lambda f, d: f.create_dataset("logits", d.shape, h5py.vlen_dtype("<f4")), f"{WRONG}another dtype"),
    ("references", "none", lambda f, d: f.create_dataset("logits", d.shape, h5py.ref_dtype), f"{WRONG}another dtype"),
    ("opaque", "none", lambda f, d: f.create_dataset("logits", d.shape, h5py.opaque_dtype(np.dtype("V4"))), f"{WRONG}another dtype"),
    ("a compound", "none", lambda f, d: f.create_dataset("logits", d.shape, [("x", "<f4")]), f"{WRONG}another dtype"),
    ("an enumeration", "none", lambda f, d: f.create_dataset("logits", d.shape, h5py.enum_dtype({"A": 1}, "<i4")), f"{WRONG}another dtype"),
    ("another shape", "none", plain(lambda d: d[:, :69]), f"{WRONG}another shape"),
    ("more axes", "none", plain(lambda d: d[..., None]), f"{WRONG}another shape"),
    ("a huge shape", "none", lambda f, d: f.create_dataset("logits", (1, 1 << 40, CLASSES), "<f4", chunks=SAME), f"{WRONG}another layout"),
    ("one number", "none", lambda f, d: f.create_dataset("logits", data=1.0, dtype="<f4"), f"{WRONG}another shape"),
    ("nothing", "none", lambda f, d: f.create_dataset("logits", data=h5py.Empty("<f4")), f"{WRONG}another shape"),
    ("no arrays", "none", lambda f, d: None, f"{NAMES}'logits' besides"),
    ("an array more", "none", lambda f, d: (f.create_dataset("logits", data=d), f.create_dataset("x", data=d)), f"{NAMES}'x' besides"),
    ("another name", "none", lambda f, d: f.create_dataset("Logits", data=d), f"{NAMES}'Logits' besides"),
    ("a name of no UTF-8", "none", lambda f, d: h5py.h5g.create(f.id, b"\xff\xfe"), "data.h5: "),
    ("a name with escapes", "none", lambda f, d: f.create_dataset("\x1b[2J\n", data=d), f"{NAMES}"),
    ("a long name", "none", lambda f, d: f.create_dataset("A" * 60_000, data=d), f"{NAMES}"),
    ("a broken link more", "none", lambda f, d: (f.create_dataset("logits", data=d), f.__setitem__("x", h5py.SoftLink("/y"))), f"{NAMES}'x' besides"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "build", "part"), cases(HDF5))
def test_hdf5_that_contradicts_the_manifest_is_refused(make: Make, codec: Codec, build: Build, part: str) -> None:
    assert_refused(make, codec, build, part, "v110")


@pytest.mark.parametrize(("codec", "build"), [("none", plain()), ("gzip", missing_chunk)])
def test_hdf5_of_an_older_version_is_not_even_looked_at(make: Make, codec: Codec, build: Build) -> None:
    assert_refused(make, codec, build, OLDER, "earliest")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("codec", "build", "part"), cases(HDF5))
def test_hdf5_of_an_older_version_is_refused_whatever_it_holds(
    make: Make, codec: Codec, build: Build, part: str
) -> None:
    assert_refused(make, codec, build, OLDER, "earliest")  # trees that the library walks without end


def assert_refused(make: Make, codec: Codec, build: Build, part: str, version: str) -> None:
    folder = make("hdf5", codec)
    size = (folder / "data.h5").stat().st_size
    with h5py.File(folder / "data.h5", "w", libver=(version, "v110")) as file:
        build(file, values())
    if (folder / "data.h5").stat().st_size < size:  # the manifest's places stay within the file
        os.truncate(folder / "data.h5", size)
    reseal(folder)
    assert part in refusal(folder)
    found = verify_cache(LocalFolder(folder), read_manifest(LocalFolder(folder), ""))
    assert not found.damage
    assert part in str(found.structure)


def chunk_places(item: Any) -> list[tuple[int, int]]:
    """Offset and bytes of each block, as the library tells them."""
    if item.chunks is None:
        start = item.id.get_offset()
        return [
            (start + first * CLASSES * 4, (last - first) * CLASSES * 4) for first, last in ((0, 32), (32, 64), (64, 70))
        ]
    found = [item.id.get_chunk_info_by_coord((0, first, 0)) for first in (0, 32, 64)]
    return [(info.byte_offset, info.size) for info in found]


def put_places(folder: Path, places: list[tuple[int, int]]) -> None:
    """Other offsets and bytes in the table; without their digests."""
    records = records_of(folder)
    records["offset"], records["bytes"] = np.array(places).T
    records.tofile(folder / "chunks.bin")


def rebuilt(folder: Path, codec: Codec, **options: Any) -> Path:
    """The same numbers in an HDF5 file of another kind, which the manifest describes rightly."""
    with h5py.File(folder / "data.h5", "w", **options) as file:
        packed = {} if codec == "none" else {"chunks": SAME, "compression": "gzip"}
        item = file.create_dataset("logits", data=values(), **packed)
        file.flush()
        places = chunk_places(item)

    put_places(folder, places)
    reseal(folder)
    return folder / "data.h5"


@pytest.mark.parametrize("codec", codecs.CODECS["hdf5"])
@pytest.mark.parametrize("version", ["earliest", "v110"])
@pytest.mark.parametrize("before", [0, 512])
def test_hdf5_of_another_kind_is_read_rightly_or_refused(make: Make, codec: Codec, version: str, before: int) -> None:
    folder = make("hdf5", codec)
    rebuilt(folder, codec, libver=(version, "v110"), userblock_size=before)
    try:
        found = cache.open(folder).load()
    except InputError as error:
        assert "data.h5" in str(error)  # noqa: PT017 - refusing is one of two right answers
    else:
        assert np.array_equal(found, values())


def trees(data: bytes) -> list[int]:
    """Where the nodes of HDF5's older B-trees begin: of the group, of the chunks."""
    return [found.start() for found in re.finditer(b"TREE", data)]


def test_chunks_that_the_library_does_not_find_are_refused(make: Make) -> None:
    folder = make("hdf5", "gzip")
    path = rebuilt(folder, "gzip", libver=("earliest", "v110"))
    data = bytearray(path.read_bytes())
    data[trees(bytes(data))[-1] + 63] = 1  # the first key's offset along the last axis, within a number
    path.write_bytes(data)
    reseal(folder)
    with h5py.File(path) as file:
        assert not np.array_equal(file["logits"][...], values())
    assert "data.h5" in refusal(folder)


@pytest.mark.parametrize(("codec", "child"), [("none", 32), ("gzip", 64)])
def test_a_tree_that_is_its_own_child_does_not_kill_the_reader(make: Make, codec: Codec, child: int) -> None:
    folder = make("hdf5", codec)
    path = rebuilt(folder, codec, libver=("earliest", "v110"))
    data = bytearray(path.read_bytes())
    tree = trees(bytes(data))[0 if codec == "none" else -1]
    data[tree + 5] = 1  # no leaf
    data[tree + child : tree + child + 8] = tree.to_bytes(8, "little")
    path.write_bytes(data)
    reseal(folder)
    code = f"from pipeline import cache\ntry: cache.open({str(folder)!r})\nexcept cache.reader.InputError: print('refused')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "refused\n")


@pytest.mark.parametrize("size", [0, 8, 47, 200])
def test_an_hdf5_file_of_a_few_bytes_is_refused(make: Make, size: int) -> None:
    folder = make("hdf5")
    before = (folder / "data.h5").read_bytes()
    (folder / "data.h5").write_bytes(before[:size] + bytes(len(before) - size))
    reseal(folder)
    assert "data.h5: " in refusal(folder)


def test_garbage_for_an_hdf5_file_is_refused(make: Make) -> None:
    folder = make("hdf5")
    (folder / "data.h5").write_bytes(np.random.default_rng(0).bytes((folder / "data.h5").stat().st_size))
    reseal(folder)
    assert "data.h5: expected an HDF5 file" in refusal(folder)


def test_a_cut_hdf5_file_is_refused(make: Make) -> None:
    folder = make("hdf5")
    before = (folder / "data.h5").read_bytes()
    (folder / "data.h5").write_bytes(before[:-1])
    reseal(folder)
    assert "are not its place" in refusal(folder)
    (folder / "data.h5").write_bytes(before[:-1])
    reseal(folder, table=put("bytes", 2, 119))
    assert "are not its place" in refusal(folder)


# Compressed chunks whose digests are right, and that hold something else.


def zeros(size: int) -> bytes:
    return bytes(size)


def unsized(data: bytes) -> bytes:
    """A zstd frame of one raw block, that does not tell its content's size (RFC 8878, 3.1.1)."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0, 0x38])  # a window of 128 KB
    return header + (len(data) << 3 | 1).to_bytes(3, "little") + data


def sized(data: bytes, claim: int) -> bytes:
    """A zstd frame of one raw block, that says its content has `claim` bytes."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + claim.to_bytes(4, "little")
    return header + (len(data) << 3 | 1).to_bytes(3, "little") + data


RIGHT = values()[0, 32:64].tobytes()
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
GZIP: list[tuple[str, bytes]] = [
    ("far more", gzip.compress(zeros(64 << 20), 9)),
    ("one byte more", gzip.compress(RIGHT + b"\0")),
    ("one byte less", gzip.compress(RIGHT[:-1])),
    ("nothing", gzip.compress(b"")),
    ("cut", gzip.compress(RIGHT)[:-20]),
    ("no sum", gzip.compress(RIGHT)[:-8]),
    ("a wrong sum", gzip.compress(RIGHT)[:-8] + bytes(8)),
    ("two streams", gzip.compress(RIGHT[:320]) + gzip.compress(RIGHT[320:])),
    ("an empty stream more", gzip.compress(RIGHT) + gzip.compress(b"")),
    ("a byte more", gzip.compress(RIGHT) + b"\0"),
    ("raw", RIGHT),
    ("bare deflate", zlib.compress(RIGHT)[2:-4]),
    ("zstd", bytes(zstd.compress(RIGHT))),
    ("one byte", b"\x1f"),
    ("bomb in a bomb", gzip.compress(gzip.compress(zeros(1 << 20)))),
]
ZSTD: list[tuple[str, bytes]] = [
    ("far more", bytes(zstd.compress(zeros(64 << 20)))),
    ("one byte more", bytes(zstd.compress(RIGHT + b"\0"))),
    ("one byte less", bytes(zstd.compress(RIGHT[:-1]))),
    ("nothing", bytes(zstd.compress(b""))),
    ("no size", unsized(RIGHT)),
    ("far more of no size", unsized(zeros(100_000))),
    ("claims far more", sized(RIGHT, 1 << 31)),
    ("claims the size, has more", sized(RIGHT + RIGHT, CHUNK_BYTES)),
    ("claims the size, has less", sized(RIGHT[:-1], CHUNK_BYTES)),
    ("claims the size, has nothing", sized(b"", CHUNK_BYTES)),
    ("cut", bytes(zstd.compress(RIGHT))[:-3]),
    ("two frames", bytes(zstd.compress(RIGHT[:320])) + bytes(zstd.compress(RIGHT[320:]))),
    ("the frame twice", bytes(zstd.compress(RIGHT)) * 2),
    ("a skippable frame first", SKIPPABLE + bytes(zstd.compress(RIGHT))),
    ("a byte more", bytes(zstd.compress(RIGHT)) + b"\0"),
    ("a dictionary", b"\x28\xb5\x2f\xfd\xa1\x07" + CHUNK_BYTES.to_bytes(4, "little") + b"\x01\x14\0" + RIGHT),
    ("raw", RIGHT),
    ("gzip", gzip.compress(RIGHT)),
    ("one byte", b"\x28"),
    ("only the mark", b"\x28\xb5\x2f\xfd"),
]
PACKED = [("gzip", *row) for row in GZIP] + [("zstd", *row) for row in ZSTD]


def refused_or_read(folder: Path) -> str:
    """What is said of a cache when it is opened, or when its rows are read."""
    with pytest.raises(InputError) as caught:
        cache.open(folder).load()
    return str(caught.value)


@pytest.mark.parametrize(
    ("codec", "payload"), [(row[0], row[2]) for row in PACKED], ids=[f"{row[0]} {row[1]}" for row in PACKED]
)
def test_a_zarr_chunk_that_decodes_to_anything_else_is_refused(make: Make, codec: Codec, payload: bytes) -> None:
    folder = make("zarr", codec)
    put_payload(folder, payload)
    reseal(folder)
    text = refused_or_read(folder)
    if len(payload) > CHUNK_BYTES + 1024:
        assert f"bytes 0 to {len(payload)} of '{CHUNK}' are not its place" in text
    else:
        assert f"file {CHUNK}, bytes 0 to {len(payload)}: expected the chunk that was sealed, found " in text


CORNERS = [(0, 0, 0), (0, 32, 0), (0, 64, 0)]
HDF5_GZIP = [("far more", zlib.compress(zeros(64 << 20), 9)), ("less", zlib.compress(RIGHT[:-1])), ("raw", RIGHT),
             ("two streams", zlib.compress(RIGHT) * 2), ("cut", zlib.compress(RIGHT)[:-4])]  # fmt: skip


@pytest.mark.parametrize("payload", [row[1] for row in HDF5_GZIP], ids=[row[0] for row in HDF5_GZIP])
def test_an_hdf5_chunk_that_decodes_to_anything_else_is_refused(make: Make, payload: bytes) -> None:
    folder = make("hdf5", "gzip")
    with h5py.File(folder / "data.h5", "r+") as file:
        chunks = file["logits"].id
        chunks.write_direct_chunk((0, 32, 0), payload)
        file.flush()
        places = [(found.byte_offset, found.size) for found in map(chunks.get_chunk_info_by_coord, CORNERS)]
    put_places(folder, places)
    reseal(folder)
    words = (
        "expected the chunk that was sealed, found gzip: ",  # our reader
        "view 0, rows 32 to 63 that read otherwise",  # the library and our reader
        "found no sound HDF5 file",  # the library
        "are not its place",
    )
    assert any(word in refused_or_read(folder) for word in words)


def test_an_hdf5_chunk_that_inflates_is_refused_before_the_library_inflates_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("hdf5", "gzip")
    with h5py.File(folder / "data.h5", "r+") as file:
        chunks = file["logits"].id
        chunks.write_direct_chunk((0, 0, 0), zlib.compress(zeros(1 << 20), 9))
        file.flush()
        places = [(found.byte_offset, found.size) for found in map(chunks.get_chunk_info_by_coord, CORNERS)]
    assert places[0][1] < CHUNK_BYTES + 1024 + 5  # no more than a chunk may have
    put_places(folder, places)
    reseal(folder)
    assert "view 0, rows 0 to 31 that read otherwise" in refusal(folder)
    manifest = read_manifest(LocalFolder(folder), "")
    table = read_table(LocalFolder(folder), manifest, "")

    def read(*_: object) -> None:
        raise AssertionError("the library reads it")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", read)
    with pytest.raises(InputError, match="rows 0 to 31 that read otherwise"):
        hdf5_store.check_own_store(folder, table, "")


def test_the_frames_made_by_hand_are_frames() -> None:
    assert bytes(zstd.decompress(sized(RIGHT, CHUNK_BYTES))) == RIGHT
    assert bytes(zstd.decompress(unsized(RIGHT))) == RIGHT
    found = codecs.decode(
        np.frombuffer(sized(RIGHT, CHUNK_BYTES), np.uint8),
        dtype="float32", row_shape=(CLASSES,), chunk_rows=CHUNK_ROWS, codec="zstd", store="zarr",
    )  # fmt: skip
    assert found.tobytes() == RIGHT


@pytest.mark.parametrize("more", [bytes(zstd.compress(b"")), SKIPPABLE], ids=["an empty frame", "a skippable frame"])
def test_a_zstd_chunk_with_empty_frames_more_is_what_was_sealed(make: Make, more: bytes) -> None:
    folder = make("zarr", "zstd")
    payload = bytes(zstd.compress(RIGHT)) + more
    put_payload(folder, payload)
    reseal(folder)
    assert np.array_equal(cache.open(folder).load(), values())


@pytest.fixture
def little_space() -> Iterator[None]:
    """Address space for less than half a terabyte, however the machine is set up."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = 1 << 38 if before[1] == resource.RLIM_INFINITY else min(before[1], 1 << 38)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_space")
def test_an_array_of_claims_is_refused_row_by_row(make: Make) -> None:
    """Half a terabyte in chunks of 1 GiB that are a few bytes each."""
    folder, count = make("zarr", "gzip"), 512
    store, payload = folder / "data.zarr/logits", b"\x1f\x8b\x08\0" + bytes(4)
    shutil.rmtree(store / "c")
    grid = ChunkGrid(1, count, 1, (1, count))
    chunk = payload + crc_to_bytes(crc32c(np.frombuffer(payload, np.uint8)))
    (store / "c/0/0").mkdir(parents=True)
    end = encode_shard_index(math.prod(grid.slots), np.arange(count), np.full(count, len(payload)))
    (store / "c/0/0/0").write_bytes(chunk * count + end)
    records = np.zeros(count, RECORD)
    records["offset"], records["bytes"], records["file"] = np.arange(count) * len(chunk), len(payload), 2
    records.tofile(folder / "chunks.bin")

    def change(entries: Entries) -> None:
        rows(count)(entries)
        del entries["files"]["data.zarr/logits/c/0/1/0"], entries["files"]["data.zarr/logits/c/0/2/0"]
        logits(entries).update(shape=[1, count, 1 << 28], chunk_rows=1, shard=[1, count])

    made = json.loads((store / "zarr.json").read_bytes())
    made["shape"], made["chunk_grid"]["configuration"]["chunk_shape"] = [1, count, 1 << 28], [1, count, 1 << 28]
    made["codecs"][0]["configuration"]["chunk_shape"] = [1, 1, 1 << 28]
    (store / "zarr.json").write_bytes(encode_json(made))
    reseal(folder, change)
    opened = cache.open(folder)
    with pytest.raises(InputError):
        opened.rows(np.array([3]))
    with pytest.raises(InputError):
        opened.load()


@pytest.mark.parametrize("claim", [1 << 40, 1 << 47])
def test_a_compressed_chunk_is_not_larger_than_what_it_holds(make: Make, claim: int) -> None:
    folder = make("zarr", "gzip")
    reseal(folder, lambda m: m["files"][CHUNK].update(bytes=claim), table=put("bytes", 1, claim - 24))
    lost = read_sound_table(LocalFolder(folder), read_manifest(LocalFolder(folder), ""))
    assert isinstance(lost, Damage)
    assert f"bytes 0 to {claim - 24} of '{CHUNK}' are not its place" in lost.found


def test_a_slot_is_given_away_only_when_nobody_decodes_into_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("zarr", "zstd")
    opened = cache.open(folder, memory=2 * CHUNK_BYTES)
    decode_chunk, late = DecodedArray._decode_chunk, threading.Event()

    def decode_late(self: DecodedArray, number: int, read: Any) -> Any:
        if late.is_set():
            return decode_chunk(self, number, read)
        if number == 0:
            raise InputError("chunk 0")
        time.sleep(0.2)
        return decode_chunk(self, number, read)

    monkeypatch.setattr(DecodedArray, "_decode_chunk", decode_late)
    with pytest.raises(InputError, match="chunk 0"):
        opened.rows(np.array([0, 40]))
    late.set()
    ids = np.array([0, 69])
    for _ in range(40):
        assert np.array_equal(opened.rows(ids), values()[0, ids])
        time.sleep(0.01)


# Values that no cache may hold, and code that no cache may run.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_value_that_is_no_number_is_refused_with_its_sample(bad: float, dtype: str) -> None:
    exact = np.zeros((4, 3), np.float32)
    assert round_logits(exact, dtype, 0, "big").shape == (4, 3)
    exact[2, 1] = bad
    with pytest.raises(InputError) as caught:
        round_logits(exact, dtype, 500, "big")
    assert str(caught.value).startswith(
        f"logits of teacher 'big' for sample 502: expected finite {dtype} numbers, found NaN or inf"
    )


def test_a_value_beyond_its_format_is_refused_with_its_sample() -> None:
    exact = np.array([[1.0], [65519.0], [65520.0]], np.float32)
    assert round_logits(exact[:2], "float16", 0, "big").dtype == np.float16
    with pytest.raises(InputError, match=r"sample 9: expected finite float16 numbers, found 65520, beyond its range"):
        round_logits(exact, "float16", 7, "big")


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)


FORBIDDEN = re.compile(
    r"(^|\.)(pickle|_pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal|yaml|eval|exec|compile|__import__|load_module)$"
    r"|^(np|numpy|torch)\.(load|save|savez)$|^os\.(system|popen)$|^subprocess"
)
MODULES = sorted((ROOT / "pipeline/cache").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_cache_runs_no_code_that_it_reads(path: Path) -> None:
    names = set(calls(ast.parse(path.read_text())))
    # The one program that is started is our own `hdf5_check`.
    allowed = {"re.compile"} | ({"subprocess", "subprocess.run"} if path.name == "hdf5_store.py" else set())
    assert not {name for name in names if FORBIDDEN.search(name)} - allowed


def test_no_array_file_is_read_with_pickles() -> None:
    assert len(MODULES) > 10
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert options.get("allow_pickle", "False") == "False", path


def test_a_name_that_no_terminal_shows_is_refused_like_any_other(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    folder = make("hdf5", "none")
    with h5py.File(folder / "data.h5", "r+") as file:
        file["\u03bb"] = [1.0]
    reseal(folder)
    assert "'\u03bb' besides the manifest's arrays" in refusal(folder)
