"""Where a store keeps what: file names and the bytes of a block. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.cache.codecs import Format

MANIFEST = "manifest.json"
CARD = "card.md"
STORE: dict[Format, str] = {"zarr": "data.zarr", "hdf5": "data.h5"}
CRC_BYTES = 4  # that end every Zarr chunk


def chunk(array: str, view: int, index: int, axes: int) -> str:
    """The file of a Zarr chunk: block `index` of one view; the row's own axes are never cut."""
    return "/".join([STORE["zarr"], array, "c", str(view), str(index), *["0"] * (axes - 2)])


def metadata(store: Format, arrays: Iterable[str]) -> set[str]:
    """The files of a cache that hold no rows, the manifest apart."""
    if store == "hdf5":
        return {CARD}
    return {CARD, f"{STORE[store]}/zarr.json", *(f"{STORE[store]}/{array}/zarr.json" for array in arrays)}
