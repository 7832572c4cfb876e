"""Others read the same numbers: Zarr, HDF5 and TensorStore, and a stranger with the manifest alone."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any, get_args

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

VIEWS, ROWS, CHUNK_ROWS = 2, 21, 8  # the last block of a view is a short one
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
    plan = cut_store(plans, VIEWS, ROWS, CHUNK_ROWS)
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


class Stranger:
    """Reads a cache by its manifest and the words of the format alone; nothing of this package."""

    NUMBERS = {  # noqa: RUF012 - struct's letters
        "float16": "e", "float32": "f", "bfloat16": "H", "int16": "h", "int32": "i", "int64": "q", "uint8": "B",
    }  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, json.loads((folder / "manifest.json").read_bytes())

    def check_files(self) -> None:
        """Every file is there, whole, and no other."""
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        assert found == {"manifest.json", *self.manifest["files"]}
        for name, info in self.manifest["files"].items():
            data = (self.folder / name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (info["bytes"], info["sha256"])

    def root(self) -> str:
        rest = {key: value for key, value in self.manifest.items() if key != "root"}
        text = json.dumps(rest, sort_keys=True, indent=2) + "\n"
        return hashlib.sha256(text.encode()).hexdigest()

    def payload(self, info: dict[str, Any]) -> bytes:
        data = (self.folder / info["file"]).read_bytes()
        payload: bytes = data[info["offset"] : info["offset"] + info["bytes"]]
        assert slow_crc32c(payload) == info["crc32c"]
        assert hashlib.sha256(payload).hexdigest() == info["sha256"]
        if self.manifest["store"] == "zarr":
            assert data[len(payload) :] == struct.pack("<I", info["crc32c"])
        return payload

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
        parts, infos = [], iter(described["blocks"])
        for _ in range(views):
            for start in range(0, rows, described["chunk_rows"]):
                real = min(described["chunk_rows"], rows - start)
                data = self.decoded(self.payload(next(infos)), described["codec"])
                assert not any(data[real * row_bytes :])  # padding
                parts.append(data[: real * row_bytes])
        assert next(infos, None) is None
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
    assert_same({name: stranger.array(name) for name in stranger.manifest["arrays"]}, dtype)
    manifest = cache.open(folder).manifest
    assert (stranger.root(), stranger.values()) == (manifest.root, manifest.values)


@forms
def test_a_stranger_sees_damage(tmp_path: Path, store: Format, codec: Codec) -> None:
    folder = write(tmp_path, store, codec, "float16")
    info = json.loads((folder / "manifest.json").read_bytes())["arrays"]["a1"]["blocks"][1]
    path = folder / info["file"]
    data = bytearray(path.read_bytes())
    data[info["offset"] + info["bytes"] // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(AssertionError):
        Stranger(folder).check_files()
    with pytest.raises(AssertionError):
        Stranger(folder).array("a1")
