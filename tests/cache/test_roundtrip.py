"""Whatever is written is read: any shapes, number formats, chunks, codecs and stores."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import cache
from pipeline.cache.block_files import BlockFiles, FinishedChunk
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import CODECS, Codec, Format, decode, encode, is_padded
from pipeline.cache.dtypes import DType, round_to_dtype, storage_dtype, widen_bfloat16
from pipeline.cache.manifest import Manifest
from pipeline.cache.store_plan import StorePlan
from pipeline.cache.writer import write_cache
from tests.cache.test_cache import DESCRIPTION, tree
from tests.store_plans import cut_store

DTYPES: tuple[DType, ...] = get_args(DType)
FORMS: list[tuple[Format, Codec]] = [(store, codec) for store in CODECS for codec in CODECS[store]]

# Many files an example, each flushed to the disk: the default run has a third of the examples.
fewer = settings(max_examples=settings().max_examples // 3)
fewest = settings(max_examples=settings().max_examples // 9)


@dataclass(frozen=True)
class Cut:
    """Rows of a chunk, chunks of a block, blocks and views of a shard."""

    chunk_rows: int
    block_chunks: int
    shard_blocks: int
    shard_views: int

    def plan(self, arrays: Mapping[str, ArrayPlan], views: int, rows: int) -> StorePlan:
        whole = -(-rows // (self.chunk_rows * self.block_chunks))
        shard_blocks = whole if self.shard_views > 1 else self.shard_blocks  # several views: whole ones
        return cut_store(
            arrays, views, rows, self.chunk_rows,
            block_chunks=self.block_chunks, shard_blocks=shard_blocks, shard_views=self.shard_views,
        )  # fmt: skip


@st.composite
def cuts(draw: st.DrawFn, rows: int) -> Cut:
    most = st.integers(1, 4)
    return Cut(draw(st.integers(max(1, rows // 12), rows)), draw(most), draw(most), draw(st.integers(1, 3)))


@dataclass(frozen=True)
class Written:
    """Arrays (views, rows, ...) as they are stored, and how they are cut."""

    arrays: Mapping[str, NDArray[Any]]
    dtypes: Mapping[str, DType]
    views: int
    rows: int
    cut: Cut

    def write(
        self, folder: Path, store: Format, codec: Codec, cut: Cut | None = None, stop_at: int | None = None
    ) -> Manifest:
        plans = {name: ArrayPlan(array.shape[2:], self.dtypes[name], codec) for name, array in self.arrays.items()}
        plan = (cut or self.cut).plan(plans, self.views, self.rows)

        left = itertools.count()

        def compute(block: Block) -> dict[str, NDArray[Any]]:
            if next(left) == stop_at:
                raise KeyboardInterrupt
            return {name: array[block.view, block.start : block.stop] for name, array in self.arrays.items()}

        described = {**DESCRIPTION, "views": {**DESCRIPTION["views"], "count": self.views}}
        return write_cache(folder / "dump", folder / "work", plan, compute, store=store, description=described)


def patterns(generator: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> NDArray[Any]:
    """Any bits at all: NaN of every kind, infinities, denormals, both zeros."""
    size = math.prod(shape) * storage_dtype(dtype).itemsize
    return np.frombuffer(generator.bytes(size), storage_dtype(dtype)).reshape(shape)


@st.composite
def written(draw: st.DrawFn) -> Written:
    views, rows = draw(st.integers(1, 3)), draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays: dict[str, NDArray[Any]] = {}
    dtypes: dict[str, DType] = {}
    for name in ["logits", "b-2.x"][: draw(st.integers(1, 2))]:
        dtypes[name] = draw(st.sampled_from(DTYPES))
        row_shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
        arrays[name] = patterns(generator, (views, rows, *row_shape), dtypes[name])
    return Written(arrays, dtypes, views, rows, draw(cuts(rows)))


def meant(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """What the stored bits mean: bfloat16 as float32, by torch."""
    if dtype != "bfloat16":
        return values
    widened: NDArray[Any] = torch.from_numpy(values.astype(np.uint16)).view(torch.bfloat16).float().numpy()
    return widened


def same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """The same type, shape and bits, NaN included."""
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@st.composite
def asked(draw: st.DrawFn, views: int, rows: int) -> tuple[Any, Any]:
    """Sample ids, in any order and more than once, as any integers; a view for all or one each."""
    ids = draw(st.lists(st.integers(0, rows - 1), max_size=20))
    kind = draw(st.sampled_from(["int64", "int32", "uint8", "uint64", "list"]))
    view = draw(
        st.one_of(
            st.integers(0, views - 1),
            st.integers(0, views - 1).map(np.int64),
            st.lists(st.integers(0, views - 1), min_size=len(ids), max_size=len(ids)).map(
                lambda drawn: np.array(drawn, np.int64)
            ),
        )
    )
    return (ids if kind == "list" else np.array(ids, kind)), view


def read_what_is_written(made: Written, form: tuple[Format, Codec], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made.write(Path(folder), *form)
        opened, gathered = cache.open(Path(folder) / "dump"), cache.open(Path(folder) / "dump")
        for name, values in made.arrays.items():
            expected = meant(values, made.dtypes[name])
            assert same(opened.load(name), expected)
            for _ in range(3):
                ids, view = data.draw(asked(made.views, made.rows))
                picked = np.asarray(ids, np.int64)
                assert same(gathered.rows(ids, view, name), expected[view, picked])


reading = given(made=written(), form=st.sampled_from(FORMS), data=st.data())
test_what_is_written_is_read = fewer(reading(read_what_is_written))
test_what_is_written_is_read_at_length = pytest.mark.exhaustive(reading(read_what_is_written))


def digest_every_form(made: Written, data: st.DataObject) -> None:
    other = data.draw(cuts(made.rows))
    different = {made.cut, other} if made.cut.chunk_rows != other.chunk_rows else {made.cut}
    with tempfile.TemporaryDirectory() as folder:
        manifests = [
            made.write(Path(folder) / f"{number}", *form, cut)
            for number, (form, cut) in enumerate(itertools.product(FORMS, different))
        ]
    assert len({manifest.values for manifest in manifests}) == 1
    assert len({manifest.root for manifest in manifests}) == len(manifests)


digesting = given(made=written(), data=st.data())
test_the_digest_of_the_values_knows_no_form = fewest(digesting(digest_every_form))
test_the_digest_of_the_values_knows_no_form_at_length = pytest.mark.exhaustive(fewer(digesting(digest_every_form)))


def write_twice(made: Written, form: tuple[Format, Codec]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            made.write(Path(folder) / name, *form)
        first, second = (tree(Path(folder) / name / "dump") for name in ("a", "b"))
    assert first == second


def stop_and_go_on(made: Written, form: tuple[Format, Codec], data: st.DataObject) -> None:
    """A dump that stops at some block, and again while its store is assembled, ends with the same bytes."""
    blocks = list(made.cut.plan({}, made.views, made.rows).blocks())
    after = data.draw(st.integers(0, len(blocks)))
    real, reads = BlockFiles.read, data.draw(st.integers(0, 2 * len(blocks) * len(made.arrays)))
    left = [reads]

    def read(self: BlockFiles, name: str, block: Block) -> list[FinishedChunk]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, name, block)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        whole, stopped = Path(folder) / "whole", Path(folder) / "stopped"
        made.write(whole, *form)
        with suppress(KeyboardInterrupt):
            made.write(stopped, *form, stop_at=after)
        patch.setattr(BlockFiles, "read", read)
        with suppress(KeyboardInterrupt):
            made.write(stopped, *form)
        patch.undo()
        made.write(stopped, *form)
        assert tree(stopped / "dump") == tree(whole / "dump")
        assert not (stopped / "work").exists()


stopping = given(made=written(), form=st.sampled_from(FORMS), data=st.data())
test_a_stopped_dump_ends_with_the_same_bytes = fewer(stopping(stop_and_go_on))
test_a_stopped_dump_ends_with_the_same_bytes_at_length = pytest.mark.exhaustive(stopping(stop_and_go_on))


writing = given(made=written(), form=st.sampled_from(FORMS))
test_the_same_values_give_the_same_bytes = fewer(writing(write_twice))
test_the_same_values_give_the_same_bytes_at_length = pytest.mark.exhaustive(writing(write_twice))


@fewer
@given(made=written(), form=st.sampled_from(FORMS), data=st.data())
def test_one_other_bit_is_another_digest(made: Written, form: tuple[Format, Codec], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(made.arrays)))
    changed = made.arrays[name].copy()
    raw = changed.reshape(-1).view(np.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = Written({**made.arrays, name: changed}, made.dtypes, made.views, made.rows, made.cut)
    with tempfile.TemporaryDirectory() as folder:
        assert made.write(Path(folder) / "a", *form).values != other.write(Path(folder) / "b", *form).values


@given(
    seed=st.integers(0, 2**32),
    row_shape=st.lists(st.integers(1, 5), max_size=3),
    dtype=st.sampled_from(DTYPES),
    chunk_rows=st.integers(1, 20),
    form=st.sampled_from(FORMS),
    data=st.data(),
)
def test_a_block_is_encoded_and_decoded(
    seed: int, row_shape: list[int], dtype: DType, chunk_rows: int, form: tuple[Format, Codec], data: st.DataObject
) -> None:
    store, codec = form
    rows = data.draw(st.integers(1, chunk_rows))
    values = patterns(np.random.default_rng(seed), (rows, *row_shape), dtype)
    payload = encode(values, chunk_rows=chunk_rows, codec=codec, store=store)
    decoded = decode(
        np.frombuffer(payload, np.uint8),
        dtype=dtype,
        row_shape=tuple(row_shape),
        chunk_rows=chunk_rows,
        codec=codec,
        store=store,
    )
    assert same(decoded[:rows], values)
    assert len(decoded) == (chunk_rows if is_padded(store, codec) else rows)
    assert not decoded[rows:].view(np.uint8).any()


@pytest.mark.parametrize(("store", "codec"), [form for form in FORMS if form[1] != "none"])
@pytest.mark.parametrize(
    "change", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: p + p, lambda p: b"", lambda p: p[8:]]
)
def test_a_stream_of_another_length_is_refused(store: Format, codec: Codec, change: Any) -> None:
    payload = bytes(encode(np.arange(40.0).reshape(8, 5), chunk_rows=8, codec=codec, store=store))
    with pytest.raises(ValueError, match=r"zstd|gzip|destination buffer"):
        decode(
            np.frombuffer(change(payload), np.uint8),
            dtype="int64",
            row_shape=(5,),
            chunk_rows=8,
            codec=codec,
            store=store,
        )


SPECIAL = np.array(
    [
        0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1.0, -1.0, 65504.0, 65520.0, 3.4e38, 3.4028235e38, -3.4028235e38, 3.3961776e38,
        1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 9.2e-41, 4.6e-41, 4.5917e-41, 1.00390625, 1.01171875, 1.0058594,
    ],
    np.float32,
)  # fmt: skip


def float32s() -> NDArray[np.float32]:
    """Special values, denormals, ties of every exponent, and a million random bit patterns."""
    generator = np.random.default_rng(0)
    any_bits = np.frombuffer(generator.bytes(4 << 20), "<f4")
    denormal = np.frombuffer(generator.bytes(4 << 14), "<u4") & 0x807FFFFF
    tie = (np.frombuffer(generator.bytes(4 << 14), "<u4") & 0xFFFF0000) | 0x8000
    return np.concatenate([SPECIAL, any_bits, denormal.view("<f4"), tie.view("<f4")])


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    values = float32s()
    ours = round_to_dtype(values, "bfloat16")
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    bits = theirs.view(torch.int16).numpy().view(np.uint16)
    number = ~np.isnan(values)
    assert 0.9 < number.mean() < 1.0
    assert np.isinf(widen_bfloat16(ours, "bfloat16")[number & np.isfinite(values)]).any()
    assert ours.dtype == np.dtype("<u2")
    assert np.array_equal(ours[number], bits[number])
    assert np.isnan(widen_bfloat16(ours, "bfloat16")[~number]).all()
    widened = theirs.float().numpy()
    assert np.array_equal(widen_bfloat16(ours, "bfloat16"), widened, equal_nan=True)
    assert np.array_equal(np.signbit(widen_bfloat16(ours, "bfloat16")[number]), np.signbit(widened[number]))


def test_bfloat16_that_is_stored_is_not_rounded_again() -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    wide = widen_bfloat16(bits, "bfloat16")
    assert np.array_equal(round_to_dtype(wide, "bfloat16")[~np.isnan(wide)], bits[~np.isnan(wide)])
    assert np.isnan(wide).sum() == 2 * 127


def test_float16_is_rounded_as_torch_rounds() -> None:
    values = float32s()
    ours, theirs = round_to_dtype(values, "float16"), torch.from_numpy(values).half().numpy()
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert np.isinf(ours[np.isfinite(values)]).any()
