"""Write a cache block by block; publish it whole, or not at all.

Unfinished work lies in a folder of its own, one raw file a block, whatever the format: a file
that a killed process left is either whole (it was renamed into place) or ignored. A later run
of the same dump goes on from the blocks that are there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.cache import paths
from pipeline.cache.blocks import Block, StorePlan
from pipeline.cache.codecs import Format, decode, encode
from pipeline.cache.crc import as_bytes, crc32c
from pipeline.cache.digests import sha256_of_files, sha256_of_ranges
from pipeline.cache.dtypes import stored
from pipeline.cache.manifest import FORMAT_VERSION, Manifest, sealed
from pipeline.cache.stores import store_of
from pipeline.errors import InputError
from pipeline.files import digest_of, locked, publish, recover, remove, write_bytes
from pipeline.progress import track
from pipeline.provenance import code_digest

Compute = Callable[[Block], Mapping[str, NDArray[Any]]]


def write_cache(
    target: Path,
    work: Path,
    plan: StorePlan,
    compute: Compute,
    *,
    store: Format,
    description: Mapping[str, Any],
    device: str = "cpu",
    accept: Callable[[Manifest], None] = lambda _: None,
) -> Manifest:
    """Compute every block that is not there yet, then seal the store and put it in its place.

    Args:
        target: the cache's folder; an old one is replaced when the new one is complete.
        work: a folder for unfinished work, on the same file system, kept until then.
        plan: arrays and blocks.
        compute: a block's values, (rows, ...) by array, in the plan's dtypes.
        store: "zarr" or "hdf5".
        description: the manifest's entries `field`, `teacher`, `dataset`, `views`, `batch`.
        device: the kind that computes; blocks of another kind differ in their last bits and are
            not taken up.
        accept: sees the sealed manifest before anything is published, and may refuse it.

    Raises:
        InputError: another process writes the same cache, or `compute` refuses a value.
        OSError: the disk is full or not writable; finished blocks stay in `work`.
    """
    with locked(work.with_suffix(".lock")):
        recover(work / "sealed", target)
        blocks = BlockFiles(work / f"blocks-{_identity(plan, store, description, device)[:16]}", plan, store)
        for stale in work.glob("blocks-*"):
            if stale != blocks.folder:
                remove(stale)
        pending = [block for block in plan.blocks() if not blocks.has(block)]
        write_blocks(blocks, track(pending, f"dump {target.name}", len(pending)), compute)
        manifest = _seal(work / "sealed", blocks, plan, store, description)
        accept(manifest)
        publish(work / "sealed", target)
        remove(work)
    return manifest


def _identity(plan: StorePlan, store: Format, description: Mapping[str, Any], device: str) -> str:
    """Digest of everything that decides a block's bytes; blocks of another dump are not reused."""
    arrays = {name: [list(plan.shape(name)), array.dtype, array.codec] for name, array in plan.arrays.items()}
    return digest_of([code_digest(), device, store, plan.chunk_rows, arrays, _plain(description)])


def _plain(description: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in description.items()}


@dataclass(frozen=True)
class BlockFiles:
    """The finished blocks of an unfinished dump: one file each, its bytes and their CRC-32C."""

    folder: Path
    plan: StorePlan
    store: Format

    def path(self, name: str, block: Block) -> Path:
        return self.folder / f"{name}-{block.name}.raw"

    def has(self, block: Block) -> bool:
        """Whether an earlier run has left all of a block, whole."""
        return all(self.path(name, block).exists() and self._is_sound(name, block) for name in self.plan.arrays)

    def _is_sound(self, name: str, block: Block) -> bool:
        try:
            self.read(name, block)
        except (InputError, ValueError):
            return False
        return True

    def write(self, name: str, block: Block, values: NDArray[Any]) -> None:
        """Write a block, whole or not at all."""
        array = self.plan.arrays[name]
        expected = (block.stop - block.start, *array.row_shape)
        if values.shape != expected or values.dtype != stored(array.dtype):
            raise ValueError(f"array {name!r}: {values.dtype} {values.shape} for {array.dtype} {expected}")
        rows = values.astype(stored(array.dtype), copy=False)
        payload = encode(rows, chunk_rows=self.plan.chunk_rows, codec=array.codec, store=self.store)
        # Not flushed here: waiting for the disk at every block is most of the time. What a power cut
        # spoils is seen by its CRC when the dump goes on, and made again.
        write_bytes(self.path(name, block), payload, as_bytes(crc32c(np.frombuffer(payload, np.uint8))), flush=False)

    def read(self, name: str, block: Block) -> tuple[NDArray[Any], int]:
        """A block's rows (n, ...), and the CRC-32C of its bytes.

        Raises:
            InputError: the file has changed since it was written; it is deleted, to be made again.
        """
        array, path = self.plan.arrays[name], self.path(name, block)
        data = np.fromfile(path, np.uint8)
        payload, crc = data[: -paths.CRC_BYTES], crc32c(data[: -paths.CRC_BYTES])
        if data[-paths.CRC_BYTES :].tobytes() != as_bytes(crc):
            path.unlink()
            raise InputError(str(path), expected="a block as it was written", found="other bytes", fix="run it again")
        rows = decode(
            payload,
            dtype=array.dtype,
            row_shape=array.row_shape,
            chunk_rows=self.plan.chunk_rows,
            codec=array.codec,
            store=self.store,
        )
        return rows[: block.stop - block.start], crc


def write_blocks(blocks: BlockFiles, pending: Iterable[Block], compute: Compute) -> None:
    """Compute and write blocks; the disk takes one in while the next is computed."""
    with ThreadPoolExecutor(1) as flusher:
        flushed = []
        for block in pending:
            for name, values in compute(block).items():
                blocks.write(name, block, values)
                flushed.append(flusher.submit(_flush, blocks.path(name, block)))
        for each in flushed:
            each.result()  # raises what the disk had to say


def _seal(folder: Path, blocks: BlockFiles, plan: StorePlan, store: Format, description: Mapping[str, Any]) -> Manifest:
    remove(folder)
    folder.mkdir(parents=True)
    plain = _plain(description)
    values, crcs = _values_digest(blocks, plan)
    places = store_of(store).write(folder, plan, blocks.path)
    (folder / paths.CARD).write_text(card(plain, plan, store), encoding="utf-8")
    ranges = {key: (file, offset, _payload_bytes(blocks, *key)) for key, (file, offset) in places.items()}
    block_digests = sha256_of_ranges(folder, ranges)
    names = paths.metadata(store, plan.arrays) | {file for file, _ in places.values()}
    for name in names:
        _flush(folder / name)
    digests = sha256_of_files(folder, names, f"seal {folder.parent.name}")

    def block_info(key: tuple[str, Block]) -> dict[str, Any]:
        file, offset, size = ranges[key]
        return {"file": file, "offset": offset, "bytes": size, "crc32c": crcs[key], "sha256": block_digests[key]}

    manifest = sealed(
        {
            "format": "teachercache",
            "version": FORMAT_VERSION,
            "store": store,
            "package": __version__,
            "axes": "view, sample",
            "rows": plan.rows,
            "arrays": {
                name: {
                    "shape": list(plan.shape(name)),
                    "dtype": array.dtype,
                    "codec": array.codec,
                    "chunk_rows": plan.chunk_rows,
                    "blocks": [block_info((name, block)) for block in plan.blocks()],
                }
                for name, array in plan.arrays.items()
            },
            "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": digests[name]} for name in digests},
            "values": values,
            **plain,
        }
    )
    write_bytes(folder / paths.MANIFEST, manifest.to_bytes())
    return manifest


def _payload_bytes(blocks: BlockFiles, name: str, block: Block) -> int:
    return blocks.path(name, block).stat().st_size - paths.CRC_BYTES


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _values_digest(blocks: BlockFiles, plan: StorePlan) -> tuple[str, dict[tuple[str, Block], int]]:
    """The digest of the values (of each array its header, then its rows), and each block's CRC."""
    digest, crcs = hashlib.sha256(), {}
    for name in sorted(plan.arrays):
        digest.update(values_header(name, plan.shape(name), plan.arrays[name].dtype))
        for block in plan.blocks():
            rows, crcs[name, block] = blocks.read(name, block)
            digest.update(np.ascontiguousarray(rows))
    return digest.hexdigest(), crcs


def values_header(name: str, shape: tuple[int, ...], dtype: str) -> bytes:
    """What goes before an array's C-ordered little-endian bytes in the digest of the values."""
    return f"{name} {list(shape)} {dtype}\n".encode()


def _accuracy(value: float | None) -> str:
    return "test accuracy not measured" if value is None else f"test accuracy {value:.4f}"


def card(description: Mapping[str, Any], plan: StorePlan, store: Format) -> str:
    """A page for people who find the folder: what it is, whose, and how to read it."""
    teacher, dataset = description["teacher"], description["dataset"]
    arrays = "\n".join(f"| `{name}` | {plan.shape(name)} | {array.dtype} |" for name, array in plan.arrays.items())
    return f"""# {description["field"]["name"]} of {teacher["name"]} on {dataset["name"]}

A teacher's precomputed outputs, written by teachercache {description.get("package", __version__)} ({store}).

- teacher: {teacher["name"]} ({teacher["architecture"]["name"]}), {_accuracy(teacher["test_accuracy"])},
  weights SHA-256 `{teacher["weights_sha256"]}`
- data set: {dataset["name"]}, {dataset["samples"]} samples, {len(dataset["classes"])} classes,
  fingerprint `{dataset["fingerprint"]}`
- rows: sample ids 0 to {plan.rows - 1}
- views: {description["views"]["count"]} of policy {description["views"]["policy"]}

| array | shape (views, rows, ...) | dtype |
|---|---|---|
{arrays}

Read it with `pipeline.cache.open`, which checks every file against `manifest.json`.
"""
