"""Files that are whole or absent: digests, canonical JSON, atomic writes, locks, publishing."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from pipeline.base.errors import LONGEST_LINE, InputError, NotNowError, join_names

LOG = logging.getLogger(__name__)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # some NFS and Lustre mounts, and kernels of containers
READ_PIECE = 1 << 20  # bytes a read, so that hashing a large file never holds it in memory


# What operating systems, and the programs that show folders, leave in them: small letters, and how names begin.
SYSTEM_FILES = {
    ".ds_store", ".localized", "icon\r", "__macosx", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd",
    ".temporaryitems", ".apdisk", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin",
    "system volume information", ".directory", "@eadir", "lost+found",
}  # fmt: skip
SYSTEM_BEGINNINGS = ("._", ".nfs", ".fuse_hidden", ".trash-")


def is_system_file(name: str) -> bool:
    """Whether a file or folder of this name is one that an operating system leaves in a user's folders."""
    small = name.lower()
    return small in SYSTEM_FILES or small.startswith(SYSTEM_BEGINNINGS)


def advise_deletion(paths: Sequence[Path]) -> str:
    """Return the advice to delete files of an operating system, where nothing else is wrong."""
    named = join_names([str(path) for path in paths], longest=LONGEST_LINE // 4)  # long enough to be copied whole
    return f"delete {named}, which an operating system has left there"


def refuse_irregular_file(path: Path, expected: str, what: str | None = None) -> None:
    """Raise InputError for a folder, a pipe or a device, the latter to be read for ever; nothing there is fine."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # who opens it says what is wrong
        return
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise InputError(what or str(path), expected=expected, found=found, fix="name the file itself")


def hash_file(path: Path, offset: int = 0, size: int | None = None) -> str:
    """Return the SHA-256, in hexadecimal, of a file's bytes, or of (what there is of) `size` bytes from `offset` on."""
    digest, left = hashlib.sha256(), size
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while piece := file.read(READ_PIECE if left is None else min(READ_PIECE, left)):
            digest.update(piece)
            left = None if left is None else left - len(piece)
    return digest.hexdigest()


def encode_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, two spaces, no NaN."""
    return (json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=True) + "\n").encode()


def hash_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical bytes."""
    return hashlib.sha256(encode_json(value)).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value in its canonical bytes, whole or not at all."""
    write_bytes(path, encode_json(value))


def read_json(path: Path, fix: str, keys: Iterable[str] = ()) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Raises:
        InputError: it is missing, is no JSON, or lacks one of `keys`; `fix` says how to make it.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(str(path), expected="a file made by an earlier stage", found="nothing", fix=fix) from None
    except ValueError as error:
        raise InputError(str(path), expected="JSON", found=str(error), fix=fix) from None
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise InputError(str(path), expected=f"the key {missing[0]!r}", found="none such", fix=fix)
    return value


def write_bytes(path: Path, *data: bytes | memoryview, flush: bool = True) -> None:
    """Write a file under another name, flush it to the disk, then rename it into place.

    Without `flush` a killed process leaves whole files too, but a power cut may not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        with explain_disk_full(path, sum(memoryview(part).nbytes for part in data)):
            with unfinished.open("wb") as file:
                for part in data:
                    file.write(part)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def flush_file(path: Path) -> None:
    """Wait until the disk has a file."""
    with path.open("r+b") as file:  # Windows flushes what may be written
        os.fsync(file.fileno())


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file; the kernel frees it however the process ends.

    Where the file system has no locks, a file beside it is used, with a warning; the next process on this machine
    removes one that a killed process left.

    Raises:
        NotNowError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stand_in = path.with_name(f"{path.name}.held")
    try:
        held = _acquire_lock(path, stand_in)
    except Timeout:
        left = f"; where none runs (one was killed on another machine), delete {stand_in}" * stand_in.exists()
        raise NotNowError(
            str(path),
            expected="no other writer",
            found="a running process that writes the same output",
            fix=f"wait for it to end, or stop it{left}",
        ) from None
    with held:
        yield


def _acquire_lock(path: Path, stand_in: Path) -> AbstractContextManager[object]:
    try:
        return FileLock(path, timeout=0, fallback_to_soft=False).acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        reason = error.strerror
    # The first look removes what a killed process left, a later one takes the lock.
    held = SoftFileLock(stand_in, timeout=0.5).acquire()
    LOG.warning("no file locks in %s (%s): %s stands for one", path.parent, reason, stand_in.name)
    return held


def publish_output(work: Path, target: Path) -> None:
    """Move a finished folder or file into its place, and only then delete the old one.

    A rename onto a folder that is not empty fails, so the old one is moved aside first;
    `recover_output` finishes a swap that was cut between the two renames.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    trash = work.with_name(f"trash-{work.name}")
    remove_path(trash)
    if target.exists() or target.is_symlink():
        target.replace(trash)
    work.replace(target)
    remove_path(trash)


def recover_output(work: Path, target: Path) -> None:
    """Finish a `publish_output` that was cut: the old output is put back where no new one arrived."""
    trash = work.with_name(f"trash-{work.name}")
    if trash.exists():
        if target.exists():
            remove_path(trash)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            trash.replace(target)


def remove_path(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def work_in(folder: Path) -> Iterator[None]:
    """Make a folder the current one, and the former again, where one can still go there."""
    try:
        before = Path.cwd()
    except OSError:  # it has been deleted
        before = None
    os.chdir(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # deleted meanwhile, or closed to whoever started this
            os.chdir(before or folder)


class DiskFullError(OSError):
    """No room for an output: its path, the bytes that it takes in all, and those that are free where it was to be."""

    def __init__(self, path: Path | str, needed: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.needed = needed
        place = next((folder for folder in Path(path).absolute().parents if folder.is_dir()), None)
        self.free = shutil.disk_usage(place).free if place else None


@contextmanager
def explain_disk_full(path: Path, size: int) -> Iterator[None]:
    """Raise DiskFullError, with the path and `size` in bytes, where the disk fills up while the block writes."""
    try:
        yield
    except OSError as error:
        if _is_disk_full(error):
            raise DiskFullError(error.filename or path, size) from error
        raise


def _error_number(error: OSError) -> int:
    """The operating system's number of an error; HDF5 tells it in its words alone."""
    told = re.search(r"errno = (\d+)", str(error))
    return error.errno or (int(told[1]) if told else 0)


def _is_disk_full(error: OSError) -> bool:
    # numpy's words for it, without a number.
    cut_short = re.search(r"\d+ requested and \d+ written", str(error))
    return _error_number(error) in (errno.ENOSPC, errno.EDQUOT) or cut_short is not None


def _advise_space(error: OSError) -> str:
    """Return the advice to make room, with the bytes that are needed where they are known."""
    if not isinstance(error, DiskFullError):
        return "free some space"
    free = f" ({error.free:,} are free)" if error.free is not None else ""
    return f"make room for about {error.needed:,} bytes there{free}"


def explain_os_error(error: OSError) -> InputError | None:
    """Return the one-line form of an operating system error that the user can mend, else None."""
    where = str(error.filename) if error.filename else "the output folder"
    number = _error_number(error)
    if _is_disk_full(error):
        fix = f"nothing half-written was published; {_advise_space(error)} and run again"
        return InputError(f"disk full while writing {where}", fix=fix)
    if number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        return InputError(
            where,
            expected="a file system that can do what was asked of it",
            found=os.strerror(number),
            fix="use a folder on another file system, and unset HDF5_USE_FILE_LOCKING where it is set",
        )
    if number in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY):
        fix = "move away what is in its place; it is neither the folder nor the file that belongs there"
        return InputError(where, expected="a place for an output", found=os.strerror(number), fix=fix)
    if number == errno.ENAMETOOLONG:
        return InputError(where, expected="a name that the file system takes", found=os.strerror(number))
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(
            where,
            expected="permission to read and write here",
            found=os.strerror(number),
            fix="change the folder's owner or mode, or run from a folder of your own",
        )
    return None
