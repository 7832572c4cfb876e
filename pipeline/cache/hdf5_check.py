"""Does HDF5 itself find each array where the manifest says, and nothing else?

Run as a program of its own, by path: a file made for it can send the HDF5 library into endless
recursion, and that must not end the reader. Reads a JSON description on standard input; prints, as JSON, what
differs (`problem`), or the number of the operating system's error where the file could not be read (`errno`).
"""

import errno
import json
import re
import sys
import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

# What an operating system says of the place or of the machine, and not of the file's bytes.
ENVIRONMENT_ERRNOS = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EAGAIN", "ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EMFILE", "ENFILE", "ENOMEM")
}


def find_problem(description: dict[str, Any]) -> str | None:
    """The first difference, or None."""
    arrays, record = (
        description["arrays"],
        [(key, kind, *map(tuple, rest)) for key, kind, *rest in description["record"]],
    )
    table = np.fromfile(description["table"], np.dtype(record))
    with h5py.File(description["path"], "r", locking=False) as file:
        names = set(file)
        if names != arrays.keys():
            return f"{min(names ^ arrays.keys())!r} besides the manifest's arrays"
        for name, array in arrays.items():
            found = find_array_problem(file, name, array, table[slice(*array["records"])])
            if found:
                return f"array {name!r}: {found}"
    return None


def find_array_problem(file: h5py.File, name: str, array: dict[str, Any], chunks: NDArray[Any]) -> str | None:
    """The first difference of a data set from its description, or None."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return "a link"
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        return "no data set"
    plain, layout = array["codec"] == "none", item.id.get_create_plist()
    filters = [layout.get_filter(number)[0] for number in range(layout.get_nfilters())]
    facts = {
        "external storage": (layout.get_external_count(), 0),
        "layout": (layout.get_layout(), h5py.h5d.CONTIGUOUS if plain else h5py.h5d.CHUNKED),
        "filters": (filters, [] if plain else [h5py.h5z.FILTER_DEFLATE]),
        "shape": (list(item.shape or ()), array["shape"]),
        "dtype": (item.id.get_type() == h5py.h5t.py_create(np.dtype(array["dtype"])), True),
        "chunks": (item.chunks and list(item.chunks), None if plain else [1, array["chunk_rows"], *array["shape"][2:]]),
    }
    for what, (found, expected) in facts.items():
        if found != expected:
            return what if what == "external storage" else f"another {what}"
    check = check_contiguous if plain else check_chunked
    return check(item, array["chunk_rows"], chunks)


def check_contiguous(item: h5py.Dataset, chunk_rows: int, chunks: NDArray[Any]) -> str | None:
    """Whether each chunk lies where its rows are."""
    views, rows = item.shape[:2]
    start, row = item.id.get_offset(), item.nbytes // (views * rows)
    if start is None:
        return "no place in the file"
    view, index = np.divmod(np.arange(len(chunks)), -(-rows // chunk_rows))
    moved = np.flatnonzero(chunks["offset"] != start + (view * rows + index * chunk_rows) * row)
    return f"{describe_chunk(int(moved[0]), rows, chunk_rows)} at another place" if len(moved) else None


def check_chunked(item: h5py.Dataset, chunk_rows: int, chunks: NDArray[Any]) -> str | None:
    """Whether the library reads from each chunk what its bytes decode to."""
    rows = item.shape[1]
    size = item.nbytes // (item.shape[0] * rows) * chunk_rows
    places, sizes, masks = list_chunks(item, chunk_rows, len(chunks))
    moved = np.flatnonzero((places != chunks["offset"]) | (sizes != chunks["bytes"]) | (masks != 0))
    if len(moved):
        return f"{describe_chunk(int(moved[0]), rows, chunk_rows)} at another place"
    with open(item.file.filename, "rb") as file:  # noqa: PTH123
        for number, (offset, stored) in enumerate(chunks[["offset", "bytes"]].tolist()):
            view, first = number // -(-rows // chunk_rows), number % -(-rows // chunk_rows) * chunk_rows
            file.seek(offset)
            raw = inflate_chunk(file.read(stored), size)
            if raw is None or not raw.startswith(item[view, first : first + chunk_rows].tobytes()):
                return f"{describe_chunk(number, rows, chunk_rows)} that read otherwise"
    return None


def list_chunks(item: h5py.Dataset, chunk_rows: int, count: int) -> tuple[NDArray[np.int64], ...]:
    """Offset, bytes and filter mask (n,) of each chunk of a data set by its number; -1 of those that it lacks.

    All in one walk: to look for one of n chunks takes the library time in proportion to n.
    """
    found = np.full((3, count), -1, np.int64)
    per_view = -(-item.shape[1] // chunk_rows)

    def note(chunk: Any) -> None:
        view, first = chunk.chunk_offset[:2]
        number = view * per_view + first // chunk_rows
        if number < count:
            found[:, number] = chunk.byte_offset, chunk.size, chunk.filter_mask

    item.id.chunk_iter(note)
    return tuple(found)


def inflate_chunk(data: bytes, size: int) -> bytes | None:
    """Just so many bytes, or None; before the library looks at them, which inflates whatever there is."""
    stream = zlib.decompressobj()
    raw = stream.decompress(data, size + 1)
    return raw if len(raw) == size and stream.eof and not stream.unused_data else None


def describe_chunk(number: int, rows: int, chunk_rows: int) -> str:
    """Which rows a chunk holds."""
    view, index = divmod(number, -(-rows // chunk_rows))
    return f"view {view}, rows {index * chunk_rows} to {min(rows, (index + 1) * chunk_rows) - 1}"


def find_environment_errno(error: Exception) -> int:
    """The number of an operating system's error that says nothing of the file's bytes; 0 of any other."""
    told = re.search(r"errno = (\d+)", str(error))  # HDF5 often has it in its words alone
    number = getattr(error, "errno", None) or (int(told[1]) if told and isinstance(error, OSError) else 0)
    return number if number in ENVIRONMENT_ERRNOS else 0


if __name__ == "__main__":
    description, number = json.load(sys.stdin), 0
    try:
        line = find_problem(description)
    except Exception as error:  # noqa: BLE001 - whatever a broken file makes the library say
        number, line = find_environment_errno(error), f"no sound HDF5 file ({type(error).__name__}: {error})"
    # ASCII, whatever the names in the file.
    print(json.dumps({"errno": number, "problem": " ".join((line or "").split())[:500]}))
