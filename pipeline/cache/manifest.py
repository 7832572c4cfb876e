"""The manifest: what a cache holds, from whom, and the digests that prove it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_json
from pipeline.cache import block_paths as paths
from pipeline.cache.blocks import MAX_CHUNK_BYTES, ArrayForm, Block, cut_blocks
from pipeline.cache.codecs import CODECS, Codec, Format, is_padded, max_encoded_bytes
from pipeline.cache.dtypes import DType, storage_dtype

FORMAT_VERSION = 2
MAX_MANIFEST_BYTES = 8 << 20  # of a manifest
MAX_DEPTH = 16  # nested values in it

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ARRAY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
ArrayName = Annotated[str, Field(pattern=rf"^{ARRAY_NAME}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=1, le=1 << 48)]
Axes = Literal["view, sample", "plan, batch"]  # what the first two axes of every array are


def _refuse_non_finite(value: dict[str, Any]) -> dict[str, Any]:
    encode_json(value)  # raises ValueError for NaN
    return value


PlainValues = Annotated[dict[str, Any], AfterValidator(_refuse_non_finite)]


PLACED = "placed"  # the type of an error whose text begins with its place


def _validate_each(kind: type[BaseModel]) -> BeforeValidator:
    """Validate a mapping's values one by one, ending with the first that is wrong: a stranger's manifest
    may have a million.
    """

    def check(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        made = {}
        for key, item in value.items():
            try:
                made[key] = kind.model_validate(item)
            except ValidationError as error:
                raise _first_error(error, str(key)) from None
        return made

    return BeforeValidator(check)


def _first_error(error: ValidationError, place: str = "") -> PydanticCustomError:
    """The first of a validation's errors, as one whose text begins with its place."""
    first = error.errors(include_url=False)[0]
    where = ".".join(filter(None, (place, *map(str, first["loc"]))))
    if first["type"] == PLACED:
        text = f"{where}.{first['msg']}" if where else first["msg"]
    else:
        text = f"{where or 'the whole'}: {first['msg']}"
    return PydanticCustomError(PLACED, "{text}", {"text": text})


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_entries(cls, value: Any) -> Any:
        unknown = [key for key in value if key not in cls.model_fields] if isinstance(value, Mapping) else []
        if unknown:
            raise PydanticCustomError(PLACED, "{text}", {"text": f"{str(unknown[0])[:100]}: unknown entry"})
        return value


class FieldInfo(_Entry):
    """Which field this is, and the parameters that decide its values."""

    name: str
    parameters: PlainValues


class TeacherInfo(_Entry):
    """The network whose knowledge this is; of a student, with the number of the seed.

    Accuracies lie in [0, 1]; null where nobody measured them (outputs from elsewhere).
    """

    name: str
    architecture: PlainValues
    seed: NonNegativeInt | None
    weights_sha256: Digest
    test_accuracy: Share | None
    test_accuracy_per_class: Annotated[list[Share | None], FailFast()]


class DatasetInfo(_Entry):
    """The data set whose sample ids are the keys."""

    name: str
    fingerprint: Digest
    samples: Size
    shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3), FailFast()]
    bounds: Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2), FailFast()]
    classes: Annotated[list[str], FailFast()]


class ViewsInfo(_Entry):
    """The augmentations whose results are held: view v of sample i is drawn from (seed, v, i)."""

    policy: str
    count: PositiveInt
    seed: NonNegativeInt
    parameters: PlainValues


class BlockInfo(_Entry):
    """The bytes of one block of rows: where they lie, CRC-32C and SHA-256."""

    file: str
    offset: NonNegativeInt
    bytes: Size
    crc32c: Annotated[int, Field(ge=0, lt=1 << 32)]
    sha256: Digest


class ArrayInfo(_Entry):
    """One array: its first two axes are the keys, little-endian, cut into blocks of `chunk_rows` rows."""

    shape: Annotated[list[Size], Field(min_length=2, max_length=16), FailFast()]
    dtype: DType
    codec: Codec
    chunk_rows: Size
    blocks: Annotated[list[BlockInfo], FailFast()]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.shape[2:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, decoded."""
        return math.prod(self.row_shape) * storage_dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of the whole array, decoded."""
        return math.prod(self.shape) * storage_dtype(self.dtype).itemsize

    def matches(self, form: ArrayForm) -> bool:
        """Whether rows and number format are the expected ones."""
        return form.row_shape in (None, self.row_shape) and self.dtype == form.dtype

    def located_blocks(self) -> Iterator[tuple[Block, BlockInfo]]:
        """Its blocks in order, each with where its bytes lie."""
        return zip(cut_blocks(self.shape[0], self.shape[1], self.chunk_rows), self.blocks, strict=True)


class FileInfo(_Entry):
    """Size in bytes and SHA-256 of one file."""

    bytes: NonNegativeInt
    sha256: Digest


class Manifest(_Entry):
    """Everything about a cache but its values.

    Attributes:
        format, version: of the container (`FORMAT_VERSION`).
        store: how the arrays are kept.
        package: version of this package that wrote them.
        axes: what the first two axes of every array are.
        rows: length of the second axis; of samples: the ids held are [0, rows).
        batch: rows a forward pass of the fixed partition.
        arrays: by name.
        files: by path below the cache's folder; every file but the manifest itself.
        values: SHA-256 over the arrays' names, shapes, dtypes and little-endian bytes: equal
            for equal values, whatever the store and the chunks.
        root: SHA-256 over the canonical bytes of all the other entries.
    """

    format: Literal["teachercache"]
    version: Literal[2]
    store: Format
    package: str
    field: FieldInfo
    teacher: TeacherInfo
    dataset: DatasetInfo
    views: ViewsInfo
    axes: Axes
    rows: Size
    batch: PositiveInt
    arrays: Annotated[dict[ArrayName, ArrayInfo], Field(min_length=1, max_length=1000), _validate_each(ArrayInfo)]
    files: Annotated[dict[str, FileInfo], _validate_each(FileInfo)]
    values: Digest
    root: Digest

    @model_validator(mode="after")
    def _check_consistency(self) -> Manifest:
        listed = paths.list_metadata_paths(self.store, self.arrays)
        for name, array in self.arrays.items():
            _check_array(self, name, array)
            listed |= {block.file for block in array.blocks}
        if listed != self.files.keys():
            raise ValueError(f"files: expected those of its arrays, found {min(listed ^ self.files.keys())!r} besides")
        if len({array.chunk_rows for array in self.arrays.values()}) > 1:
            raise ValueError("arrays: expected one chunk_rows, found several")
        if self.axes == "view, sample" and self.rows > self.dataset.samples:
            raise ValueError(f"rows: expected at most the {self.dataset.samples} samples, found {self.rows}")
        if len({array.shape[0] for array in self.arrays.values()}) > 1:
            raise ValueError(f"arrays: expected one number of {self.axes.split(', ')[0]}s, found several")
        return self

    def to_bytes(self) -> bytes:
        """The manifest's canonical JSON, the bytes of `manifest.json`."""
        return encode_json(self.model_dump())

    @property
    def unit(self) -> str:
        """What a row is of."""
        return self.axes.split(", ")[1]

    def comparable_entries(self) -> dict[str, Any]:
        """The entries that a reader may have expectations of: all but the arrays' bytes."""
        return self.model_dump(exclude={"arrays", "files"})


def _check_array(manifest: Manifest, name: str, array: ArrayInfo) -> None:
    """Raise ValueError unless every block lies in its file, with just the bytes that its rows need."""
    first = manifest.views.count if manifest.axes == "view, sample" else array.shape[0]
    if array.shape[:2] != [first, manifest.rows]:
        raise ValueError(f"arrays.{name}.shape: expected to begin with {[first, manifest.rows]}, found {array.shape}")
    if array.codec not in CODECS[manifest.store]:
        raise ValueError(f"arrays.{name}.codec: {manifest.store} has no {array.codec}")
    if array.chunk_rows > array.shape[1] or array.chunk_rows * array.row_bytes > MAX_CHUNK_BYTES:
        raise ValueError(f"arrays.{name}.chunk_rows: expected at most {array.shape[1]} rows and 1 GiB a chunk")
    if len(array.blocks) != array.shape[0] * -(-array.shape[1] // array.chunk_rows):
        raise ValueError(f"arrays.{name}.blocks: expected one a block, found {len(array.blocks)}")
    padded = is_padded(manifest.store, array.codec)
    for block, info in array.located_blocks():
        rows = array.chunk_rows if padded else block.stop - block.start
        whole_bytes = array.chunk_rows * array.row_bytes
        if array.codec != "none" and info.bytes > max_encoded_bytes(whole_bytes, array.codec):
            raise ValueError(f"arrays.{name}: {block}: expected at most its {whole_bytes} bytes, found {info.bytes}")
        if array.codec == "none" and info.bytes != rows * array.row_bytes:
            raise ValueError(f"arrays.{name}: {block}: expected {rows * array.row_bytes} bytes, found {info.bytes}")
        whole, end = manifest.files.get(info.file), info.offset + info.bytes
        if manifest.store == "zarr":
            expected = (
                info.file == paths.chunk_path(name, block.view, block.index, len(array.shape)) and info.offset == 0
            )
            fits = whole is not None and end + paths.CRC_BYTES == whole.bytes
        else:
            expected, fits = info.file == paths.STORE_PATHS["hdf5"], whole is not None and end <= whole.bytes
        if not (expected and fits):
            raise ValueError(f"arrays.{name}: {block}: bytes {info.offset} to {end} of {info.file!r} are not its place")


def seal_manifest(entries: Mapping[str, Any]) -> Manifest:
    """A manifest from all its entries but `root`, which is their digest."""
    return Manifest.model_validate({**entries, "root": hash_json(entries)})


def parse_manifest(data: bytes, where: str, fix: str) -> Manifest:
    """A manifest from the bytes of `manifest.json`.

    Raises:
        InputError: it is of another version, malformed, contradicts itself, or is not in the
            canonical bytes that its root digest covers.
    """
    version = re.search(rb'^  "version": (\d{1,9}),?$', data, re.MULTILINE)
    if version and int(version[1]) != FORMAT_VERSION:
        newer = int(version[1]) > FORMAT_VERSION
        raise InputError(
            where,
            expected=f"format version {FORMAT_VERSION}",
            found=version[1].decode(),
            fix="read it with a newer teachercache" if newer else fix,
        )
    try:
        _refuse_deep(json.loads(data))
        manifest = Manifest.model_validate_json(data)
        entries = manifest.model_dump()
        root = entries.pop("root")
        unchanged = data == manifest.to_bytes() and hash_json(entries) == root
    except ValidationError as error:
        raise InputError(where, expected="a valid manifest", found=str(_first_error(error)), fix=fix) from None
    except (ValueError, RecursionError) as error:  # numbers and nestings that JSON allows and Python does not
        raise InputError(where, expected="a valid manifest", found=f"the whole: {error}", fix=fix) from None
    if not unchanged and b"\r\n" in data:
        fix = f"copy it again without that (git: `* -text` in .gitattributes), or {fix}"
        raise InputError(where, expected="the bytes that were sealed", found="Windows line ends", fix=fix)
    if not unchanged:
        raise InputError(where, expected="the bytes that were sealed", found="a manifest changed since", fix=fix)
    return manifest


def _refuse_deep(value: Any) -> None:
    """Raise ValueError for values nested so deep that writing them out would take far more room."""
    level = [value]
    for _ in range(MAX_DEPTH):
        nested = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in nested for part in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return
    raise ValueError(f"values nested more than {MAX_DEPTH} deep")
