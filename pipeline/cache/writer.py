"""Write a cache block by block; publish it whole, or not at all.

Unfinished work lies in a folder of its own (`block_files`). A later run of the same dump goes on
from the blocks that are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.cache import paths
from pipeline.cache.block_files import BlockFiles, Compute, write_blocks
from pipeline.cache.blocks import Block, StorePlan
from pipeline.cache.codecs import Format
from pipeline.cache.digests import sha256_of_files, sha256_of_ranges
from pipeline.cache.manifest import FORMAT_VERSION, Manifest, sealed
from pipeline.cache.stores import store_of
from pipeline.files import digest_of, flush, locked, publish, recover, remove, write_bytes
from pipeline.plain_text import in_markdown
from pipeline.progress import track
from pipeline.provenance import code_digest


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
        compute: a block's values, (rows, ...) by array, in the plan's dtypes.
        accept: sees the sealed manifest before anything is published, and may refuse it.
        target, work, plan, store, description, device: see `writing`.

    Raises:
        InputError: another process writes the same cache, or `compute` refuses a value.
        OSError: the disk is full or not writable; finished blocks stay in `work`.
    """
    with writing(target, work, plan, store=store, description=description, device=device) as unfinished:
        pending = unfinished.pending()
        write_blocks(unfinished.blocks, track(pending, f"dump {target.name}", len(pending)), compute)
        return unfinished.publish(accept)


@contextmanager
def writing(
    target: Path,
    work: Path,
    plan: StorePlan,
    *,
    store: Format,
    description: Mapping[str, Any],
    device: str = "cpu",
) -> Iterator[Unfinished]:
    """Hold a cache's lock while it is written.

    Args:
        target: the cache's folder; an old one is replaced when the new one is complete.
        work: a folder for unfinished work, on the same file system, kept until then.
        plan: arrays and blocks.
        store: "zarr" or "hdf5".
        description: the manifest's entries `field`, `teacher`, `dataset`, `views`, `batch`.
        device: the kind that computes; blocks of another kind differ in their last bits and are
            not taken up.

    Raises:
        InputError: another process writes the same cache.
    """
    with locked(work.with_suffix(".lock")):
        recover(work / "sealed", target)
        blocks = BlockFiles(work / f"blocks-{_identity(plan, store, description, device)[:16]}", plan, store)
        for stale in work.glob("blocks-*"):
            if stale != blocks.folder:
                remove(stale)
        yield Unfinished(target, work, blocks, description)


@dataclass(frozen=True)
class Unfinished:
    """A cache that is being written.

    Attributes:
        target: its folder, once it is published.
        work: its unfinished work.
        blocks: those that are finished.
        description: the manifest's entries that say what it is.
    """

    target: Path
    work: Path
    blocks: BlockFiles
    description: Mapping[str, Any]

    def pending(self) -> list[Block]:
        """The blocks that are not there yet, in order."""
        return self.blocks.missing()

    def beside(self, plan: StorePlan) -> BlockFiles:
        """Room for rows that the blocks are made from, kept as long as they are."""
        return BlockFiles(self.blocks.folder / "rows", plan, "zarr")

    def publish(self, accept: Callable[[Manifest], None] = lambda _: None) -> Manifest:
        """Seal the store, all of whose blocks are there, and put it in its place."""
        manifest = _seal(self.work / "sealed", self.blocks, self.description)
        accept(manifest)
        publish(self.work / "sealed", self.target)
        remove(self.work)
        return manifest


def _identity(plan: StorePlan, store: Format, description: Mapping[str, Any], device: str) -> str:
    """Digest of everything that decides a block's bytes; blocks of another dump are not reused."""
    arrays = {name: [list(plan.shape(name)), array.dtype, array.codec] for name, array in plan.arrays.items()}
    return digest_of([code_digest(), device, store, plan.chunk_rows, arrays, _plain(description)])


def _plain(description: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in description.items()}


def _seal(folder: Path, blocks: BlockFiles, description: Mapping[str, Any]) -> Manifest:
    plan, store = blocks.plan, blocks.store
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
        flush(folder / name)
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


def _rows(axes: str, plan: StorePlan) -> str:
    if axes == "view, sample":
        return f"sample ids 0 to {plan.rows - 1}"
    return f"batches 0 to {plan.rows - 1} of {plan.views} plans; epoch e follows plan e mod {plan.views}"


def card(description: Mapping[str, Any], plan: StorePlan, store: Format) -> str:
    """A page for people who find the folder: what it is, whose, and how to read it."""
    teacher, dataset, axes = description["teacher"], description["dataset"], description.get("axes", "view, sample")
    arrays = "\n".join(f"| `{name}` | {plan.shape(name)} | {array.dtype} |" for name, array in plan.arrays.items())
    whose, data = in_markdown(teacher["name"]), in_markdown(dataset["name"])
    return f"""# {description["field"]["name"]} of {whose} on {data}

A teacher's precomputed outputs, written by teachercache {description.get("package", __version__)} ({store}).

- teacher: {whose} ({in_markdown(teacher["architecture"]["name"])}), {_accuracy(teacher["test_accuracy"])},
  weights SHA-256 `{teacher["weights_sha256"]}`
- data set: {data}, {dataset["samples"]} samples, {len(dataset["classes"])} classes,
  fingerprint `{dataset["fingerprint"]}`
- rows: {_rows(axes, plan)}
- views: {description["views"]["count"]} of policy {description["views"]["policy"]}

| array | shape ({axes.split(", ")[0]}s, rows, ...) | dtype |
|---|---|---|
{arrays}

Read it with `pipeline.cache.open`, which checks every file against `manifest.json`.
"""
