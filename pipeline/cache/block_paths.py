"""Where a store keeps what: file names and the bytes of a block. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.cache.codecs import Format

MANIFEST_PATH = "manifest.json"
CARD_PATH = "card.md"
STORE_PATHS: dict[Format, str] = {"zarr": "data.zarr", "hdf5": "data.h5"}
CRC_BYTES = 4  # that end every Zarr chunk


def chunk_path(array: str, view: int, index: int, axes: int) -> str:
    """The file of a Zarr chunk: block `index` of one view; the row's own axes are never cut."""
    return "/".join([STORE_PATHS["zarr"], array, "c", str(view), str(index), *["0"] * (axes - 2)])


def list_metadata_paths(store: Format, arrays: Iterable[str]) -> set[str]:
    """The files of a cache that hold no rows, the manifest apart."""
    if store == "hdf5":
        return {CARD_PATH}
    return {
        CARD_PATH,
        f"{STORE_PATHS[store]}/zarr.json",
        *(f"{STORE_PATHS[store]}/{array}/zarr.json" for array in arrays),
    }
