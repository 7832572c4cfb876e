"""The manifest: what a cache holds, from whom, and the digests that prove it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from pipeline.errors import InputError
from pipeline.files import canonical_json, digest_of, sha256_of

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Format = Literal["zarr", "hdf5"]
DType = Literal["float16", "float32", "int64", "uint8"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FieldInfo(_Part):
    """Which field this is, and the parameters that decide its values."""

    name: str
    parameters: dict[str, Any]


class TeacherInfo(_Part):
    """The network whose knowledge this is; of a student, with the number of the seed."""

    name: str
    architecture: dict[str, Any]
    seed: NonNegativeInt | None
    weights_sha256: Digest
    test_accuracy: float
    test_accuracy_per_class: list[float | None]


class DatasetInfo(_Part):
    """The data set whose sample ids are the keys."""

    name: str
    fingerprint: Digest
    samples: PositiveInt
    shape: list[PositiveInt]
    bounds: list[NonNegativeInt]
    classes: list[str]


class ViewsInfo(_Part):
    """The augmentations whose results are held."""

    policy: Literal["none"]
    count: Literal[1]


class ArrayInfo(_Part):
    """One array: (views, rows, ...), little-endian, rows `chunk_rows` at a time."""

    shape: list[PositiveInt]
    dtype: DType
    codec: Literal["none"]
    chunk_rows: PositiveInt


class FileInfo(_Part):
    """Size in bytes and SHA-256 of one file."""

    bytes: NonNegativeInt
    sha256: Digest


class Manifest(_Part):
    """Everything about a cache but its values.

    Attributes:
        format, version: of the container (`FORMAT_VERSION`).
        store: how the arrays are kept.
        package: version of this package that wrote them.
        rows: the sample ids held are [0, rows).
        batch: rows a forward pass of the fixed partition.
        arrays: by name.
        files: by path below the cache's folder; every file but the manifest itself.
        values: SHA-256 over the arrays' names, shapes, dtypes and little-endian bytes: equal
            for equal values, whatever the store and the chunks.
        root: SHA-256 over the canonical bytes of all the other entries.
    """

    format: Literal["teachercache"]
    version: PositiveInt
    store: Format
    package: str
    field: FieldInfo
    teacher: TeacherInfo
    dataset: DatasetInfo
    views: ViewsInfo
    rows: PositiveInt
    batch: PositiveInt
    arrays: dict[str, ArrayInfo]
    files: dict[str, FileInfo]
    values: Digest
    root: Digest

    def to_bytes(self) -> bytes:
        """The manifest's canonical JSON, the bytes of `manifest.json`."""
        return canonical_json(self.model_dump())


def sealed(entries: Mapping[str, Any]) -> Manifest:
    """A manifest from all its entries but `root`, which is their digest."""
    return Manifest.model_validate({**entries, "root": digest_of(entries)})


def read_manifest(folder: Path, fix: str) -> Manifest:
    """Read a cache's manifest.

    Raises:
        InputError: there is none, it is of another version, malformed, or not in the canonical
            bytes that its root digest covers.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        found = "a folder without it: not a finished cache" if folder.is_dir() else "nothing"
        raise InputError(str(path), expected="a cache's manifest", found=found, fix=fix) from None
    version = re.search(rb'^  "version": (\d+),?$', data, re.MULTILINE)
    if version and int(version[1]) != FORMAT_VERSION:
        raise InputError(
            str(path),
            expected=f"format version {FORMAT_VERSION}",
            found=version[1].decode(),
            fix="read it with the version of teachercache that wrote it",
        )
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(str(path), expected="a valid manifest", found=f"{where}: {first['msg']}", fix=fix) from None
    entries = manifest.model_dump()
    root = entries.pop("root")
    if data != manifest.to_bytes() or digest_of(entries) != root:
        raise InputError(str(path), expected="the bytes that were sealed", found="a manifest changed since", fix=fix)
    return manifest


def describe_files(folder: Path) -> dict[str, FileInfo]:
    """Size and digest of every file below a folder but the manifest, by path with slashes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {
        path.relative_to(folder).as_posix(): FileInfo(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    }
