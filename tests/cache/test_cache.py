from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import h5py
import numpy as np
import psutil
import pytest
import zarr
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base import checked_copies, files
from pipeline.base.errors import InputError
from pipeline.cache import rewrite, writer
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import Codec
from pipeline.cache.crc import crc32c, crc_to_bytes
from pipeline.cache.dtypes import DType
from pipeline.cache.folder import LocalFolder
from pipeline.cache.manifest import ComputedInfo, Manifest
from pipeline.cache.store_plan import StorePlan
from pipeline.cache.stores import load_store
from pipeline.cache.verify import verify_cache
from tests.conftest import note_hashed_folders
from tests.store_plans import cut_store
from tests.stored_chunks import find_chunk

Store = Literal["zarr", "hdf5"]
STORES: list[Store] = ["zarr", "hdf5"]
ROWS, CLASSES = 70, 5

DESCRIPTION: dict[str, Any] = {
    "field": {"name": "logits", "parameters": {"dtype": "float32"}},
    "teacher": {
        "name": "big", "architecture": {"name": "mlp"}, "seed": None, "weights_sha256": "ab" * 32, "test_accuracy": 0.9,
        "test_accuracy_per_class": [0.9] * CLASSES,
    },
    "dataset": {
        "name": "digits", "fingerprint": "cd" * 32, "samples": 100, "shape": [1, 8, 8], "bounds": [70, 80],
        "classes": list("abcde"),
    },
    "views": {"policy": "none", "count": 1, "seed": 0, "parameters": {}},
    "batch": 16,
}  # fmt: skip


def values(dtype: str = "float32") -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=(1, ROWS, CLASSES)).astype(dtype)


def plan(dtype: DType = "float32", chunk_rows: int = 32) -> StorePlan:
    return cut_store({"logits": ArrayPlan((CLASSES,), dtype)}, 1, ROWS, chunk_rows)


def write(folder: Path, store: Store = "zarr", dtype: DType = "float32", chunk_rows: int = 32) -> Manifest:
    array = values(dtype)

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        return {"logits": array[block.view, block.start : block.stop]}

    return writer.write_cache(
        folder / "dump", folder / "work", plan(dtype, chunk_rows), compute, store=store, description=DESCRIPTION
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("chunk_rows", [16, 48, 70])
def test_what_is_written_is_read(tmp_path: Path, store: Store, dtype: DType, chunk_rows: int) -> None:
    write(tmp_path, store, dtype, chunk_rows)
    opened = cache.open(tmp_path / "dump")
    assert opened.load().dtype == np.dtype(dtype)
    assert np.array_equal(opened.load(), values(dtype))
    ids = np.array([69, 0, 33, 33, 5])
    assert np.array_equal(opened.rows(ids), values(dtype)[0][ids])


@pytest.mark.parametrize("store", STORES)
def test_how_values_were_computed_is_written_where_somebody_says_it(tmp_path: Path, store: Store) -> None:
    array, computed = values("float32"), ComputedInfo(device="cuda (Card 5)", precision="tf32", layout=None)
    made = writer.write_cache(
        tmp_path / "said/dump",
        tmp_path / "said/work",
        plan(),
        lambda block: {"logits": array[block.view, block.start : block.stop]},
        store=store,
        description={**DESCRIPTION, "computed": computed},
    )
    assert cache.open(tmp_path / "said/dump").manifest.computed == made.computed == computed
    unsaid = write(tmp_path / "unsaid", store)
    assert unsaid.computed is None
    assert b"computed" not in (tmp_path / "unsaid/dump/manifest.json").read_bytes()
    assert (made.values, made.root == unsaid.root) == (unsaid.values, False)


@pytest.mark.parametrize("store", STORES)
def test_the_same_values_give_the_same_bytes(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "a", store)
    write(tmp_path / "b", store)
    assert tree(tmp_path / "a/dump") == tree(tmp_path / "b/dump")
    assert not (tmp_path / "a/work").exists()


def test_both_stores_hold_values_of_one_digest(tmp_path: Path) -> None:
    made = [write(tmp_path / f"{store}{rows}", store, chunk_rows=rows) for store in STORES for rows in (16, 70)]
    assert len({manifest.values for manifest in made}) == 1
    assert len({manifest.root for manifest in made}) == 4
    assert write(tmp_path / "other", dtype="float16").values != made[0].values


def test_plain_libraries_read_the_same_numbers(tmp_path: Path) -> None:
    write(tmp_path / "z", "zarr")
    write(tmp_path / "h", "hdf5")
    group = zarr.open_group(tmp_path / "z/dump/data.zarr", mode="r")
    assert np.array_equal(np.asarray(group["logits"]), values())
    with h5py.File(tmp_path / "h/dump/data.h5") as file:
        assert np.array_equal(file["logits"][...], values())
        offset = file["logits"].id.get_offset()
    mapped = np.memmap(tmp_path / "h/dump/data.h5", "<f4", "r", offset, (1, ROWS, CLASSES))
    assert np.array_equal(mapped, values())
    first = (tmp_path / "z/dump/data.zarr/logits/c/0/0/0").read_bytes()
    rows = values()[0, :32].tobytes()
    assert first[: len(rows)] == rows  # a raw chunk, then its CRC-32C, then the index: where it lies, and a CRC-32C
    assert first[len(rows) : len(rows) + 4] == crc_to_bytes(crc32c(np.frombuffer(rows, np.uint8)))
    index = np.array([0, len(rows) + 4], "<u8").tobytes()
    assert first[len(rows) + 4 :] == index + crc_to_bytes(crc32c(np.frombuffer(index, np.uint8)))


def test_a_cache_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    write(tmp_path)
    everything = b"".join(tree(tmp_path / "dump").values())
    assert str(tmp_path).encode() not in everything
    assert platform.node().encode() not in everything


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    entries = json.loads(path.read_bytes())
    change(entries)
    path.write_bytes(files.encode_json(entries))


def append(path: Path, data: bytes = b"\0") -> None:
    path.write_bytes(path.read_bytes() + data)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


CHUNK = "data.zarr/logits/c/0/1/0"
DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no manifest", lambda f: (f / "manifest.json").unlink(), "not a finished cache"),
    ("no folder", shutil.rmtree, "expected a cache's manifest, found nothing"),
    ("empty manifest", lambda f: (f / "manifest.json").write_bytes(b""), "a valid manifest"),
    ("spaces", lambda f: append(f / "manifest.json", b"\n"), "a manifest changed since"),
    ("another teacher", lambda f: edit(f, lambda m: m["teacher"].update(name="x")), "a manifest changed since"),
    ("newer version", lambda f: edit(f, lambda m: m.update(version=4)), "expected format version 3, found 4; read it with a newer"),
    ("older version", lambda f: edit(f, lambda m: m.update(version=2)), "expected format version 3, found 2"),
    ("unknown entry", lambda f: edit(f, lambda m: m.update(extra=1)), "extra"),
    ("missing entry", lambda f: edit(f, lambda m: m.pop("views")), "views"),
    ("missing chunk", lambda f: (f / CHUNK).unlink(), f"file {CHUNK}: expected exactly the manifest's files, found missing"),
    ("extra file", lambda f: append_new(f / "data.zarr/extra"), "file data.zarr/extra"),
    ("short chunk", lambda f: (f / CHUNK).write_bytes((f / CHUNK).read_bytes()[:-1]), f"file {CHUNK}: expected 664 bytes, found 663"),
    ("flipped bit", lambda f: flip(f / CHUNK, 100), f"file {CHUNK}: expected its sealed bytes"),
    ("card", lambda f: flip(f / "card.md", 3), "file card.md"),
    ("zarr metadata", lambda f: flip(f / "data.zarr/logits/zarr.json", 30), "file data.zarr/logits/zarr.json"),
    ("link", lambda f: link(f / CHUNK, f.parent / "away"), f"file {CHUNK}"),
]  # fmt: skip


def append_new(path: Path) -> None:
    path.write_bytes(b"x")


def link(path: Path, away: Path) -> None:
    path.rename(away)
    path.symlink_to(away)


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE, ids=[row[0] for row in DAMAGE])
def test_a_damaged_cache_is_refused(tmp_path: Path, name: str, damage: Callable[[Path], object], message: str) -> None:
    write(tmp_path)
    cache.open(tmp_path / "dump")
    damage(tmp_path / "dump")
    with pytest.raises(InputError) as caught:
        cache.open(tmp_path / "dump", fix="run `dvc repro dump-logits-big`")
    assert message in str(caught.value)
    assert str(caught.value).endswith(("run `dvc repro dump-logits-big`", "with a newer teachercache"))


def test_hdf5_damage_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "hdf5")
    size = (tmp_path / "dump/data.h5").stat().st_size
    for at in (5, size // 2, size - 1):
        flip(tmp_path / "dump/data.h5", at)
        with pytest.raises(InputError, match=r"file data\.h5"):
            cache.open(tmp_path / "dump")
        flip(tmp_path / "dump/data.h5", at)
    cache.open(tmp_path / "dump")


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("teacher.name", "bigger", "teacher.name expected bigger, found big"),
        ("teacher.weights_sha256", "00" * 32, "teacher.weights_sha256 expected 0000"),
        ("dataset.fingerprint", "00" * 32, "dataset.fingerprint expected 0000"),
        ("dataset.classes", ["a", "b"], "dataset.classes expected ['a', 'b'], found ['a', 'b', 'c', 'd', 'e']"),
        ("field.parameters", {"dtype": "float16"}, "field.parameters.dtype expected float16, found float32"),
        ("rows", 100, "rows expected 100, found 70"),
        ("nothing.like.it", 1, "nothing.like.it expected 1, found None"),
    ],
)
def test_another_cache_than_expected_is_refused(tmp_path: Path, key: str, value: object, shown: str) -> None:
    write(tmp_path)
    cache.open(tmp_path / "dump", {"teacher.name": "big", "dataset.fingerprint": "cd" * 32})
    with pytest.raises(InputError, match="is another one than expected") as caught:
        cache.open(tmp_path / "dump", {"field.name": "logits", key: value})
    assert shown in str(caught.value)
    assert "field.name" not in str(caught.value)


def test_ids_and_views_that_were_not_dumped_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    opened = cache.open(tmp_path / "dump")
    with pytest.raises(InputError, match=r"sample ids: expected 0\.\.69, those that were dumped, found 3\.\.70"):
        opened.rows(np.array([3, 70]))
    with pytest.raises(InputError, match=r"sample ids.*found -1\.\.3"):
        opened.rows(np.array([3, -1]))
    with pytest.raises(InputError, match=r"views: expected 0\.\.0, those that were dumped, found 1"):
        opened.rows(np.array([3]), view=1)
    with pytest.raises(InputError, match="array 'hints': expected one of logits"):
        opened.load("hints")


@pytest.mark.parametrize(("chunk_rows", "shard_blocks"), [(16, 1), (4, 1), (4, 2), (8, 5), (16, 5)])
@pytest.mark.parametrize("store", STORES)
def test_a_stopped_dump_resumes_with_the_same_bytes(
    tmp_path: Path, store: Store, chunk_rows: int, shard_blocks: int
) -> None:
    array, whole = values(), tmp_path / "whole"
    arrays = {"logits": ArrayPlan((CLASSES,), "float32")}
    cut = cut_store(arrays, 1, ROWS, chunk_rows, block_chunks=16 // chunk_rows, shard_blocks=shard_blocks)
    writer.write_cache(
        whole / "dump", whole / "work", cut, lambda block: {"logits": array[0, block.start : block.stop]},
        store=store, description=DESCRIPTION,
    )  # fmt: skip
    done: list[int] = []

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        if len(done) == 2 and not (tmp_path / "go").exists():
            raise KeyboardInterrupt
        done.append(block.start)
        return {"logits": array[0, block.start : block.stop]}

    def attempt() -> None:
        writer.write_cache(tmp_path / "dump", tmp_path / "work", cut, compute, store=store, description=DESCRIPTION)

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert not (tmp_path / "dump").exists()
    (tmp_path / "go").touch()
    attempt()
    assert done == [0, 16, 32, 48, 64]  # no block was computed twice
    assert tree(tmp_path / "dump") == tree(tmp_path / "whole/dump")


def stopping(calls: list[int]) -> Callable[[Block], Mapping[str, NDArray[Any]]]:
    """Notes the blocks that are asked for; stopped by hand at the second."""

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        calls.append(block.start)
        if block.start:
            raise KeyboardInterrupt
        return {"logits": values()[0, block.start : block.stop]}

    return compute


def test_blocks_of_another_dump_are_not_taken_up(tmp_path: Path) -> None:
    calls: list[int] = []

    for teacher in ("ab", "ef"):
        description = {**DESCRIPTION, "teacher": {**DESCRIPTION["teacher"], "weights_sha256": teacher * 32}}
        with pytest.raises(KeyboardInterrupt):
            writer.write_cache(
                tmp_path / "dump", tmp_path / "work", plan(), stopping(calls), store="zarr", description=description
            )
    assert calls == [0, 32, 0, 32]


def test_blocks_of_other_code_or_another_device_are_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def attempt(device: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            writer.write_cache(
                tmp_path / "dump",
                tmp_path / "work",
                plan(),
                stopping(calls),
                store="zarr",
                description=DESCRIPTION,
                device=device,
            )

    attempt("cpu")
    attempt("cpu")
    assert calls == [0, 32, 32]
    attempt("cuda")
    monkeypatch.setattr(writer, "hash_code", lambda: "other")
    attempt("cuda")
    assert calls[3:] == [0, 32, 0, 32]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        files.hold_lock(tmp_path / "work.lock"),
        pytest.raises(InputError, match="a running process that writes the same"),
    ):
        write(tmp_path)


@pytest.mark.parametrize("store", STORES)
def test_a_full_disk_leaves_nothing_that_looks_like_a_cache(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, store, "float16")
    before = tree(tmp_path / "dump")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "data")

    monkeypatch.setattr(load_store(store), "assemble_store", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path, store, "float32")
    explained = files.explain_os_error(caught.value)
    assert str(explained).startswith("disk full while writing data; nothing half-written was published")
    assert tree(tmp_path / "dump") == before  # the old cache is still there, whole
    monkeypatch.undo()
    write(tmp_path, store, "float32")
    assert np.array_equal(cache.open(tmp_path / "dump").load(), values())


@pytest.mark.parametrize("store", STORES)
def test_a_really_full_file_system(tmp_path: Path, store: Store) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        big = cut_store({"logits": ArrayPlan((1000,), "float32")}, 1, 64, 8)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its form is what the next line is about
            writer.write_cache(
                small / "dump", small / "work", big, lambda block: {"logits": np.ones((8, 1000), "f4")},
                store=store, description=DESCRIPTION,
            )  # fmt: skip
        assert "disk full while writing" in str(files.explain_os_error(caught.value))
        assert not (small / "dump").exists()
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_file_system_that_fills_while_blocks_are_joined(tmp_path: Path, store: Store, codec: Codec) -> None:
    """Half of it holds the blocks; a run with more room makes the store of them, and computes nothing again."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    arrays = {"logits": ArrayPlan((1000,), "float32", codec)}
    many = cut_store(arrays, 1, 100, 10, block_chunks=2, shard_blocks=5)
    rows = np.random.default_rng(0).normal(size=(100, 1000)).astype("f4")

    def attempt(folder: Path, compute: Callable[[Block], Mapping[str, NDArray[Any]]]) -> Manifest:
        target, work = folder / "dump", folder / "work"
        return writer.write_cache(target, work, many, compute, store=store, description=DESCRIPTION | {"batch": 20})

    def never(block: Block) -> Mapping[str, NDArray[Any]]:
        raise AssertionError("this block is there")

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        return {"logits": rows[block.start : block.stop]}

    try:
        for function in (compute, never):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - its form is what the next lines are about
                attempt(small, function)
            explained = str(files.explain_os_error(caught.value))
            assert "disk full while writing" in explained
            assert "\n" not in explained
            assert not (small / "dump").exists()
            assert len(list(small.glob("work/blocks-*/*.raw"))) == 5
        subprocess.run(["mount", "-o", "remount,size=2m", small], check=True)
        attempt(small, never)
        attempt(tmp_path / "whole", compute)
        assert tree(small / "dump") == tree(tmp_path / "whole/dump")
        assert not (small / "work").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_hdf5_tells_of_a_full_disk_in_words_only() -> None:
    error = OSError("Can't write data (file write failed: time = ..., errno = 28, error message = 'No space left')")
    assert "disk full" in str(files.explain_os_error(error))
    assert files.explain_os_error(OSError("something else")) is None


def test_a_cut_publish_is_finished(tmp_path: Path) -> None:
    write(tmp_path)
    before = tree(tmp_path / "dump")
    (tmp_path / "work").mkdir()
    (tmp_path / "dump").rename(tmp_path / "work/trash-sealed")  # killed between the two renames
    files.recover_output(tmp_path / "work/sealed", tmp_path / "dump")
    assert tree(tmp_path / "dump") == before


@pytest.mark.parametrize("shard_blocks", [1, 2, 5])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_repair_computes_damaged_blocks_alone(tmp_path: Path, store: Store, codec: Codec, shard_blocks: int) -> None:
    array = values()
    packed = cut_store({"logits": ArrayPlan((CLASSES,), "float32", codec)}, 1, ROWS, 16, shard_blocks=shard_blocks)
    asked: list[int] = []

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        asked.append(block.index)
        return {"logits": array[block.view, block.start : block.stop]}

    made = writer.write_cache(
        tmp_path / "dump", tmp_path / "work", packed, compute, store=store, description=DESCRIPTION
    )
    before = tree(tmp_path / "dump")
    asked.clear()
    for number in (1, 4):
        chunk = find_chunk(tmp_path / "dump", number)
        flip(tmp_path / "dump" / chunk.file, chunk.offset + chunk.bytes // 2)
    found = verify_cache(LocalFolder(tmp_path / "dump"), made)
    assert [block.index for each in found.damage for _, block in each.blocks] == [1, 4]
    rewrite.repair_cache(
        tmp_path / "dump", made, found, target=tmp_path / "new", work=tmp_path / "mending", compute=compute
    )
    assert asked == [1, 4]
    assert tree(tmp_path / "new") == before

    def other(block: Block) -> Mapping[str, NDArray[Any]]:
        return {"logits": array[block.view, block.start : block.stop] + 1}

    with pytest.raises(InputError, match="another teacher, other data or another kind of machine; dump it again"):
        rewrite.repair_cache(
            tmp_path / "dump", made, found, target=tmp_path / "bad", work=tmp_path / "mending2", compute=other
        )
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("store", STORES)
def test_a_copy_is_hashed_once_and_again_when_it_was_touched(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, store)
    hashed = note_hashed_folders(monkeypatch)
    for _ in range(3):
        cache.open(tmp_path / "dump")
    assert hashed == ["dump"]
    path = tmp_path / "dump" / ("data.h5" if store == "hdf5" else CHUNK)
    then = path.stat()
    flip(path, 50)
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    with pytest.raises(InputError, match="another SHA-256"):
        cache.open(tmp_path / "dump")
    flip(path, 50)
    cache.open(tmp_path / "dump")
    assert len(hashed) == 3
    shutil.copytree(tmp_path / "dump", tmp_path / "copy")
    cache.open(tmp_path / "copy")  # another copy is another story
    assert hashed[3:] == ["copy"]


def test_where_nothing_can_be_remembered_everything_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_copies, "find_user_folder", lambda _: None)
    write(tmp_path)
    for _ in range(2):
        assert np.array_equal(cache.open(tmp_path / "dump").load(), values())


@pytest.mark.parametrize("store", STORES)
def test_bytes_that_change_after_the_open_are_caught_by_their_crc(tmp_path: Path, store: Store) -> None:
    write(tmp_path, store)
    opened, mapped = cache.open(tmp_path / "dump"), cache.open(tmp_path / "dump")
    assert np.array_equal(mapped.rows([1, 40]), values()[0][[1, 40]])  # chunks 0 and 1 are checked, and kept
    chunk = find_chunk(tmp_path / "dump", 2)
    flip(tmp_path / "dump" / chunk.file, chunk.offset + 3)
    with pytest.raises(InputError, match=r"expected the chunk that was sealed, found another CRC-32C; dump it again"):
        opened.load()
    with pytest.raises(InputError, match="another CRC-32C"):
        opened.rows([69])
    assert np.array_equal(opened.rows([0, 33]), values()[0][[0, 33]])  # sound chunks are read all the same


def test_an_array_beyond_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(
        InputError, match=r"at most the 1,000 bytes of free memory, found 1,400 bytes; read only the rows"
    ):
        cache.open(tmp_path / "dump").load()
