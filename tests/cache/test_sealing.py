"""What is sealed can be read, mended and written again: the order of arrays, the reader's own rules."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.cache import digests, manifest, rewrite, seal, writer
from pipeline.cache import reader_limits as readability
from pipeline.cache.array_order import sort_arrays
from pipeline.cache.block_files import BlockFiles, FinishedChunk
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import Format
from pipeline.cache.folder import LocalFolder
from pipeline.cache.manifest import Manifest
from pipeline.cache.store_plan import StorePlan
from pipeline.cache.verify import verify_cache
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.dump_fields import DumpRequest, dump_fields, make_field, select_samples
from pipeline.dumps.one_pass import make_block_function
from pipeline.views.view import PLAIN
from tests.cache.test_cache import DESCRIPTION, ROWS, flip
from tests.cache.test_golden import FOLDER, GOLDEN
from tests.cache.test_golden import NAMES as GOLDEN_NAMES
from tests.cache.test_golden import stored as golden_values
from tests.scenes import BATCH, CNN, digits, teacher_of, tree, wanted
from tests.store_plans import cut_store
from tests.stored_chunks import find_chunk

STORES: list[Format] = ["zarr", "hdf5"]
FIELDS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "top-k": ("logits", {"top_k": 3, "temperature": 4.0}, ["values", "indices", "tail"]),
    "hints": ("hints", {"taps": ("features", "block2", "block1")}, ["features", "block2", "block1"]),
    "one hint": ("hints", {"taps": ("block2", "features")}, ["block2", "features"]),
    "affinities": ("affinities", {"batch_size": 50, "perplexity": 5.0, "plans": 2}, ["p", "sample_ids"]),
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


def options_of(name: str, store: Format) -> dict[str, Any]:
    field, options, _ = FIELDS[name]
    return {**options, "codec": "gzip"} if field == "hints" and store == "hdf5" else options


def listed_in(card: Path) -> list[str]:
    """The arrays in the order in which a card lists them."""
    return [line.split("`")[1] for line in card.read_text().splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", FIELDS)
def test_arrays_in_any_order_are_repaired_and_converted(
    tmp_path: Path, dataset: Dataset, name: str, store: Format
) -> None:
    teacher = teacher_of(dataset, CNN)
    field, _, order = FIELDS[name]
    each = wanted(tmp_path, "dump", field, options_of(name, store), store)
    (sealed,) = dump_fields(teacher, dataset, [each], batch=BATCH)
    before = tree(each.target)
    assert listed_in(each.target / "card.md") == order
    for array in order:
        chunk = find_chunk(each.target, 0, array)
        flip(each.target / chunk.file, chunk.offset + chunk.bytes // 2)
    flip(each.target / "card.md", 5)
    found = verify_cache(LocalFolder(each.target), sealed)
    assert len({array for damage in found.damage for array, _ in damage.blocks}) == len(order)
    seen = select_samples(dataset, batch=BATCH, samples="train", views=PLAIN)
    compute = make_block_function(teacher, seen, make_field(teacher, seen, field, each.options))
    rewrite.repair_cache(
        each.target, sealed, found, target=tmp_path / "new", work=tmp_path / "mending", compute=compute
    )
    assert tree(tmp_path / "new") == before
    other: Format = "hdf5" if store == "zarr" else "zarr"
    for source, target, to in (("new", "there", other), ("there", "back", store)):
        codec = sealed.arrays[order[0]].codec if to == store else None
        opened = cache.open(tmp_path / source)
        rewrite.convert_cache(opened, tmp_path / target, tmp_path / f".{target}", store=to, codec=codec)
    assert tree(tmp_path / "back") == before
    assert listed_in(tmp_path / "there/card.md") == order


@pytest.mark.parametrize("name", [name for name in GOLDEN_NAMES if name.startswith("zarr")])
def test_a_cache_that_was_sealed_long_ago_is_repaired(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(FOLDER / name, tmp_path / name))
    made, values = cache.open(folder).manifest, golden_values(name)
    for file in {find_chunk(folder, 3, array).file for array in made.arrays} | {"card.md"}:
        flip(folder / file, 5)
    found = verify_cache(LocalFolder(folder), made)

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        return {array: rows[block.view, block.start : block.stop] for array, rows in values.items()}

    rewrite.repair_cache(folder, made, found, target=tmp_path / "new", work=tmp_path / "work", compute=compute)
    assert cache.open(tmp_path / "new").manifest.root == GOLDEN["digests"][name]["root"]
    assert tree(tmp_path / "new") == tree(FOLDER / name)


@pytest.mark.parametrize("store", STORES)
def test_whoever_writes_the_order_is_one(tmp_path: Path, store: Format) -> None:
    names = ["b", "values", "a", "tail", "indices"]
    for number, given in enumerate((names, names[::-1], sorted(names))):
        plan = cut_store({name: ArrayPlan((2,), "float32") for name in given}, 1, ROWS, 32)
        writer.write_cache(
            tmp_path / f"{number}", tmp_path / "work", plan,
            lambda block: {name: np.full((block.stop - block.start, 2), len(name), "f4") for name in names},
            store=store, description=DESCRIPTION,
        )  # fmt: skip
        assert tree(tmp_path / f"{number}") == tree(tmp_path / "0")
    assert listed_in(tmp_path / "0/card.md") == ["values", "indices", "tail", "a", "b"]
    if store == "hdf5":
        with h5py.File(tmp_path / "0/data.h5", locking=False) as file:
            offsets = {name: file[name].id.get_offset() for name in file}
        assert sorted(offsets, key=lambda name: offsets[name]) == ["values", "indices", "tail", "a", "b"]


@pytest.mark.parametrize(
    ("taps", "order"),
    [
        (["z", "a"], ["z", "a", "tail", "values"]),
        (("z", "tail"), ["z", "tail", "a", "values"]),
        (None, ["values", "tail", "a", "z"]),
        (7, ["values", "tail", "a", "z"]),
        ([{}, None, 1, "z", []], ["z", "a", "tail", "values"]),
    ],
)
def test_the_order_follows_from_the_field_alone(taps: Any, order: list[str]) -> None:
    arrays = dict.fromkeys(["a", "tail", "z", "values"], 0)
    assert list(sort_arrays(arrays, {"name": "x", "parameters": {"taps": taps}})) == order


# Sealed, and read back.


def json_deep(levels: int) -> Any:
    return {"a": json_deep(levels - 1)} if levels else 1


def plan_of(rows: int, chunk_rows: int = 1, names: tuple[str, ...] = ("logits",), views: int = 1) -> StorePlan:
    return cut_store({name: ArrayPlan((1,), "float16") for name in names}, views, rows, chunk_rows)


def described(**changes: Any) -> dict[str, Any]:
    """A description, some of whose entries are changed, by dotted names with `__`."""
    made: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value for key, value in DESCRIPTION.items()
    }
    made["dataset"]["samples"] = 1 << 30
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            made[section][key] = value
        else:
            made[section] = value
    return made


def attempt(folder: Path, plan: StorePlan, store: Format = "zarr", **changes: Any) -> str:
    """Write a cache that must be refused before its first block is asked for; the message."""

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        raise AssertionError("nothing is computed for a cache that nobody could read")

    with pytest.raises(InputError) as caught:
        writer.write_cache(
            folder / "dump", folder / "work", plan, compute, store=store, description=described(**changes)
        )
    assert list(folder.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("names", [("logits",), ("a", "b" * 100)])
def test_a_manifest_just_over_the_limit_is_refused_at_the_start(
    tmp_path: Path, store: Format, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readability, "MAX_MANIFEST_BYTES", limit := 40_000)
    monkeypatch.setattr("pipeline.cache.folder.MAX_MANIFEST_BYTES", limit)
    plan = plan_of(3, names=names)
    taken = [size for size in range(34_000, 40_000, 100) if _is_taken(plan, store, "c" * size)]
    assert taken == list(range(34_000, taken[-1] + 1, 100))
    writer.write_cache(
        tmp_path / "a/dump", tmp_path / "a/work", plan, lambda _: {name: np.ones((1, 1), "f2") for name in names},
        store=store, description=described(dataset__classes=["c" * taken[-1]]),
    )  # fmt: skip
    cache.open(tmp_path / "a/dump")
    assert limit - 300 < (tmp_path / "a/dump/manifest.json").stat().st_size <= limit  # none that has room is refused
    shutil.rmtree(tmp_path / "a")
    message = attempt(tmp_path, plan, store, dataset__classes=["c" * (taken[-1] + 100)])
    assert "manifest: expected at most 0 MiB, as readers do, found up to " in message
    assert "shorten the names of classes, or the parameters; nothing was computed" in message


def _is_taken(plan: StorePlan, store: Format, label: str) -> bool:
    try:
        readability.refuse_unreadable(Path("dump"), plan, store, described(dataset__classes=[label]))
    except InputError:
        return False
    return True


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(("views", "rows"), [(1, 12), (12, 1), (3, 4)])
def test_one_chunk_too_many_is_refused_at_the_start(
    tmp_path: Path, store: Format, views: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, changes = plan_of(rows, views=views), {"views": {**DESCRIPTION["views"], "count": views}}
    for where in (readability, manifest):
        monkeypatch.setattr(where, "MAX_CHUNKS", views * rows - 1)
    message = attempt(tmp_path, plan, store, **changes)
    assert "chunks.bin: expected at most 11 chunks, as readers do, found 12, of" in message
    for where in (readability, manifest):
        monkeypatch.setattr(where, "MAX_CHUNKS", views * rows)
    writer.write_cache(
        tmp_path / "dump", tmp_path / "work", plan, lambda _: {"logits": np.ones((1, 1), "f2")},
        store=store, description=described(**changes),
    )  # fmt: skip
    assert cache.open(tmp_path / "dump").load().shape == (views, rows, 1)


@pytest.mark.parametrize(("views", "rows"), [(1, 1 << 27), (1 << 27, 1), (1 << 31, 1), (3, 1 << 40)])
def test_far_too_many_chunks_are_refused_without_counting_them(tmp_path: Path, views: int, rows: int) -> None:
    message = attempt(tmp_path, plan_of(rows, views=views), views={**DESCRIPTION["views"], "count": views})
    assert f"chunks.bin: expected at most {manifest.MAX_CHUNKS:,} chunks, as readers do, found " in message
    assert f"found {views * rows:,}, of {views:,} views or plans of 1 arrays" in message
    assert "dump fewer views, plans, taps or samples into one cache, in larger chunks; nothing was computed" in message


BAD = "ch\udce9vre"  # what Python makes of a file name that is no UTF-8
UNREADABLE: list[tuple[str, dict[str, Any], str]] = [
    ("a class of no UTF-8", {"dataset__classes": ["a", BAD]}, r"dataset.classes.1: expected text that UTF-8 can hold, found 'ch\udce9vre'; rename it"),
    ("a data set of no UTF-8", {"dataset__name": BAD}, "dataset.name: expected text that UTF-8 can hold"),
    ("a teacher of no UTF-8", {"teacher__name": BAD}, "teacher.name: expected text"),
    ("a tap of no UTF-8", {"field__parameters": {"taps": ["a", BAD]}}, "field.parameters.taps.1: expected text"),
    ("an option of no UTF-8", {"views__parameters": {BAD: 1}}, "views.parameters: expected text"),
    ("classes of 9 MB", {"dataset__classes": ["a" * (9 << 20)]}, "manifest: expected at most 8 MiB"),
    ("options 20 deep", {"teacher__architecture": {"a": json_deep(20)}}, "nested more than 16 deep"),
    ("NaN", {"teacher__test_accuracy": float("nan")}, "manifest: expected JSON values, found Out of range float"),
    ("accuracy of 90", {"teacher__test_accuracy": 90.0}, "teacher.test_accuracy: Input should be less than"),
    ("accuracy without fraction", {"teacher__test_accuracy": 1}, "the bytes that were sealed"),
    ("a short digest", {"teacher__weights_sha256": "ab"}, "teacher.weights_sha256"),
    ("an unknown entry", {"mood": "good"}, "mood: unknown entry"),
    ("other views", {"views__count": 2}, "arrays.logits.shape: expected to begin with [2, 5], found [1, 5, 1]"),
    ("more rows than samples", {"dataset__samples": 4}, "rows: expected at most the 4 samples, found 5"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_what_no_reader_takes_is_refused_at_the_start(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in attempt(tmp_path, plan_of(5), **changes)


@pytest.mark.parametrize("name", ["a/b", "..", "b" * 101, "λ"])
def test_an_array_that_a_reader_refuses_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    message = attempt(tmp_path, plan_of(5, names=(name,)))
    assert f"arrays.{name}.[key]: String should match pattern" in message


@pytest.mark.parametrize("store", STORES)
def test_what_was_sealed_wrong_is_never_published(
    tmp_path: Path, store: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(number: float) -> Manifest:
        values = np.full((5, 1), number, "f2")
        return writer.write_cache(
            tmp_path / "dump", tmp_path / "work", plan_of(5, 5), lambda _: {"logits": values},
            store=store, description=described(),
        )  # fmt: skip

    write(1)
    before = tree(tmp_path / "dump")

    def sealed(entries: dict[str, Any]) -> Manifest:
        return manifest.seal_manifest(
            {**entries, "files": {**entries["files"], "card.md": {"bytes": 1, "sha256": "0" * 64}}}
        )

    monkeypatch.setattr(seal, "seal_manifest", sealed)
    with pytest.raises(InputError, match=r"file card.md: expected 1 bytes, found \d+; nothing was published"):
        write(2)
    assert tree(tmp_path / "dump") == before


def test_sealing_reads_each_block_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, hashed = [], dict[str, int]()
    real_read, real_hash = BlockFiles.read, digests.hash_outside

    def reading(self: BlockFiles, name: str, block: Block) -> list[FinishedChunk]:
        read.append((name, block))
        return real_read(self, name, block)

    def hashing(folder: Path, files: Any, title: str) -> dict[str, str]:
        sizes = {name: (folder / name).stat().st_size for name in files}
        hashed.update({name: sizes[name] - int(records["bytes"].sum()) for name, records in files.items()})
        return real_hash(folder, files, title)

    monkeypatch.setattr(BlockFiles, "read", reading)
    monkeypatch.setattr(seal, "hash_outside", hashing)
    made = writer.write_cache(
        tmp_path / "dump", tmp_path / "work", plan_of(5, 2), lambda block: {"logits": np.ones((block.stop - block.start, 1), "f2")},
        store="zarr", description=described(),
    )  # fmt: skip
    assert read == [("logits", block) for block in plan_of(5, 2).blocks()]
    shards = {f"data.zarr/logits/c/0/{number}/0" for number in range(3)}
    whole = {"card.md", "chunks.bin", "data.zarr/logits/zarr.json", "data.zarr/zarr.json"}
    assert hashed.keys() == made.files.keys() == shards | whole
    assert {name: hashed[name] for name in whole} == {name: made.files[name].bytes for name in whole}
    # Of a shard again no byte of rows, but the checksum of its chunk, and its index of one place and a checksum.
    assert {hashed[name] for name in shards} == {4 + 16 + 4}


def test_a_dump_of_several_is_refused_before_any_is_computed(tmp_path: Path, dataset: Dataset) -> None:
    teacher = teacher_of(dataset, CNN)
    teacher = replace(teacher, card={**teacher.card, "name": BAD})
    each = [DumpRequest(tmp_path / name, tmp_path / f".{name}", "logits", {}, "zarr") for name in ("a", "b")]
    with pytest.raises(InputError, match=r"a: teacher\.name: expected text"):
        dump_fields(teacher, dataset, each, batch=BATCH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("at", [0, 3, 70, 79, 80, 83, 84, -5, -1])
def test_no_store_takes_a_block_that_has_changed(tmp_path: Path, store: Format, at: int) -> None:
    plan = cut_store({"logits": ArrayPlan((2,), "float32")}, 1, 20, 10, block_chunks=2)
    blocks, (block,) = BlockFiles(tmp_path, plan, store), plan.blocks()
    values = np.arange(40, dtype="f4").reshape(20, 2)
    blocks.write("logits", block, values)
    assert [len(chunk.payload) for chunk in blocks.read("logits", block)] == [80, 80]
    assert blocks.has(block)
    path = blocks.path("logits", block)
    for damaged in (flipped(path.read_bytes(), at), path.read_bytes()[:at], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="expected a block as it was written, found other bytes; run it again"):
            blocks.read("logits", block)
        assert not path.exists()  # the next run makes it again
        assert blocks.missing_blocks() == [block]
        blocks.write("logits", block, values)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0xFF
    return bytes(changed)
