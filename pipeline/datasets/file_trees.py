"""The files of folders and zips as people fill them.

Links are followed. Refused are one that leads nowhere or around in a circle, links that make many files of few, and a
folder that may not be read.
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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pipeline.base.errors import InputError
from pipeline.base.files import is_system_file

Kind = Literal["folder", "file", "other"]
LONGEST_LINK = 4096  # bytes of what a link in a zip leads to
# Files and folders that links lead to once more. (Without links there are no more than the disk or the zip holds.)
MOST_REPEATED = 100_000
# What messages say of a file, here and of images.
DENIED = ("no permission to read it", "change its owner or mode, or leave it out")
LEAVE_OUT = "leave it out or replace it"
# What damaged, encrypted (RuntimeError) and unsupported zips and members raise.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, LookupError, struct.error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)  # there are millions of them
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
    def from_path(cls, place: Path | str, below: PurePosixPath, where: str) -> File:
        """A file of the file system."""
        return cls(below, where, lambda: Path(place).open("rb"))


@dataclass(frozen=True)
class Tree:
    """The files and folders of one folder or zip.

    Attributes:
        where: the folder, or the zip with a colon behind it: what a path is put behind.
        files: all of them but hidden ones and those of operating systems.
        folders: likewise, "." for itself among them.
    """

    where: str
    files: tuple[File, ...]
    folders: frozenset[PurePosixPath]

    def display_path(self, path: PurePosixPath) -> str:
        """What messages call a path in it."""
        return self.where + str(path) if self.where.endswith(":") else str(Path(self.where) / path)

    def nest_under(self, top: str) -> Tree:
        """The same tree below a folder that the disk or zip does not have."""
        files = tuple(replace(file, path=top / file.path) for file in self.files)
        return Tree(self.where, files, frozenset({PurePosixPath(), *(top / folder for folder in self.folders)}))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is there for the machine, not for people."""
    return name.startswith(".") or is_system_file(name)


# ------------------------------------------------------------------ folders


def walk_folder(root: Path, shown: str) -> Tree:
    """The files and folders below a folder, links followed.

    Args:
        root: the folder.
        shown: what messages call it.

    Raises:
        InputError: a link that leads nowhere or to a folder around itself, links that lead to the same files again
            and again, or a folder that may not be read.
    """
    files: list[File] = []
    folders = {PurePosixPath()}
    for path, where, entry, kind in _walk_entries(root, shown):
        if kind == "folder":
            folders.add(path)
        elif kind == "file":
            files.append(File.from_path(entry.path, path, where))
        else:  # a pipe or a device would be read for ever
            files.append(File(path, where, io.BytesIO))
    return Tree(shown, tuple(files), frozenset(folders))


def _walk_entries(root: Path, shown: str) -> Iterator[tuple[PurePosixPath, str, os.DirEntry[str], Kind]]:
    """The entries below a folder that are not hidden: path from there, name for messages, entry and kind."""
    repeated, seen = 0, set[Path]()
    # Resolved, so that a chain of links is no longer than the operating system follows.
    top = Path(os.path.realpath(root))
    waiting = [(top, PurePosixPath(), frozenset((top, *top.parents)))]
    while waiting:
        folder, path, around = waiting.pop()
        place = Path(shown) / path
        with _refuse_unreadable(str(place)):
            entries = list(os.scandir(folder))
        repeated += (1 + len(entries)) * (folder in seen)
        _refuse_repeated(repeated, shown, str(place))
        seen.add(folder)
        for entry in entries:
            if is_hidden(entry.name):
                continue
            below, where = path / entry.name, str(place / entry.name)
            kind = _find_kind(entry, where)
            if kind == "folder":
                inner = Path(os.path.realpath(entry.path)) if entry.is_symlink() else folder / entry.name
                if inner in around:
                    raise _describe_os_error(where, OSError(errno.ELOOP, ""))
                waiting.append((inner, below, around | {inner, *inner.parents}))
            yield below, where, entry, kind


def _refuse_repeated(repeated: int, shown: str, where: str) -> None:
    """Raise InputError where links lead to the same files too often, as chains of links do without end."""
    if repeated > MOST_REPEATED:
        raise InputError(
            shown,
            expected=f"links that lead to at most {MOST_REPEATED:,} files and folders a second time",
            found=f"more, the last of them in {where}",
            fix="remove links that lead to the same folders",
        )


def _find_kind(entry: os.DirEntry[str], where: str) -> Kind:
    with _refuse_unreadable(where):
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()  # raises for a link that leads nowhere
    return "other"


@contextmanager
def _refuse_unreadable(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _describe_os_error(where, error) from None


def _describe_os_error(where: str, error: OSError) -> InputError:
    found, fix = {
        errno.ENOENT: ("a link that leads nowhere", "mend the link or remove it"),
        errno.ELOOP: ("a link that leads to itself or to a folder around it", "remove the link"),
        errno.EACCES: DENIED,
    }.get(error.errno or 0, (os.strerror(error.errno) if error.errno else str(error), LEAVE_OUT))
    return InputError(where, expected="a file or folder that can be read", found=found, fix=fix)


# ------------------------------------------------------------------ zips


def read_zip(path: Path, held: ExitStack) -> Tree:
    """The files and folders of a zip, links followed inside of it; nothing is unpacked.

    Args:
        path: the zip.
        held: closes it; until then its files can be read.

    Raises:
        InputError: no whole zip, one with a password, a name that leads out of it or stands there twice, a link that
            leads to nothing in it, or links that lead to the same files again and again.
    """
    archive = held.enter_context(_open_zip(path))
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
        elif inside in files or inside in links:
            raise _describe_double_name(where)
        elif stat.S_ISLNK(info.external_attr >> 16):
            links[inside] = _read_link(archive, info, inside, where)
        else:
            files[inside] = File(inside, where, partial(_open_member, archive, info, where))
    folders |= _find_folders([*files, *links])
    for link in sorted(links.keys() & folders):
        raise _describe_double_name(f"{path}:{link}")
    linked = _follow_links(links, files, path)
    folders |= _find_folders([file.path for file in linked])
    folders |= {parent for folder in folders for parent in folder.parents}
    return Tree(f"{path}:", (*files.values(), *linked), frozenset({PurePosixPath(), *folders}))


def _find_folders(paths: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """The folders around some paths."""
    direct = {path.parent for path in paths}
    return direct | {parent for folder in direct for parent in folder.parents}


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except DAMAGED as error:
        fix = "fetch it again" if path.suffix.lower() == ".zip" else "unpack it, or zip the images"
        raise InputError(str(path), expected="a whole zip file", found=str(error), fix=fix) from None


def _describe_double_name(where: str) -> InputError:
    return InputError(where, expected="each name once", found="it twice", fix="zip the files again")


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> IO[bytes]:
    """A file of a zip, open; raises InputError for a method of compression that Python does not read."""
    try:
        return archive.open(info)
    except NotImplementedError as error:
        fix = "zip the images again"
        raise InputError(where, expected="a zip that Python reads", found=str(error), fix=fix) from None


def _refuse_member(info: zipfile.ZipInfo, inside: PurePosixPath, where: str) -> None:
    if inside.is_absolute() or ".." in inside.parts:
        raise InputError(where, expected="a name inside the zip", found="one that leads out", fix="zip the files again")
    if info.flag_bits & 1:
        raise InputError(where, expected="a file without a password", found="an encrypted one", fix="unpack the zip")


def _read_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo, inside: PurePosixPath, where: str) -> PurePosixPath:
    """What a link in a zip leads to, as a path in it (perhaps one that begins with `..`)."""
    try:
        text = archive.read(info) if info.file_size <= LONGEST_LINK else None
    except DAMAGED as error:
        raise InputError(where, expected="a link", found=str(error), fix="zip the files again") from None
    if text is None:
        found = f"one to a name of {info.file_size:,} bytes"
        raise InputError(where, expected="a link to files of the zip", found=found, fix="zip the files themselves")
    return PurePosixPath(posixpath.normpath(posixpath.join(inside.parent, os.fsdecode(text))))


def _follow_links(
    links: Mapping[PurePosixPath, PurePosixPath], files: Mapping[PurePosixPath, File], path: Path
) -> list[File]:
    """The files that the links of a zip lead to, each under its link's path."""
    within: dict[PurePosixPath, list[File]] = defaultdict(list)
    for inside, file in files.items() if links else ():
        for parent in inside.parents:
            within[parent].append(file)
    hold_links = {parent for link in links for parent in link.parents}
    found: list[File] = []
    for link, target in links.items():
        where = f"{path}:{link}"
        if target in files:
            found.append(replace(files[target], path=link, where=where))
            continue
        if target not in within or target in hold_links:
            raise InputError(
                where,
                expected="a link to files of the zip",
                found=f"one to {target}, which is none of them, around the link, or holds links too",
                fix="zip the files themselves",
            )
        _refuse_repeated(len(found) + len(within[target]) - len(files) - len(links), str(path), where)
        moved = [(file, link / file.path.relative_to(target)) for file in within[target]]
        found += [replace(file, path=below, where=f"{path}:{below}") for file, below in moved]
    return found
