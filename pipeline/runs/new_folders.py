"""A cache outside of a study's layout: a new place, and unfinished work beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import explain_os_error, hold_lock, remove_path
from pipeline.cache.codecs import CODECS, Codec, Format


def refuse_existing(target: Path) -> None:
    """A cache is written to a new place, never over something else or into another cache.

    Raises:
        InputError: something is there already, or the place lies in a cache.
    """
    try:
        there = bool(target.lstat())
    except OSError as error:  # a name, say, that the file system does not take
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise _refuse_place(target, error) from None
        there = False
    around = next((folder for folder in target.absolute().parents if (folder / "manifest.json").exists()), None)
    if around is not None:
        raise InputError(
            str(target),
            expected="a place outside of any cache",
            found=f"the cache {around} around it",
            fix="choose another",
        )
    if there:
        raise InputError(str(target), expected="a new folder", found="something that is there", fix="choose another")


@contextmanager
def open_work_beside(target: Path) -> Iterator[Path]:
    """A folder of unfinished work, hidden beside a target, gone when the target is done or refused.

    It stays where the same run may go on from it: after a kill, a full disk or a network's failure.

    Raises:
        InputError: no folder can be made there, or another process works there.
    """
    folder = target.absolute().parent / f".{target.name}.work"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise _refuse_place(target, error) from None
        raise explain_os_error(error) or _refuse_place(target, error) from None
    try:
        with hold_lock(folder / "lock"):
            yield folder / "work"
    except NotNowError:
        raise
    except InputError:
        remove_path(folder)
        raise
    remove_path(folder)


def _refuse_place(target: Path, error: OSError) -> InputError:
    return InputError(
        str(target), expected="a folder that can be made", found=str(error.strerror), fix="choose another"
    )


def refuse_codec(codec: Codec | None, store: Format) -> None:
    """Raise InputError for a compression that a store does not have; None leaves the choice open."""
    if codec is not None and codec not in CODECS[store]:
        raise InputError("--codec", expected=f"one of {', '.join(CODECS[store])} for {store}", found=codec)
