"""Every flipped bit, every cut and every grown file is found; no reader ever sees another value.

The flips are seeded. They lie in every file, in every kind of byte of a file (metadata, payload,
padding, checksum, slack) and in every line of the manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base import checked_copies
from pipeline.base.errors import InputError
from pipeline.cache import writer
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.chunk_grid import CRC_BYTES, RECORD_BYTES
from pipeline.cache.chunk_table import StoredChunk
from pipeline.cache.codecs import CODECS, Codec, Format
from pipeline.cache.dtypes import DType, round_to_dtype, widen_bfloat16
from pipeline.cache.folder import LocalFolder, read_manifest, read_table
from pipeline.cache.manifest import Manifest
from pipeline.cache.verify import Verification, verify_cache
from tests.cache.test_cache import DESCRIPTION
from tests.conftest import sweep
from tests.store_plans import cut_store

Form = tuple[Format, Codec, DType, int]
FORMS: list[Form] = [  # the last is top-k, or 0 for all logits
    ("zarr", "none", "float32", 0),
    ("zarr", "zstd", "float16", 0),
    ("zarr", "gzip", "bfloat16", 0),
    ("zarr", "none", "bfloat16", 4),
    ("zarr", "zstd", "float32", 4),
    ("hdf5", "none", "float16", 0),
    ("hdf5", "gzip", "float32", 0),
    ("hdf5", "none", "float32", 4),
    ("hdf5", "gzip", "bfloat16", 4),
]
NAMES = ["-".join([store, codec, dtype, *(["top"] if top else [])]) for store, codec, dtype, top in FORMS]
VIEWS, ROWS, CLASSES, CHUNK = 2, 300, 7, 56  # chunks of 56 rows, five a view, and one of 20
FLIPS = 160  # of each form in its files, besides those in each line of its manifest
FEW = 10  # of so many flips, one is made in the default run: in every region of every file all the same
SHARES = sweep([FEW, 1], FEW)
PAGE = 4096

Place = tuple[str, int]  # a file below the cache's folder, and a byte of it


@dataclass(frozen=True)
class Made:
    """A cache, and what was written into it."""

    path: Path
    manifest: Manifest
    values: Mapping[str, NDArray[Any]]
    ids: NDArray[np.int64]
    views: NDArray[np.int64]
    chunks: tuple[tuple[str, Block, StoredChunk], ...]  # of all arrays

    def chunks_of(self, array: str) -> list[tuple[Block, StoredChunk]]:
        return [(block, stored) for name, block, stored in self.chunks if name == array]

    @property
    def folder(self) -> LocalFolder:
        return LocalFolder(self.path)

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())


def write(folder: Path, form: Form, rows: int, classes: int, chunk_rows: int) -> Made:
    store, codec, dtype, top = form
    random = np.random.default_rng(len(str(form)))
    logits = round_to_dtype(random.normal(size=(VIEWS, rows, classes)).astype(np.float32), dtype)
    kept: dict[str, tuple[NDArray[Any], DType]] = {"logits": (logits, dtype)}
    if top:
        index = random.integers(0, classes, (VIEWS, rows, top)).astype(np.int16)
        tail = random.normal(size=(VIEWS, rows, 1)).astype(np.float32)
        kept = {
            "values": (np.ascontiguousarray(logits[:, :, :top]), dtype),
            "indices": (index, "int16"),
            "tail": (tail, "float32"),
        }
    plan = cut_store(
        {name: ArrayPlan(values.shape[2:], kind, codec) for name, (values, kind) in kept.items()},
        VIEWS,
        rows,
        chunk_rows,
        block_chunks=2,
        shard_blocks=2 if top else 1,  # a block a shard, or four: two of each view, or one and empty slots
        shard_views=2 if top else 1,
    )

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        return {name: values[block.view, block.start : block.stop] for name, (values, _) in kept.items()}

    description = {
        **DESCRIPTION,
        "views": {"policy": "flip", "count": VIEWS, "seed": 0, "parameters": {}},
        "dataset": {**DESCRIPTION["dataset"], "samples": rows},
    }
    manifest = writer.write_cache(folder, folder.parent / "work", plan, compute, store=store, description=description)
    values = {name: widen_bfloat16(values, kind) for name, (values, kind) in kept.items()}
    arrays = read_table(LocalFolder(folder), manifest, "").arrays
    chunks = tuple(
        (name, array.grid.chunk(number), array.find(number))
        for name, array in arrays.items()
        for number in range(array.grid.count)
    )
    ids = np.array([0, chunk_rows - 1, chunk_rows, rows - 1])
    return Made(folder, manifest, values, ids, random.integers(0, VIEWS, 4), chunks)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A small cache of every form."""
    folder = tmp_path_factory.mktemp("flips")
    return {
        name: write(folder / name / "dump", form, ROWS, CLASSES, CHUNK) for name, form in zip(NAMES, FORMS, strict=True)
    }


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Caches whose files are some tens of KB, and some hundreds."""
    folder = tmp_path_factory.mktemp("cuts")
    forms: list[Form] = [(store, codec, "float32", 0) for store in CODECS for codec in CODECS[store] if codec != "zstd"]
    return [write(folder / f"{form[0]}-{form[1]}" / "dump", form, 1000, 20, 200) for form in forms]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every copy passes for one that has been hashed: what is left are the checks of each read."""
    monkeypatch.setattr(checked_copies, "is_remembered", lambda *_: True)


@contextmanager
def flipped(path: Path, at: int, bit: int, *, keep_time: bool = False) -> Iterator[None]:
    """A file with one bit changed in place, and changed back."""
    before = path.stat()
    toggle(path, at, bit)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    try:
        yield
    finally:
        toggle(path, at, bit)


def toggle(path: Path, at: int, bit: int) -> None:
    number = os.open(path, os.O_RDWR)
    try:
        os.pwrite(number, bytes([os.pread(number, 1, at)[0] ^ 1 << bit]), at)
    finally:
        os.close(number)


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """A file with other bytes, and put back."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def is_detected(made: Made) -> bool:
    try:
        return not verify_cache(made.folder, read_manifest(made.folder, "")).is_whole
    except InputError:
        return True


def reads_the_same_or_refuses(made: Made) -> None:
    """Open, load and gather: each refuses, or gives exactly what was written. Nothing else may be raised."""
    try:
        opened = cache.open(made.path)
    except InputError:
        return
    for name, values in made.values.items():
        for read, expected in (
            (partial(opened.load, name), values),
            (partial(opened.rows, made.ids, made.views, name), values[made.views, made.ids]),
            (partial(opened.rows, made.ids, 1, name), values[1, made.ids]),
        ):
            try:
                found = read()
            except InputError:
                continue
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes()


def regions(made: Made, name: str) -> list[range]:
    """The parts of a file that mean different things: of each at least a few bytes are flipped."""
    size = (made.path / name).stat().st_size
    spans = sorted(
        (info.offset, info.offset + info.bytes, block.stop == ROWS)
        for _, block, info in made.chunks
        if info.file == name
    )
    found, at = [], 0
    for start, stop, last in spans:
        found += [range(at, start), range(start, stop)]
        found += [range(max(start, stop - 64), stop)] * last  # ends in padding, in Zarr and where it is compressed
        at = stop
    found.append(range(at, size))
    if name.endswith(".h5"):
        found.append(range(min(48, size)))  # the superblock
    elif spans:
        found += [
            range(at, at + CRC_BYTES),
            range(size - CRC_BYTES, size),
        ]  # checksums: of the last chunk, of the index
    if name == "chunks.bin":
        found += [range(start, start + RECORD_BYTES) for start in range(0, size, RECORD_BYTES)]
    return [part for part in found if part]


def places_in(made: Made, random: Random, share: int) -> list[Place]:
    """Bytes of all files but the manifest, of every region."""
    parts = [(name, part) for name in made.manifest.files for part in regions(made, name)]
    each = max(3, FLIPS // len(parts))
    return [(name, at) for name, part in parts for at in random.sample(part, min(each, len(part)))[::share]]


def places_in_lines(made: Made, random: Random) -> list[Place]:
    """Bytes of the manifest: one of every line's value, and of the line itself."""
    places, start = [], 0
    for line in (made.path / "manifest.json").read_bytes().splitlines(keepends=True):
        value = line.find(b": ") + 2 if b": " in line else 0
        places += [start + random.randrange(value, len(line)), start + random.randrange(len(line))]
        start += len(line)
    return [("manifest.json", at) for at in places]


def flips(made: Made, seed: int, share: int = 1) -> list[tuple[Place, int]]:
    """One flip of `share`: a place and a bit."""
    random = Random(f"{made.path.parent.name} {seed}")
    places = places_in(made, random, share) + places_in_lines(made, random)[::share]
    return [(place, random.randrange(8)) for place in places]


def test_the_flips_are_many(caches: dict[str, Made]) -> None:
    assert sum(len(flips(made, 0)) for made in caches.values()) >= 2000
    for made in caches.values():
        text = (made.path / "manifest.json").read_bytes()
        lines = {text.count(b"\n", 0, at) for (name, at), _ in flips(made, 0) if name == "manifest.json"}
        assert lines == set(range(text.count(b"\n")))


@pytest.mark.parametrize("share", [1, FEW])
def test_the_flips_are_everywhere(caches: dict[str, Made], share: int) -> None:
    for made in caches.values():
        places = [place for place, _ in flips(made, 0, share)]
        assert {name for name, _ in places} == set(made.files())
        for _, _, info in made.chunks:
            assert any(name == info.file and 0 <= at - info.offset < info.bytes for name, at in places)
        for number in range(len(made.chunks)):
            assert any(name == "chunks.bin" and at // RECORD_BYTES == number for name, at in places)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_is_found_and_none_is_read(
    caches: dict[str, Made], name: str, share: int, trusted: None
) -> None:
    made = caches[name]
    missed = []
    for (file, at), bit in flips(made, 0, share):
        with flipped(made.path / file, at, bit):
            if not is_detected(made):
                missed.append((file, at, bit))
            reads_the_same_or_refuses(made)
    assert not missed
    assert verify_cache(made.folder, read_manifest(made.folder, "")).is_whole


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", NAMES)
def test_a_checked_copy_is_checked_again_after_any_change(caches: dict[str, Made], name: str, share: int) -> None:
    made = caches[name]
    missed = []
    for (file, at), bit in flips(made, 1, share)[:: 12 if share == 1 else 3]:
        cache.open(made.path)
        seen = checked_copies.compute_signature(made.path, made.manifest.files, made.manifest.root)
        assert checked_copies.is_remembered(made.path, seen)
        tick(made, file)
        with flipped(made.path / file, at, bit, keep_time=True):
            try:
                cache.open(made.path)
            except InputError:
                continue
        missed.append((file, at, bit))
    assert not missed


def tick(made: Made, file: str) -> None:
    """Wait until the file system's clock has gone on (in some kernels by steps of 4 ms)."""
    probe = made.path.parent / "probe"
    probe.touch()
    while probe.stat().st_ctime_ns <= (made.path / file).stat().st_ctime_ns:
        probe.touch()


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_named_by_file_array_view_and_rows(caches: dict[str, Made], name: str) -> None:
    made = caches[name]
    random = Random(name)
    for array, block, info in made.chunks:
        with flipped(made.path / info.file, info.offset + random.randrange(info.bytes), random.randrange(8)):
            found = verify_cache(made.folder, made.manifest)
        assert [each.file for each in found.damage] == [info.file]
        assert found.damage[0].blocks == ((array, block),)
        assert found.lines()[1] == (
            f"{info.file}: damaged chunk: array {array!r}, view {block.view}, rows {block.start} to {block.stop - 1}"
        )


def test_two_damaged_chunks_of_one_file_are_both_named(caches: dict[str, Made]) -> None:
    made = caches["hdf5-none-float32-top"]
    (_, first), (_, last) = made.chunks_of("tail")[1], made.chunks_of("values")[7]
    with flipped(made.path / "data.h5", first.offset, 0), flipped(made.path / "data.h5", last.offset, 7):
        found = verify_cache(made.folder, made.manifest)
    assert [(name, block.name) for name, block in found.damage[0].blocks] == [("values", "1-1"), ("tail", "0-1")]


def test_metadata_and_checksums_damage_no_chunk(caches: dict[str, Made]) -> None:
    made = caches["zarr-none-float32"]
    chunk = made.chunks_of("logits")[3][1]
    checksum, index = chunk.offset + chunk.bytes + 1, (made.path / chunk.file).stat().st_size - 20
    for file, at in (
        ("card.md", 9),
        ("data.zarr/logits/zarr.json", 40),
        (chunk.file, checksum),
        (chunk.file, index),
    ):
        with flipped(made.path / file, at, 3):
            found = verify_cache(made.folder, made.manifest)
        assert [(each.file, each.blocks) for each in found.damage] == [(file, ())]


def cuts(size: int) -> list[int]:
    return sorted({0, size - 1, *range(PAGE, size, PAGE)} - {size})


def test_every_cut_is_found_and_no_cut_file_is_read(larger: list[Made], trusted: None) -> None:
    count = 0
    for made in larger:
        for name in made.files():
            data = (made.path / name).read_bytes()
            for size in cuts(len(data)):
                with replaced(made.path / name, data[:size]):
                    assert is_detected(made), (name, size)
                    assert refused(made), (name, size)
                count += 1
        assert verify_cache(made.folder, made.manifest).is_whole
    assert count >= 150


def refused(made: Made) -> bool:
    try:
        cache.open(made.path)
    except InputError:
        return True
    return False


def test_every_grown_file_is_found(larger: list[Made], trusted: None) -> None:
    for made in larger:
        for name in made.files():
            data = (made.path / name).read_bytes()
            for more in (b"\0", b"\n", b" ", data[-4:], bytes(PAGE), data):
                with replaced(made.path / name, data + more):
                    assert is_detected(made), (name, more[:8])
                    assert refused(made), (name, more[:8])
        assert verify_cache(made.folder, made.manifest).is_whole


def test_a_cut_names_the_chunks_that_are_lost(larger: list[Made]) -> None:
    made = next(
        made for made in larger if made.manifest.store == "hdf5" and made.manifest.arrays["logits"].codec == "none"
    )
    blocks = made.chunks_of("logits")
    data = (made.path / "data.h5").read_bytes()
    with replaced(made.path / "data.h5", data[: blocks[4][1].offset + 1]):
        found = verify_cache(made.folder, made.manifest)
    assert found.damage[0].found == str(blocks[4][1].offset + 1)
    assert [block for _, block in found.damage[0].blocks] == [block for block, _ in blocks[4:]]


@pytest.mark.parametrize("name", ["zarr-none-float32", "zarr-gzip-bfloat16", "hdf5-none-float16", "hdf5-gzip-float32"])
def test_what_changes_after_opening_is_refused_when_it_is_read(caches: dict[str, Made], name: str) -> None:
    made = caches[name]
    _, info = made.chunks_of("logits")[0]
    path = made.path / info.file
    data = path.read_bytes()
    for changed in (
        data[: info.offset + 1],
        data[: info.offset] + bytes(info.bytes) + data[info.offset + info.bytes :],
    ):
        for read in ("load", "rows"):
            opened = cache.open(made.path)
            with replaced(path, changed), pytest.raises(InputError, match=f"file {info.file}"):
                opened.load() if read == "load" else opened.rows(np.array([0]))
    assert isinstance(verify_cache(made.folder, made.manifest), Verification)
    assert verify_cache(made.folder, made.manifest).is_whole
