"""Rows of compressed fields, whatever is held of them: any budget, any thread, any process, any damage."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.cache import decoded_array
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import CODECS, Codec, Format
from pipeline.cache.decoded_array import DecodedArray
from pipeline.cache.folder import LocalFolder
from pipeline.cache.writer import write_cache
from tests.cache.test_cache import DESCRIPTION, flip
from tests.store_plans import cut_store
from tests.stored_chunks import find_chunk

VIEWS, ROWS, WIDTH, CHUNK_ROWS = 3, 70, 4, 8
CHUNK_BYTES = CHUNK_ROWS * WIDTH * 4
PER_VIEW = 9  # chunks
PACKED: list[tuple[Format, Codec]] = [(store, codec) for store in CODECS for codec in CODECS[store] if codec != "none"]
packed = pytest.mark.parametrize(("store", "codec"), PACKED)


def values() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(VIEWS, ROWS, WIDTH)).astype("f4")


def write(folder: Path, store: Format = "zarr", codec: Codec = "zstd") -> Path:
    array = values()

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        return {"logits": array[block.view, block.start : block.stop]}

    plan = cut_store(
        {"logits": ArrayPlan((WIDTH,), "float32", codec)}, VIEWS, ROWS, CHUNK_ROWS,
        block_chunks=2, shard_blocks=2, shard_views=2,
    )  # fmt: skip
    described = {**DESCRIPTION, "views": {**DESCRIPTION["views"], "count": VIEWS}}
    write_cache(folder / "dump", folder / "work", plan, compute, store=store, description=described)
    return folder / "dump"


def open_array(folder: Path, chunks: int, monkeypatch: pytest.MonkeyPatch) -> tuple[DecodedArray, list[int]]:
    """The array with room for so many chunks, and the numbers of those that it decodes from now on."""
    opened = cache.open(folder)
    assert isinstance(opened.folder, LocalFolder)
    table, store = opened.table.arrays["logits"], opened.manifest.store
    made, decoded = DecodedArray(opened.folder, table, store, "dump it again", chunks * CHUNK_BYTES), list[int]()
    real = DecodedArray._decode_chunk

    def decode(self: DecodedArray, number: int, read: Any) -> NDArray[Any]:
        decoded.append(number)
        return real(self, number, read)

    monkeypatch.setattr(DecodedArray, "_decode_chunk", decode)
    return made, decoded


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Format, Codec], Path]:
    """A cache of each form that is compressed; for reading alone."""
    base = tmp_path_factory.mktemp("decoded")
    return {form: write(base / "-".join(form), *form) for form in PACKED}


KEYS = st.lists(st.tuples(st.integers(0, VIEWS - 1), st.integers(0, ROWS - 1)), max_size=60)


@given(
    form=st.sampled_from(PACKED),
    memory=st.integers(-1, 40 * CHUNK_BYTES),
    batches=st.lists(KEYS, min_size=1, max_size=4),
)
def test_any_budget_gives_the_same_rows(
    dumps: dict[tuple[Format, Codec], Path], form: tuple[Format, Codec], memory: int, batches: list[Any]
) -> None:
    opened, expected = cache.open(dumps[form], memory=memory), values()
    for keys in batches:
        views, ids = np.array(keys, np.int64).reshape(-1, 2).T
        assert opened.rows(ids, views).tobytes() == expected[views, ids].tobytes()
    assert opened.load().tobytes() == expected.tobytes()


@pytest.mark.parametrize("memory", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 5 * CHUNK_BYTES, 1 << 30])
@packed
def test_no_more_is_held_than_the_caller_says(
    dumps: dict[tuple[Format, Codec], Path], store: Format, codec: Codec, memory: int
) -> None:
    opened = cache.open(dumps[store, codec], memory=memory)
    every = np.tile(np.arange(ROWS), VIEWS), np.repeat(np.arange(VIEWS), ROWS)
    assert np.array_equal(opened.rows(*every), values().reshape(-1, WIDTH))
    array = opened._arrays["logits"]
    assert isinstance(array, DecodedArray)
    assert array.slots is not None
    assert array.slots.nbytes <= max(memory, CHUNK_BYTES)  # one is needed in any case
    assert array.slots.nbytes == CHUNK_BYTES * max(1, min(VIEWS * PER_VIEW, memory // CHUNK_BYTES))


def first_rows(*chunks: int) -> NDArray[np.int64]:
    """A row of each of these chunks of view 0."""
    return np.array(chunks, np.int64) * CHUNK_ROWS


def test_what_was_used_least_recently_is_given_up_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array, decoded = open_array(write(tmp_path), 3, monkeypatch)
    for asked, expected in (
        ([0, 1, 2], [0, 1, 2]),
        ([0], []),
        ([3], [3]),  # in the place of 1 or 2, and not of 0
        ([0, 3], []),
        ([0, 3, 4], [4]),
        ([0, 3, 4], []),
        ([5, 6], [5, 6]),
        ([5, 6, 5], []),
    ):
        decoded.clear()
        assert np.array_equal(array.gather(0, first_rows(*asked)), values()[0, first_rows(*asked)])
        assert sorted(decoded) == expected
    decoded.clear()
    for chunk in (6, 7, 5):  # 6 and 5 are there, and the third made room for 7
        array.gather(0, first_rows(chunk))
    assert decoded == [7]


def test_a_chunk_is_decoded_once_for_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array, decoded = open_array(write(tmp_path), 2, monkeypatch)
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(ROWS), 3))
    assert np.array_equal(array.gather(1, ids), values()[1, ids])
    assert sorted(decoded) == list(range(PER_VIEW, 2 * PER_VIEW))  # once each, though two fit


@pytest.mark.parametrize("chunks", [1, 3, 30])
def test_threads_share_what_is_decoded(tmp_path: Path, chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    array, decoded = open_array(write(tmp_path), chunks, monkeypatch)
    expected = values()

    def read(seed: int) -> bool:
        generator = np.random.default_rng(seed)
        for _ in range(20):
            views, ids = generator.integers(0, VIEWS, 32), generator.integers(0, ROWS, 32)
            if not np.array_equal(array.gather(views, ids), expected[views, ids]):
                return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read, range(6)))
    if chunks > VIEWS * PER_VIEW:
        assert sorted(decoded) == list(range(VIEWS * PER_VIEW))


@pytest.mark.parametrize("memory", [1, 1 << 30])
@packed
def test_another_process_decodes_for_itself(
    dumps: dict[tuple[Format, Codec], Path], store: Format, codec: Codec, memory: int
) -> None:
    opened = cache.open(dumps[store, codec], memory=memory)
    opened.rows(np.arange(ROWS))
    copied = pickle.loads(pickle.dumps(opened))
    assert copied.memory == memory
    assert copied._arrays["logits"].slots is None
    assert np.array_equal(copied.rows(np.arange(ROWS), 2), values()[2])
    assert len(pickle.dumps(opened)) < 20_000  # what is decoded stays behind


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no other way to fork")
def test_a_fork_has_threads_of_its_own(tmp_path: Path) -> None:
    opened = cache.open(write(tmp_path), memory=2 * CHUNK_BYTES)
    opened.rows(np.arange(ROWS))  # the parent's threads are there, and idle
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(opened.rows(np.arange(ROWS), 1), values()[1]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(opened.rows(np.arange(ROWS), 2), values()[2])


@pytest.mark.parametrize("chunks", [1, 3, 30])
@packed
def test_a_damaged_chunk_is_refused_whenever_it_is_asked_for(
    tmp_path: Path, store: Format, codec: Codec, chunks: int
) -> None:
    folder = write(tmp_path, store, codec)
    opened = cache.open(folder, memory=chunks * CHUNK_BYTES)
    opened.rows(first_rows(0, 1))
    damaged = find_chunk(folder, 4)
    flip(folder / damaged.file, damaged.offset + damaged.bytes // 2)
    for _ in range(3):
        for asked in ([4], [4, 0], [3, 4, 5], range(PER_VIEW)):
            with pytest.raises(InputError, match="expected the chunk that was sealed, found another CRC-32C"):
                opened.rows(first_rows(*asked))
        others = np.array([row for row in range(ROWS) if row // CHUNK_ROWS != 4])
        assert np.array_equal(opened.rows(others), values()[0, others])
        assert np.array_equal(opened.rows(np.arange(ROWS), 1), values()[1])
    with pytest.raises(InputError, match="another CRC-32C"):
        opened.load()


def test_what_is_held_survives_the_damage_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    array, decoded = open_array(folder, 4, monkeypatch)
    array.gather(0, first_rows(0, 1, 2))
    damaged = find_chunk(folder, 4)
    flip(folder / damaged.file, damaged.offset)
    for _ in range(3):
        with pytest.raises(InputError):
            array.gather(0, first_rows(0, 4))
    decoded.clear()
    assert np.array_equal(array.gather(0, first_rows(0, 1, 2)), values()[0, first_rows(0, 1, 2)])
    assert decoded == []


def test_no_thread_still_writes_when_a_damaged_chunk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    monkeypatch.setattr(decoded_array, "count_threads", lambda: 4)
    array, _ = open_array(folder, 4, monkeypatch)
    damaged = find_chunk(folder, 0)
    flip(folder / damaged.file, damaged.offset)
    real, running = DecodedArray._decode_chunk, list[int]()

    def slowly(self: DecodedArray, number: int, read: Any) -> NDArray[Any]:
        if number == 0:
            return real(self, number, read)
        running.append(number)
        time.sleep(0.05)
        rows = real(self, number, read)
        running.remove(number)
        return rows

    monkeypatch.setattr(DecodedArray, "_decode_chunk", slowly)
    with pytest.raises(InputError):
        array.gather(0, first_rows(0, 1, 2, 3))
    assert running == []  # else its rows would come into a slot that has been given to another chunk
    assert np.array_equal(array.gather(0, first_rows(5, 6, 7, 8)), values()[0, first_rows(5, 6, 7, 8)])


def test_a_url_holds_chunks_within_the_budget_too(tmp_path: Path) -> None:
    folder = write(tmp_path, codec="none")
    fsspec.filesystem("memory").put(str(folder), "/budget", recursive=True)
    opened = cache.open("memory://budget", memory=2 * CHUNK_BYTES)
    assert np.array_equal(opened.rows(np.arange(ROWS)), values()[0])
    array = opened._arrays["logits"]
    assert isinstance(array, DecodedArray)
    assert array.slots is not None
    assert array.slots.nbytes == 2 * CHUNK_BYTES
