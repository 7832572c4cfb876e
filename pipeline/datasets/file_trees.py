"""What lies in folders and zips that people fill.

Links are followed; one that leads nowhere or around in a circle is refused, and so is a folder that may not be read.
Hidden files and those of operating systems are passed over.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pipeline.errors import InputError
from pipeline.files import is_system_file

LONGEST_LINK = 4096  # bytes of what a link in a zip leads to
# What damaged, encrypted (RuntimeError) and unsupported zips and members raise.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, LookupError, struct.error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class File:
    """A file that may be an image.

    Attributes:
        path: below the folder that was searched, or inside the zip.
        where: what messages call it.
        open: gives its bytes.
    """

    path: PurePosixPath
    where: str
    open: Callable[[], IO[bytes]]

    @classmethod
    def at(cls, place: Path | str, below: PurePosixPath, where: str) -> File:
        """A file of the file system."""
        return cls(below, where, lambda: Path(place).open("rb"))


@dataclass(frozen=True)
class Tree:
    """What lies in one folder or zip.

    Attributes:
        where: the folder, or the zip with a colon behind it: what a path is put behind.
        files: all of them but hidden ones and those of operating systems.
        folders: likewise, "." for itself among them.
    """

    where: str
    files: tuple[File, ...]
    folders: frozenset[PurePosixPath]

    def called(self, path: PurePosixPath) -> str:
        """What messages call a path in it."""
        return self.where + str(path) if self.where.endswith(":") else str(Path(self.where) / path)

    def under(self, top: str) -> Tree:
        """The same below a folder that is not there."""
        files = tuple(replace(file, path=top / file.path) for file in self.files)
        return Tree(self.where, files, frozenset({PurePosixPath(), *(top / folder for folder in self.folders)}))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is there for the machine, not for people."""
    return name.startswith(".") or is_system_file(name)


# ------------------------------------------------------------------ folders


def walk(root: Path, shown: str) -> Tree:
    """What lies below a folder, links followed.

    Args:
        root: the folder.
        shown: what messages call it.

    Raises:
        InputError: a link that leads nowhere or to a folder around itself, or a folder that may not be read.
    """
    files: list[File] = []
    folders = {PurePosixPath()}
    waiting: list[tuple[Path, PurePosixPath, frozenset[tuple[int, int]]]] = [(root, PurePosixPath(), frozenset())]
    while waiting:
        folder, path, around = waiting.pop()
        place = Path(shown) / path
        with _readable(str(place)):
            entries = list(os.scandir(folder))
            status = folder.stat()
        identity = status.st_dev, status.st_ino
        if identity in around:
            raise _refusal(str(place), OSError(errno.ELOOP, ""))
        for entry in entries:
            if is_hidden(entry.name):
                continue
            below, where = path / entry.name, str(place / entry.name)
            kind = _kind(entry, where)
            if kind == "folder":
                folders.add(below)
                waiting.append((Path(entry.path), below, around | {identity}))
            elif kind == "file":
                files.append(File.at(entry.path, below, where))
            else:  # a pipe or a device would be read for ever
                files.append(File(below, where, io.BytesIO))
    return Tree(shown, tuple(files), frozenset(folders))


def _kind(entry: os.DirEntry[str], where: str) -> Literal["folder", "file", "other"]:
    with _readable(where):
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()  # raises for a link that leads nowhere
    return "other"


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refusal(where, error) from None


def _refusal(where: str, error: OSError) -> InputError:
    found, fix = {
        errno.ENOENT: ("a link that leads nowhere", "mend the link or remove it"),
        errno.ELOOP: ("a link that leads to itself or to a folder around it", "remove the link"),
        errno.EACCES: ("no permission to read it", "change its owner or mode, or remove it"),
    }.get(error.errno or 0, (os.strerror(error.errno) if error.errno else str(error), "remove it or replace it"))
    return InputError(where, expected="a file or folder that can be read", found=found, fix=fix)


# ------------------------------------------------------------------ zips


def unzip(path: Path, held: ExitStack) -> Tree:
    """What lies in a zip; nothing is unpacked, and a link is followed inside of it.

    Args:
        path: the zip.
        held: closes it; until then its files can be read.

    Raises:
        InputError: no whole zip, one with a password, a name that leads out of it or stands there twice, or a link
            that leads to nothing in it.
    """
    try:
        archive = held.enter_context(zipfile.ZipFile(path))
    except DAMAGED as error:
        fix = "fetch it again" if path.suffix.lower() == ".zip" else "unpack it, or zip the images"
        raise InputError(str(path), expected="a whole zip file", found=str(error), fix=fix) from None
    files: dict[PurePosixPath, File] = {}
    folders: set[PurePosixPath] = set()
    links: dict[PurePosixPath, PurePosixPath] = {}
    for info in archive.infolist():
        # Some programs of Windows write backslashes.
        name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")
        inside, where = PurePosixPath(name), f"{path}:{info.filename}"
        _refuse_member(info, inside, where)
        if any(is_hidden(part) for part in inside.parts):
            continue
        if name.endswith("/"):
            folders.add(inside)
        elif stat.S_ISLNK(info.external_attr >> 16):
            links[inside] = _target(archive, info, inside, where)
        elif inside in files:
            raise InputError(where, expected="each name once", found="it twice", fix="zip the files again")
        else:
            files[inside] = File(inside, where, partial(archive.open, info))
    linked = [file for link, target in links.items() for file in _behind(link, target, files, links, path)]
    every = (*files.values(), *linked)
    folders |= {parent for file in every for parent in file.path.parents}
    folders |= {parent for folder in folders for parent in folder.parents}
    return Tree(f"{path}:", every, frozenset({PurePosixPath(), *folders}))


def _refuse_member(info: zipfile.ZipInfo, inside: PurePosixPath, where: str) -> None:
    if inside.is_absolute() or ".." in inside.parts:
        raise InputError(where, expected="a name inside the zip", found="one that leads out", fix="zip the files again")
    if info.flag_bits & 1:
        raise InputError(where, expected="a file without a password", found="an encrypted one", fix="unpack the zip")


def _target(archive: zipfile.ZipFile, info: zipfile.ZipInfo, inside: PurePosixPath, where: str) -> PurePosixPath:
    """What a link in a zip leads to, as a path in it (perhaps one that begins with `..`)."""
    try:
        text = archive.read(info) if info.file_size <= LONGEST_LINK else None
    except DAMAGED as error:
        raise InputError(where, expected="a link", found=str(error), fix="zip the files again") from None
    if text is None:
        found = f"one to a name of {info.file_size:,} bytes"
        raise InputError(where, expected="a link to files of the zip", found=found, fix="zip the files themselves")
    return PurePosixPath(posixpath.normpath(posixpath.join(inside.parent, os.fsdecode(text))))


def _behind(
    link: PurePosixPath,
    target: PurePosixPath,
    files: dict[PurePosixPath, File],
    links: Iterable[PurePosixPath],
    path: Path,
) -> list[File]:
    """The files that a link in a zip stands for."""
    if target in files:
        return [replace(files[target], path=link, where=f"{path}:{link}")]
    found = [file for inside, file in files.items() if target in inside.parents]
    if not found or target in link.parents or any(target in other.parents for other in links):
        raise InputError(
            f"{path}:{link}",
            expected="a link to files of the zip",
            found=f"one to {target}, which is none of them, around the link, or holds links too",
            fix="zip the files themselves",
        )
    moved = [(file, link / file.path.relative_to(target)) for file in found]
    return [replace(file, path=below, where=f"{path}:{below}") for file, below in moved]
