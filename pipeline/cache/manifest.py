"""The manifest: what a cache holds, from whom, and the digests that prove it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
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
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_json
from pipeline.cache import cache_paths as paths
from pipeline.cache.blocks import ArrayForm
from pipeline.cache.chunk_grid import RECORD_BYTES, ChunkGrid
from pipeline.cache.codecs import CODECS, Codec, Format
from pipeline.cache.dtypes import DType, storage_dtype
from pipeline.cache.store_plan import MAX_CHUNK_BYTES

FORMAT_VERSION = 3
MAX_MANIFEST_BYTES = 8 << 20  # of a manifest
MAX_SHARDS = 1000  # of an array, that a reader takes
MAX_CHUNKS = 1 << 26  # of a cache: 8 TB in the smallest
MAX_DEPTH = 16  # nested values in it
OPTIONAL_ENTRIES = ("computed", "sharing")  # not among the bytes where nobody gave them

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ARRAY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
ArrayName = Annotated[str, Field(pattern=rf"^{ARRAY_NAME}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=1, le=1 << 48)]
TermsText = Annotated[str, Field(min_length=1, max_length=4000, pattern=r"\S")]
TermsLine = Annotated[str, Field(max_length=200, pattern=r"^[^\n]*[^\s][^\n]*$")]
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


class ComputedInfo(_Entry):
    """What the network ran on, and in which precision: other devices differ in the last bits.

    Attributes:
        device: "cpu", or the kind and name of a GPU.
        precision: of the network's products.
        layout: of the weights of convolutions; null: the architecture's own.
    """

    device: Annotated[str, Field(min_length=1, max_length=200)]
    precision: Annotated[str, Field(min_length=1, max_length=100)]
    layout: Annotated[str, Field(min_length=1, max_length=100)] | None


class SharingInfo(_Entry):
    """The terms on which others may have the cache, as whoever made it says them; null where nothing is said.

    Attributes:
        licence: its name, best an SPDX identifier.
        citation: what to cite, of any number of lines.
        contact: whom to ask.
    """

    licence: TermsLine | None
    citation: TermsText | None
    contact: TermsLine | None

    @classmethod
    def from_terms(cls, terms: Mapping[str, str | None], kept: SharingInfo | None = None) -> SharingInfo | None:
        """What is said now, and what was said before of the rest; None where nothing is.

        Args:
            terms: by name; None stands for nothing.
            kept: what was said before.
        """
        before = {} if kept is None else kept.model_dump()
        entries = {key: before.get(key) if terms.get(key) is None else terms[key] for key in cls.model_fields}
        return cls.model_validate(entries) if any(value is not None for value in entries.values()) else None


class ArrayInfo(_Entry):
    """One array: its first two axes are the keys, little-endian, cut into chunks of `chunk_rows` rows.

    Attributes:
        shard: views and rows of a Zarr shard; null where all lie in one file (HDF5).
    """

    shape: Annotated[list[Size], Field(min_length=2, max_length=16), FailFast()]
    dtype: DType
    codec: Codec
    chunk_rows: Size
    shard: Annotated[list[Size] | None, Field(min_length=2, max_length=2)]

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

    @property
    def grid(self) -> ChunkGrid:
        """Its chunks and shards."""
        views, rows = self.shape[:2]
        return ChunkGrid(views, rows, self.chunk_rows, (self.shard[0], self.shard[1]) if self.shard else (views, rows))

    def matches(self, form: ArrayForm) -> bool:
        """Whether rows and number format are the expected ones."""
        return form.row_shape in (None, self.row_shape) and self.dtype == form.dtype


class FileInfo(_Entry):
    """Size of one file in bytes, and the SHA-256 of those that lie in no chunk: of a file without chunks, of all."""

    bytes: Annotated[int, Field(ge=0, le=1 << 48)]
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
        computed: how the values were computed; not there where nobody said so.
        sharing: the terms of use; not there where nobody said any.
        arrays: by name.
        files: by path below the cache's folder; every file but the manifest itself.
        values: SHA-256 over the arrays' names, shapes, dtypes and little-endian bytes: equal
            for equal values, whatever the store and the chunks.
        root: SHA-256 over the canonical bytes of all the other entries.
    """

    format: Literal["teachercache"]
    version: Literal[3]
    store: Format
    package: str
    field: FieldInfo
    teacher: TeacherInfo
    dataset: DatasetInfo
    views: ViewsInfo
    axes: Axes
    rows: Size
    batch: PositiveInt
    computed: ComputedInfo | None = None
    sharing: SharingInfo | None = None
    arrays: Annotated[dict[ArrayName, ArrayInfo], Field(min_length=1, max_length=1000), _validate_each(ArrayInfo)]
    files: Annotated[dict[str, FileInfo], _validate_each(FileInfo)]
    values: Digest
    root: Digest

    @model_validator(mode="after")
    def _check_consistency(self) -> Manifest:
        _check_files(self)
        if self.axes == "view, sample" and self.rows > self.dataset.samples:
            raise ValueError(f"rows: expected at most the {self.dataset.samples} samples, found {self.rows}")
        if len({array.shape[0] for array in self.arrays.values()}) > 1:
            raise ValueError(f"arrays: expected one number of {self.axes.split(', ')[0]}s, found several")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        entries: dict[str, Any] = serialize(self)
        absent = [key for key in OPTIONAL_ENTRIES if getattr(self, key) is None]
        return {key: value for key, value in entries.items() if key not in absent}

    @property
    def chunks(self) -> int:
        """Chunks of all arrays."""
        return sum(array.grid.count for array in self.arrays.values())

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


def _check_files(manifest: Manifest) -> None:
    """Raise ValueError unless the files are those of the arrays, each of which is checked too."""
    files, beside = manifest.files, paths.list_metadata_paths(manifest.store, manifest.arrays)
    listed = set(beside)
    for name, array in manifest.arrays.items():
        _check_array(manifest, name, array)
        listed |= set(paths.list_data_paths(manifest.store, name, array.grid.shards, len(array.shape)))
        if len(listed) > len(files):
            break  # no more names are made of files that are not there
    if listed != files.keys():
        raise ValueError(f"files: expected those of its arrays, found {min(listed ^ files.keys())!r} besides")
    large = sorted(name for name in beside - {paths.CHUNKS_PATH} if files[name].bytes > MAX_CHUNK_BYTES)
    if large:
        raise ValueError(f"files.{large[0]}: expected at most 1 GiB, found {files[large[0]].bytes} bytes")
    chunks, found = manifest.chunks, files[paths.CHUNKS_PATH].bytes
    if chunks > MAX_CHUNKS or found != chunks * RECORD_BYTES:
        raise ValueError(
            f"files.{paths.CHUNKS_PATH}: expected {chunks * RECORD_BYTES} bytes, of {chunks} chunks, found {found}"
        )


def _check_array(manifest: Manifest, name: str, array: ArrayInfo) -> None:
    """Raise ValueError unless an array's numbers go together."""
    first = manifest.views.count if manifest.axes == "view, sample" else array.shape[0]
    if array.shape[:2] != [first, manifest.rows]:
        raise ValueError(f"arrays.{name}.shape: expected to begin with {[first, manifest.rows]}, found {array.shape}")
    if array.codec not in CODECS[manifest.store]:
        raise ValueError(f"arrays.{name}.codec: {manifest.store} has no {array.codec}")
    if array.chunk_rows > array.shape[1] or array.chunk_rows * array.row_bytes > MAX_CHUNK_BYTES:
        raise ValueError(f"arrays.{name}.chunk_rows: expected at most {array.shape[1]} rows and 1 GiB a chunk")
    if (array.shard is None) != (manifest.store == "hdf5"):
        raise ValueError(f"arrays.{name}.shard: expected one in zarr alone, found {array.shard} in {manifest.store}")
    if array.shard and (
        array.shard[0] > array.shape[0]
        or array.shard[1] % array.chunk_rows
        or array.shard[1] > array.grid.per_view * array.chunk_rows
    ):
        raise ValueError(f"arrays.{name}.shard: expected whole chunks, at most those that it has, found {array.shard}")
    if math.prod(array.grid.shards) > MAX_SHARDS:
        raise ValueError(f"arrays.{name}.shard: expected at most {MAX_SHARDS} shards, found {array.grid.shards}")


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
