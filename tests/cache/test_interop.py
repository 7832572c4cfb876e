"""Others read the same numbers: Zarr, HDF5 and TensorStore, and a stranger with the manifest alone."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple, get_args

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from pipeline import cache
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import CODECS, Codec, Format
from pipeline.cache.dtypes import DType, storage_dtype
from pipeline.cache.writer import write_cache
from tests.cache.test_cache import DESCRIPTION
from tests.store_plans import cut_store

# Six chunks a view, the last one of a row. Shards of two views and four chunks of each: some slots are empty.
VIEWS, ROWS, CHUNK_ROWS = 3, 21, 4
ROW_SHAPES: tuple[tuple[int, ...], ...] = ((), (5,), (2, 3))
DTYPES: tuple[DType, ...] = get_args(DType)
FORMS: list[tuple[Format, Codec]] = [(store, codec) for store in CODECS for codec in CODECS[store]]

forms = pytest.mark.parametrize(("store", "codec"), FORMS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def arrays(dtype: DType) -> dict[str, NDArray[Any]]:
    """Arrays of any bits, by name, as they are stored."""
    generator = np.random.default_rng(1)
    found = {}
    for row_shape in ROW_SHAPES:
        shape = (VIEWS, ROWS, *row_shape)
        data = generator.bytes(math.prod(shape) * storage_dtype(dtype).itemsize)
        found[f"a{len(row_shape)}"] = np.frombuffer(data, storage_dtype(dtype)).reshape(shape)
    return found


def write(folder: Path, store: Format, codec: Codec, dtype: DType) -> Path:
    values = arrays(dtype)
    plans = {name: ArrayPlan(array.shape[2:], dtype, codec) for name, array in values.items()}

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        return {name: array[block.view, block.start : block.stop] for name, array in values.items()}

    described = {**DESCRIPTION, "views": {**DESCRIPTION["views"], "count": VIEWS}}
    plan = cut_store(plans, VIEWS, ROWS, CHUNK_ROWS, block_chunks=2, shard_blocks=2, shard_views=2)
    write_cache(folder / "dump", folder / "work", plan, compute, store=store, description=described)
    return folder / "dump"


def assert_same(found: dict[str, NDArray[Any]], dtype: DType) -> None:
    """The same bits, NaN included; bfloat16 is read as its bits."""
    expected = arrays(dtype)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert found[name].dtype == storage_dtype(dtype)
        assert found[name].tobytes() == values.tobytes()


@dtypes
@pytest.mark.parametrize("codec", CODECS["zarr"])
def test_zarr_reads_the_same_numbers(tmp_path: Path, codec: Codec, dtype: DType) -> None:
    group = zarr.open_group(write(tmp_path, "zarr", codec, dtype) / "data.zarr", mode="r")
    assert_same({name: np.asarray(array[...]) for name, array in group.arrays()}, dtype)


@dtypes
@pytest.mark.parametrize("codec", CODECS["hdf5"])
def test_h5py_reads_the_same_numbers(tmp_path: Path, codec: Codec, dtype: DType) -> None:
    with h5py.File(write(tmp_path, "hdf5", codec, dtype) / "data.h5") as file:
        assert_same({name: file[name][...] for name in file}, dtype)


@dtypes
@pytest.mark.parametrize("codec", CODECS["zarr"])
def test_tensorstore_reads_the_same_numbers(tmp_path: Path, codec: Codec, dtype: DType) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="TensorStore is not installed")
    folder = write(tmp_path, "zarr", codec, dtype) / "data.zarr"

    def read(name: str) -> NDArray[Any]:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder / name}/"}}
        values: NDArray[Any] = tensorstore.open(spec, read=True).result().read().result()
        return values

    assert_same({name: read(name) for name in arrays(dtype)}, dtype)


def crc_table() -> list[int]:
    """CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), a byte at a time."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC_TABLE = crc_table()


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Chunk(NamedTuple):
    """A record of the chunk table."""

    offset: int
    size: int
    file: int
    crc32c: int
    sha256: bytes


class Stranger:
    """Reads a cache by its manifest and the words of the format alone; nothing of this package."""

    NUMBERS = {  # noqa: RUF012 - struct's letters
        "float16": "e", "float32": "f", "bfloat16": "H", "int16": "h", "int32": "i", "int64": "q", "uint8": "B",
    }  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, json.loads((folder / "manifest.json").read_bytes())
        self.files = sorted(self.manifest["files"])
        self.table = [Chunk(*record) for record in struct.iter_unpack("<QQII32s", (folder / "chunks.bin").read_bytes())]
        self.chunks: dict[str, list[Chunk]] = {}
        first = 0
        for name, described in sorted(self.manifest["arrays"].items()):
            views, rows = described["shape"][:2]
            count = views * math.ceil(rows / described["chunk_rows"])
            self.chunks[name] = self.table[first : first + count]
            first += count
        assert first == len(self.table)

    def check_files(self) -> None:
        """Every file is there, whole, and no other."""
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        assert found == {"manifest.json", *self.files}
        for number, name in enumerate(self.files):
            data, rest, at = (self.folder / name).read_bytes(), b"", 0
            for chunk in sorted(chunk for chunk in self.table if chunk.file == number):
                assert chunk.offset >= at
                self.payload(chunk)
                rest += data[at : chunk.offset]
                at = chunk.offset + chunk.size
            rest += data[at:]
            info = self.manifest["files"][name]
            assert (len(data), hashlib.sha256(rest).hexdigest()) == (info["bytes"], info["sha256"])

    def root(self) -> str:
        rest = {key: value for key, value in self.manifest.items() if key != "root"}
        text = json.dumps(rest, sort_keys=True, indent=2) + "\n"
        return hashlib.sha256(text.encode()).hexdigest()

    def payload(self, chunk: Chunk) -> bytes:
        data = (self.folder / self.files[chunk.file]).read_bytes()
        payload: bytes = data[chunk.offset : chunk.offset + chunk.size]
        assert slow_crc32c(payload) == chunk.crc32c
        assert hashlib.sha256(payload).digest() == chunk.sha256
        return payload

    def check_shards(self, name: str) -> None:
        """Each shard of a Zarr store is in the one layout that there is, and just what its chunks make it."""
        described, row_axes = self.manifest["arrays"][name], len(self.manifest["arrays"][name]["shape"]) - 2
        views, rows = described["shape"][:2]
        per_view, (shard_views, shard_rows) = math.ceil(rows / described["chunk_rows"]), described["shard"]
        shard_chunks = shard_rows // described["chunk_rows"]
        for i in range(math.ceil(views / shard_views)):
            for j in range(math.ceil(rows / shard_rows)):
                file = f"data.zarr/{name}/c/{i}/{j}" + "/0" * row_axes
                made, index = b"", b""
                for view in range(i * shard_views, (i + 1) * shard_views):
                    for number in range(j * shard_chunks, (j + 1) * shard_chunks):
                        if view >= views or number >= per_view:
                            index += struct.pack("<QQ", 2**64 - 1, 2**64 - 1)
                            continue
                        chunk = self.chunks[name][view * per_view + number]
                        assert (self.files[chunk.file], chunk.offset) == (file, len(made))
                        index += struct.pack("<QQ", len(made), chunk.size + 4)
                        made += self.payload(chunk) + struct.pack("<I", chunk.crc32c)
                made += index + struct.pack("<I", slow_crc32c(index))
                assert (self.folder / file).read_bytes() == made

    def decoded(self, payload: bytes, codec: str) -> bytes:
        if codec == "zstd":
            return bytes(numcodecs.Zstd().decode(payload))
        if codec == "gzip":
            return zlib.decompress(payload, 31 if self.manifest["store"] == "zarr" else 15)
        return payload

    def array(self, name: str) -> NDArray[Any]:
        described = self.manifest["arrays"][name]
        views, rows, *row_shape = described["shape"]
        row_bytes = math.prod(row_shape) * struct.calcsize("<" + self.NUMBERS[described["dtype"]])
        parts, chunks = [], iter(self.chunks[name])
        for _ in range(views):
            for start in range(0, rows, described["chunk_rows"]):
                real = min(described["chunk_rows"], rows - start)
                data = self.decoded(self.payload(next(chunks)), described["codec"])
                assert not any(data[real * row_bytes :])  # padding
                parts.append(data[: real * row_bytes])
        assert next(chunks, None) is None
        return np.frombuffer(b"".join(parts), "<" + self.NUMBERS[described["dtype"]]).reshape(described["shape"])

    def values(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.manifest["arrays"]):
            described = self.manifest["arrays"][name]
            digest.update(f"{name} {described['shape']} {described['dtype']}\n".encode())
            digest.update(self.array(name).tobytes())
        return digest.hexdigest()


def test_the_slow_checksum_is_crc32c() -> None:
    assert slow_crc32c(b"123456789") == 0xE3069283
    assert slow_crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


@forms
@dtypes
def test_a_stranger_reads_the_same_numbers(tmp_path: Path, store: Format, codec: Codec, dtype: DType) -> None:
    folder = write(tmp_path, store, codec, dtype)
    stranger = Stranger(folder)
    stranger.check_files()
    if store == "zarr":
        for name in stranger.manifest["arrays"]:
            stranger.check_shards(name)
    assert_same({name: stranger.array(name) for name in stranger.manifest["arrays"]}, dtype)
    manifest = cache.open(folder).manifest
    assert (stranger.root(), stranger.values()) == (manifest.root, manifest.values)


@forms
def test_a_stranger_sees_damage(tmp_path: Path, store: Format, codec: Codec) -> None:
    folder = write(tmp_path, store, codec, "float16")
    stranger = Stranger(folder)
    chunk = stranger.chunks["a1"][1]
    path = folder / stranger.files[chunk.file]
    data = bytearray(path.read_bytes())
    data[chunk.offset + chunk.size // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(AssertionError):
        Stranger(folder).check_files()
    with pytest.raises(AssertionError):
        Stranger(folder).array("a1")
