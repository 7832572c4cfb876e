"""Where caches lie: file systems without locks or room, links, and files that an operating system leaves."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest

from pipeline import cache
from pipeline.base import files
from pipeline.base.errors import InputError
from pipeline.cache import hdf5_check
from pipeline.cache.blocks import Block
from pipeline.cache.chunk_grid import RECORD
from pipeline.cache.codecs import Codec
from pipeline.cache.damage import Damage, advise_on_system_files
from pipeline.cache.folder import LocalFolder, locate_folder, read_manifest
from pipeline.cache.verify import Verification, verify_cache
from tests.cache.test_cache import CHUNK, STORES, Store, flip, tree, values, write
from tests.cache.test_tools import DUMP, out
from tests.conftest import Capture, Run, refused

NO_LOCKS = ["ENOLCK", "ENOSYS", "EOPNOTSUPP"]


# File systems without locks.


@pytest.mark.parametrize("variable", [None, "TRUE", "BEST_EFFORT"])
def test_hdf5_is_read_where_it_cannot_be_locked(
    tmp_path: Path, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "hdf5")
    if variable:
        monkeypatch.setenv("HDF5_USE_FILE_LOCKING", variable)
    with (tmp_path / "dump/data.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # whoever asks for another lock does not get it
        opened = cache.open(tmp_path / "dump")
        assert np.array_equal(opened.load(), values())
        assert verify_cache(LocalFolder(tmp_path / "dump"), opened.manifest).is_whole


def test_hdf5_is_written_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = h5py.File

    def noting(*arguments: Any, **options: Any) -> Any:
        asked.append(options.get("locking"))
        return real(*arguments, **options)

    monkeypatch.setattr(h5py, "File", noting)
    write(tmp_path, "hdf5")
    assert asked == [False, False]  # written, and read back


@pytest.mark.parametrize("name", NO_LOCKS)
def test_without_flock_at_all(tmp_path: Path, name: str) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to put another flock in the place of the system's")
    source = tmp_path / "no_flock.c"
    source.write_text(f"#include <errno.h>\nint flock(int f, int o) {{ (void)f; (void)o; errno = {name}; return -1; }}")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "no_flock.so", source], check=True)
    made = write(tmp_path, "hdf5")
    paths = f'"path": "{tmp_path}/dump/data.h5", "table": "{tmp_path}/dump/chunks.bin"'
    facts = f'{{{paths}, "record": {json.dumps(RECORD.descr)}, "arrays": {{}}}}'
    preloaded = {**os.environ, "LD_PRELOAD": f"{tmp_path}/no_flock.so"}
    for locking, expected in (("FALSE", "'logits' besides"), ("TRUE", f'"errno": {getattr(errno, name)}')):
        done = subprocess.run(
            [sys.executable, hdf5_check.__file__], input=facts, capture_output=True, text=True, check=True,
            env={**preloaded, "HDF5_USE_FILE_LOCKING": locking},
        )  # fmt: skip
        assert expected in done.stdout
    code = f"from pipeline.cache.folder import *; from pipeline.cache.verify import *; f = locate_folder({str(tmp_path / 'dump')!r}); print(verify_cache(f, read_manifest(f, '')).is_whole)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=preloaded)
    assert done.stdout == "True\n"
    assert made.store == "hdf5"


@pytest.mark.parametrize("name", [*NO_LOCKS, "EACCES", "EMFILE", "ENOMEM"])
def test_what_the_machine_refuses_is_no_damage(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, number = write(tmp_path, "hdf5"), getattr(errno, name)
    told = OSError(f"Unable to synchronously open file (unable to lock file, errno = {number}, error message = '...')")
    assert hdf5_check.find_environment_errno(told) == hdf5_check.find_environment_errno(OSError(number, "x")) == number
    program = tmp_path / "check.py"
    program.write_text(f"import json; print(json.dumps({{'errno': {number}, 'problem': 'x'}}))")
    monkeypatch.setattr(hdf5_check, "__file__", str(program))
    with pytest.raises(OSError, match=r"data\.h5") as caught:
        verify_cache(LocalFolder(tmp_path / "dump"), made)
    assert caught.value.errno == number
    if name in NO_LOCKS:
        assert "a file system that can do what was asked of it" in str(files.explain_os_error(caught.value))


def test_what_hdf5_says_of_the_bytes_is_damage() -> None:
    for error in (OSError("bad object header"), OSError(errno.EIO, "x"), KeyError("errno = 37"), RuntimeError("x")):
        assert hdf5_check.find_environment_errno(error) == 0


# A full disk.


def test_a_full_disk_is_told_with_the_path_and_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=77))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its form is what the next lines are about
        files.write_bytes(tmp_path / "x.bin", b"1234", memoryview(np.zeros(250, "f4")))
    assert list(tmp_path.iterdir()) == []
    message = str(files.explain_os_error(caught.value))
    assert message.startswith(f"disk full while writing {tmp_path}/x.bin; nothing half-written was published; ")
    assert message.endswith("make room for about 1,004 bytes there (77 are free) and run again")
    for store, needed in zip(STORES, (1400, 2800), strict=True):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            write(tmp_path / store, store)
        message = str(files.explain_os_error(caught.value))
        assert f"disk full while writing {tmp_path}/{store}/" in message
        assert f"make room for about {needed:,} bytes there" in message


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EDQUOT, "x"), OSError("write failed: errno = 28, error"), OSError("80 requested and 4 written")],
)
def test_any_words_for_a_full_disk_are_understood(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(files.DiskFullError) as caught, files.explain_disk_full(tmp_path / "big", 5000):
        raise error
    assert f"writing {tmp_path}/big; nothing half-written was published; make room for about 5,000 bytes" in str(
        files.explain_os_error(caught.value)
    )
    with pytest.raises(ValueError, match="x"), files.explain_disk_full(tmp_path, 1):
        raise ValueError("x")
    with pytest.raises(PermissionError), files.explain_disk_full(tmp_path, 1):
        raise PermissionError(errno.EACCES, "x")


# What an operating system leaves.

LEFT = [
    ".DS_Store", "data.zarr/logits/._zarr.json", "Thumbs.db", "data.zarr/desktop.ini", "data.zarr/logits/c/0/.nfs000012",
    "__MACOSX/", "data.zarr/@eaDir/", "THUMBS.DB",
]  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_the_advice_is_to_delete_what_a_system_has_left(tmp_path: Path, name: str) -> None:
    made = write(tmp_path)
    path = tmp_path / "dump" / name
    path.mkdir() if name.endswith("/") else path.write_text("x")
    with pytest.raises(InputError) as caught:
        cache.open(tmp_path / "dump", fix="run `dvc repro dump-logits-big`")
    message = str(caught.value)
    assert f"file {name}: expected exactly the manifest's files, found " in message
    assert f"; delete {tmp_path / 'dump' / name}, which an operating system has left" in message
    assert "dvc repro" not in message
    found = verify_cache(LocalFolder(tmp_path / "dump"), made)
    assert [line.partition(":")[0] for line in found.labelled_lines()] == ["foreign"]
    assert not found.is_whole
    path.rmdir() if name.endswith("/") else path.unlink()
    assert verify_cache(LocalFolder(tmp_path / "dump"), cache.open(tmp_path / "dump").manifest).is_whole


def test_many_of_them_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path)
    for name in sorted(path.relative_to(tmp_path) for path in (tmp_path / "dump").rglob("*") if path.is_file()):
        (tmp_path / name.with_name(f"._{name.name}")).write_text("x")
    with pytest.raises(
        InputError,
        match=r"delete .*/\._card\.md, .*/\._chunks\.bin, .*/\._manifest\.json and 5 more, which an operating system has left",
    ):
        cache.open(tmp_path / "dump")


@pytest.mark.parametrize("name", ["notes.txt", "data.zarr/.zmetadata", "x.DS_Store", "extra/"])
def test_any_other_file_may_be_a_sign_of_something_else(tmp_path: Path, name: str) -> None:
    made = write(tmp_path)
    path = tmp_path / "dump" / name
    path.mkdir() if name.endswith("/") else path.write_text("x")
    (tmp_path / "dump/.DS_Store").write_text("x")  # one beside it changes nothing
    with pytest.raises(InputError, match="take it out of there, or dump it again"):
        cache.open(tmp_path / "dump")
    told = verify_cache(LocalFolder(tmp_path / "dump"), made).labelled_lines()
    assert sorted(line.partition(":")[0] for line in told) == ["damaged", "foreign"]


def test_nothing_is_nothing_to_delete(tmp_path: Path) -> None:
    assert advise_on_system_files(tmp_path, []) is None
    assert Verification((), None).advice(tmp_path) is None
    assert Verification((), "its metadata").advice(tmp_path) is None
    left = Damage(".DS_Store", "", "", unlisted=True)
    assert (
        advise_on_system_files(tmp_path, [left])
        == f"delete {tmp_path}/.DS_Store, which an operating system has left there"
    )
    assert Verification((left,), "its metadata").advice(tmp_path) is None
    assert advise_on_system_files(tmp_path, [left, Damage("card.md", "", "missing")]) is None


@pytest.mark.parametrize("left", [[], [".DS_Store"]])
def test_where_every_file_is_whole_the_store_is_asked(
    tmp_path: Path, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write(tmp_path)
    for name in left:
        (tmp_path / "dump" / name).write_text("x")

    def contradicts(*_: Any) -> None:
        raise InputError("its metadata")

    monkeypatch.setattr("pipeline.cache.verify.load_store", lambda _: SimpleNamespace(check_store=contradicts))
    found = verify_cache(LocalFolder(tmp_path / "dump"), made)
    assert found.structure == "its metadata"
    assert found.advice(tmp_path) is None


def test_damaged_blocks_are_named_as_far_as_a_line_has_room(tmp_path: Path) -> None:
    blocks = [("logits", Block(0, number, 16 * number, 16 * number + 16)) for number in range(5)]
    found = Damage("data.h5", "its sealed bytes", "another SHA-256", tuple(blocks))
    named = ", ".join(f"view 0, rows {16 * n} to {16 * n + 15} of array 'logits'" for n in range(3))
    assert f"found another SHA-256 ({named} and 2 more); fetch it" in str(found.error(tmp_path, "fetch it"))


def test_damage_is_told_first(tmp_path: Path) -> None:
    made = write(tmp_path)
    (tmp_path / "dump/.DS_Store").write_text("x")
    flip(tmp_path / "dump" / CHUNK, 100)
    found = verify_cache(LocalFolder(tmp_path / "dump"), made)
    assert found.advice(tmp_path / "dump") is None
    assert any(line.startswith(f"damaged: {CHUNK}") for line in found.labelled_lines())
    (tmp_path / "dump/card.md").unlink()
    with pytest.raises(InputError, match=r"file card\.md: expected .*, found missing; dump it again"):
        cache.open(tmp_path / "dump")


def test_line_ends_that_a_copy_has_changed_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "dump/manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(InputError, match=r"found Windows line ends; copy it again without that .*, or dump it again"):
        cache.open(tmp_path / "dump")


def test_every_command_gives_the_advice(run: Run, capsys: Capture, copy_of: Path) -> None:
    (copy_of / DUMP / ".DS_Store").write_text("x")
    advice = f"delete {DUMP}/.DS_Store, which an operating system has left there"
    for command in (
        ("train-student", "kd"), ("cache", "inspect", DUMP), ("cache", "convert", DUMP, "new"), ("cache", "diff", DUMP, DUMP),
    ):  # fmt: skip
        assert advice in refused(run, capsys, copy_of, *command)
    message = refused(run, capsys, copy_of, "cache", "verify", DUMP)
    assert f"found all of them, and foreign files: 1; {advice}" in message
    assert "repaired" in out(run, capsys, copy_of, "cache", "verify", DUMP, "--repair", "new")
    (copy_of / DUMP / ".DS_Store").unlink()
    assert tree(copy_of / "new") == tree(copy_of / DUMP)


def test_over_a_url_what_is_not_listed_is_never_seen(tmp_path: Path) -> None:
    write(tmp_path)
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "dump"), "/left", recursive=True)
    system.pipe("/left/.DS_Store", b"x")
    system.pipe("/left/data.zarr/._zarr.json", b"x")
    assert np.array_equal(cache.open("memory://left").load(), values())
    folder = locate_folder("memory://left")
    assert verify_cache(folder, read_manifest(folder, "")).is_whole


def test_names_that_are_no_system_s() -> None:
    assert files.is_system_file("Icon\r")
    for name in ("manifest.json", "card.md", "data.h5", "c", "0", ".x", "thumbs.db.txt", "nfs1"):
        assert not files.is_system_file(name)
        assert not Damage(name, "", "", unlisted=True).is_system_file
    assert not Damage(".DS_Store", "", "").is_system_file  # a listed one is missed, not left


# Links, and files that may not be written.


def linked_copy(source: Path, target: Path) -> None:
    """As `cp -rs` makes it: folders, and in them a link to each file."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if path.is_dir() else place.symlink_to(path)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("codec", ["none"])
def test_a_cache_is_read_through_links(tmp_path: Path, store: Store, codec: Codec) -> None:
    made = write(tmp_path, store)
    (tmp_path / "link").symlink_to("dump")
    linked_copy(tmp_path / "dump", tmp_path / "links")
    linked_copy(tmp_path / "links", tmp_path / "twice")
    (tmp_path / "tops").mkdir()
    for path in (tmp_path / "dump").iterdir():
        (tmp_path / "tops" / path.name).symlink_to(f"../dump/{path.name}")
    for name in ("link", "links", "twice", "tops"):
        opened = cache.open(tmp_path / name)
        assert np.array_equal(opened.load(), values())
        assert np.array_equal(opened.rows([69, 3]), values()[0][[69, 3]])
        folder = locate_folder(tmp_path / name)
        assert isinstance(folder, LocalFolder)
        assert verify_cache(folder, made).is_whole


@pytest.mark.parametrize("store", STORES)
def test_a_cache_that_may_not_be_written_is_read(tmp_path: Path, store: Store) -> None:
    made = write(tmp_path, store)
    everything = [tmp_path / "dump", *(tmp_path / "dump").rglob("*")]
    modes = [path.stat().st_mode for path in everything]
    for path in reversed(everything):
        path.chmod(path.stat().st_mode & ~0o222)
    before = [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in everything]
    assert np.array_equal(cache.open(tmp_path / "dump").load(), values())
    assert verify_cache(LocalFolder(tmp_path / "dump"), made).is_whole
    assert [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in everything] == before
    for path, mode in zip(everything, modes, strict=True):
        path.chmod(mode)


@pytest.mark.parametrize("name", [*LEFT, "__MACOSX/._x", "data.zarr/@eaDir/a/b"])
def test_what_a_system_leaves_among_links_is_to_be_deleted(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    linked_copy(tmp_path / "dump", tmp_path / "links")
    path = tmp_path / "links" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if name.endswith("/") else path.write_text("x")
    parts = name.rstrip("/").split("/")
    top = next(number for number, part in enumerate(parts) if files.is_system_file(part))
    left = tmp_path / "links" / "/".join(parts[: top + 1])
    for reader in (cache.open, locate_folder):
        with pytest.raises(InputError) as caught:
            reader(tmp_path / "links")
        assert str(caught.value).endswith(f"; delete {left}, which an operating system has left there")
    shutil.rmtree(left) if left.is_dir() else left.unlink()
    assert np.array_equal(cache.open(tmp_path / "links").load(), values())


def test_what_a_system_leaves_behind_links_is_to_be_deleted_there(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "dump/.DS_Store").write_text("x")
    linked_copy(tmp_path / "dump", tmp_path / "links")
    with pytest.raises(InputError, match=rf"; delete {tmp_path}/dump/\.DS_Store, which an operating system"):
        cache.open(tmp_path / "links")


def test_other_files_among_links_are_no_system_s(tmp_path: Path) -> None:
    write(tmp_path)
    linked_copy(tmp_path / "dump", tmp_path / "links")
    (tmp_path / "links/.DS_Store").write_text("x")
    (tmp_path / "links/notes.txt").write_text("x")
    with pytest.raises(InputError, match="found a link, and not all others lead to the same folder; copy the files"):
        cache.open(tmp_path / "links")


@pytest.mark.parametrize("extra", [False, True])
def test_links_of_dvc_s_are_to_be_made_files(tmp_path: Path, extra: bool) -> None:
    write(tmp_path)
    kept = tmp_path / ".dvc/cache/files/md5"
    for path in [path for path in (tmp_path / "dump").rglob("*") if path.is_file()]:
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        (kept / digest[:2]).mkdir(parents=True, exist_ok=True)
        path.replace(kept / digest[:2] / digest[2:])
        path.symlink_to(kept / digest[:2] / digest[2:])
    if extra:
        (tmp_path / "dump/.DS_Store").write_text("x")
    with pytest.raises(InputError) as caught:
        cache.open(tmp_path / "dump", fix="run `dvc repro dump-logits-big`")
    assert str(caught.value) == (
        f"{tmp_path}/dump/manifest.json: expected a cache's manifest, found a link into DVC's own cache, as its "
        "cache.type symlink makes them; run `dvc config cache.type reflink,hardlink,copy`, then `dvc checkout --relink`"
    )


def test_links_that_do_not_lead_to_one_cache_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path / "other", "zarr", "float16")

    def relinked(name: str, change: str, to: Path | str) -> Path:
        folder = tmp_path / name
        linked_copy(tmp_path / "dump", folder)
        (folder / change).unlink(missing_ok=True)
        (folder / change).symlink_to(to)
        return folder

    for folder in (
        relinked("a", CHUNK, tmp_path / "other/dump" / CHUNK),
        relinked("b", CHUNK, tmp_path / "dump" / CHUNK.replace("/1/", "/2/")),
        relinked("c", "manifest.json", tmp_path / "other/dump/manifest.json"),
        relinked("d", "manifest.json", "manifest.json"),
        relinked("e", "card.md", "nowhere"),
        relinked("f", "loop", "."),
    ):
        with pytest.raises(InputError, match=r"manifest\.json: expected a cache's manifest, found a link, and not all"):
            cache.open(folder)
    mixed = relinked("g", "x", "/etc/passwd")
    (mixed / "x").unlink()
    (mixed / CHUNK).unlink()
    shutil.copy(tmp_path / "dump" / CHUNK, mixed / CHUNK)
    with pytest.raises(InputError, match="copy the files themselves, or dump it again"):
        cache.open(mixed)
    flip(tmp_path / "dump" / CHUNK, 100)  # damage behind the links is damage
    linked_copy(tmp_path / "dump", tmp_path / "links")
    with pytest.raises(InputError, match=f"file {CHUNK}: expected its sealed bytes"):
        cache.open(tmp_path / "links")
