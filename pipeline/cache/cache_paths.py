"""Where a store keeps what: file names. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.cache.codecs import Format

MANIFEST_PATH = "manifest.json"
CARD_PATH = "card.md"
CHUNKS_PATH = "chunks.bin"
STORE_PATHS: dict[Format, str] = {"zarr": "data.zarr", "hdf5": "data.h5"}


def list_data_paths(store: Format, array: str, shards: tuple[int, int], axes: int) -> list[str]:
    """The files that hold an array's chunks, in the order of its shards: along the rows first; the row's own axes
    are never cut.
    """
    if store == "hdf5":
        return [STORE_PATHS["hdf5"]]
    place, rest = f"{STORE_PATHS[store]}/{array}/c", "/0" * (axes - 2)
    return [f"{place}/{view}/{index}{rest}" for view in range(shards[0]) for index in range(shards[1])]


def list_metadata_paths(store: Format, arrays: Iterable[str]) -> set[str]:
    """The files of a cache that hold no rows, the manifest apart."""
    beside = {CARD_PATH, CHUNKS_PATH}
    if store == "hdf5":
        return beside
    return {
        *beside,
        f"{STORE_PATHS[store]}/zarr.json",
        *(f"{STORE_PATHS[store]}/{array}/zarr.json" for array in arrays),
    }
