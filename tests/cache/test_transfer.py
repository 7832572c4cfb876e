"""Caches that are pushed to a URL and pulled from one: what travels, what is refused, and what a cut leaves."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import cache, runs
from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import encode_json, hash_json
from pipeline.cache import remote_errors
from pipeline.cache.chunk_table import iterate_gaps
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.folder import LocalFolder, read_manifest, read_table
from pipeline.cache.push_record import BEGUN_PATH, PROGRESS_PATH, PushRecord, parse_record
from pipeline.cache.stream_check import ChangedError, FileCheck
from tests.cache.test_cache import CLASSES
from tests.cache.test_urls import Plain, assert_one_line, deaf, forms, over_http, values, with_ranges, write
from tests.conftest import ROOT, Capture, Run, refused

PARTS: list[Format] = ["zarr", "hdf5"]


class Killed(BaseException):
    """The process ends here."""


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """A store that breaks off after so many bytes, read or written, and notes what is read and written."""

    protocol = "flaky"
    left: ClassVar[float] = float("inf")
    error: ClassVar[type[BaseException]] = ConnectionResetError
    written: ClassVar[dict[str, int]] = {}
    read: ClassVar[dict[str, int]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("flaky://"))
        return stripped

    @classmethod
    def reset(cls, left: float = float("inf"), error: type[BaseException] = ConnectionResetError) -> None:
        cls.left, cls.error, cls.written, cls.read = left, error, {}, {}

    @classmethod
    def pass_on(cls, counts: dict[str, int], path: str, data: bytes) -> bytes:
        """As many bytes as are left."""
        part = data[: int(min(cls.left, len(data)))]
        cls.left -= len(part)
        counts[path.rpartition("cache/")[2]] = counts.get(path.rpartition("cache/")[2], 0) + len(part)
        return part

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if self.left <= 0:
            raise self.error("broken off")
        return FlakyFile(super()._open(path, mode, **options), path)


class FlakyFile:
    def __init__(self, file: Any, path: str) -> None:
        self.file, self.path = file, path

    def write(self, data: bytes) -> None:
        part = Flaky.pass_on(Flaky.written, self.path, bytes(data))
        self.file.write(part)
        if len(part) < len(data):
            raise Flaky.error("broken off")

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        part = Flaky.pass_on(Flaky.read, self.path, data)
        if data and not part:
            raise Flaky.error("broken off")
        return part

    def close(self) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def flaky() -> Iterator[str]:
    """The URL of an empty place in a store that breaks off when it is told to."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.reset()
    place = uuid.uuid4().hex
    yield f"flaky://{place}/cache"
    Flaky.reset()
    with_files = fsspec.filesystem("memory")
    if with_files.exists(place):
        with_files.rm(place, recursive=True)


@pytest.fixture
def memory() -> Iterator[str]:
    place = f"memory://{uuid.uuid4().hex}"
    yield f"{place}/cache"
    if fsspec.filesystem("memory").exists(place):
        fsspec.filesystem("memory").rm(place, recursive=True)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def there(url: str) -> dict[str, bytes]:
    """The files at a URL."""
    system, root = fsspec.core.url_to_fs(url)
    store = fsspec.filesystem("memory") if isinstance(system, MemoryFileSystem) else system
    return {name.removeprefix(f"{root}/"): store.cat_file(name) for name in store.find(root)}


def put(url: str, name: str, data: bytes | None) -> None:
    """Change a file at a URL, or take it away."""
    system, root = fsspec.core.url_to_fs(url)
    store = fsspec.filesystem("memory") if isinstance(system, MemoryFileSystem) else system
    if data is None:
        store.rm_file(f"{root}/{name}")
    else:
        store.pipe_file(f"{root}/{name}", data)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def refusal(action: Callable[[], object], *parts: str, kind: type[InputError] = InputError) -> None:
    with pytest.raises(kind) as caught:
        action()
    assert_one_line(caught.value, *parts)


def other(folder: Path, store: Format = "zarr", codec: Codec = "none") -> Path:
    """Another cache, with files of the very names and sizes of the first one's."""
    return write(folder / "other", store, codec, values() + 1)


# ------------------------------------------------------------------ there and back


@forms
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_cache_comes_back_with_its_bytes(tmp_path: Path, memory: str, kind: str, store: Format, codec: Codec) -> None:
    made, url = write(tmp_path, store, codec), memory if kind == "memory" else f"file://{tmp_path}/shared/place"
    pushed = runs.push_cache(made, url)
    assert there(url) == files(made)
    assert pushed.values["sent_files"] == len(files(made)) - 1
    pulled = runs.pull_cache(url, tmp_path / "back")
    assert files(tmp_path / "back") == files(made)
    assert pulled.values["root"] == pushed.values["root"]
    assert np.array_equal(cache.open(tmp_path / "back").load(), values())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".back")] == []


@forms
def test_a_cache_is_pulled_over_http(tmp_path: Path, serve: Callable[[Path], Any], store: Format, codec: Codec) -> None:
    made = write(tmp_path, store, codec)
    with serve(made) as served:
        runs.pull_cache(served.url, tmp_path / "back")
    assert files(tmp_path / "back") == files(made)


@pytest.fixture(params=["plain", "ranges"])
def serve(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    return with_ranges if request.param == "ranges" else lambda folder: over_http(folder, Plain, [])


def test_what_is_there_does_not_travel_again(tmp_path: Path, flaky: str) -> None:
    made = write(tmp_path, "zarr", "none")
    runs.push_cache(made, flaky)
    Flaky.reset()
    again = runs.push_cache(made, flaky)
    assert (again.values["sent_files"], Flaky.written) == (0, {})
    runs.pull_cache(flaky, tmp_path / "back")
    Flaky.reset()
    assert runs.pull_cache(flaky, tmp_path / "back").values["fetched_bytes"] == 0
    assert Flaky.read.keys() == {"manifest.json"}


def test_a_file_that_is_gone_there_is_sent_alone(tmp_path: Path, flaky: str) -> None:
    made = write(tmp_path, "zarr", "none")
    runs.push_cache(made, flaky)
    put(flaky, "card.md", None)
    put(flaky, "data.zarr/logits/c/0/2/0", b"short")
    Flaky.reset()
    assert runs.push_cache(made, flaky).values["sent_files"] == 2
    assert Flaky.written.keys() == {"card.md", "data.zarr/logits/c/0/2/0", "manifest.json", BEGUN_PATH, PROGRESS_PATH}
    assert there(flaky) == files(made)


def test_a_check_reads_all_back_and_mends_it(tmp_path: Path, flaky: str) -> None:
    made, name = write(tmp_path, "zarr", "none"), "data.zarr/logits/c/0/2/0"
    runs.push_cache(made, flaky)
    put(flaky, name, flipped(there(flaky)[name], 7))
    assert runs.push_cache(made, flaky).values["sent_files"] == 0  # of its size
    Flaky.reset()
    assert runs.push_cache(made, flaky, check=True).values["sent_files"] == 1
    sizes = {path: len(data) for path, data in files(made).items()}
    assert {path: Flaky.read[path] for path in sizes.keys() - {name, "manifest.json"}} == {
        path: size for path, size in sizes.items() if path not in (name, "manifest.json")
    }
    assert there(flaky) == files(made)


class Forgetful(Flaky):
    """Loses the last byte of each shard, without a word."""

    protocol = "forgetful"
    change: ClassVar[Callable[[bytes], bytes]] = lambda data: data[:-1]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(str(path).removeprefix("forgetful://"))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        if "w" in mode and "/c/" in path:
            write_all = file.write
            file.write = lambda data: write_all(type(self).change(bytes(data)))
        return file


@pytest.mark.parametrize("check", [False, True])
def test_a_store_that_keeps_other_bytes_is_told_of(tmp_path: Path, memory: str, check: bool) -> None:
    fsspec.register_implementation("forgetful", Forgetful, clobber=True)
    Forgetful.change = (lambda data: flipped(data, 3)) if check else (lambda data: data[:-1])
    url = memory.replace("memory://", "forgetful://")
    made = write(tmp_path, "zarr", "none")
    refusal(
        lambda: runs.push_cache(made, url, check=check),
        "data.zarr/logits/c/0/0/0: expected the 344 bytes that were sent, found others",
        kind=NotNowError,
    )
    assert "manifest.json" not in there(memory)


def test_a_local_cache_is_verified_before_and_while_it_travels(
    tmp_path: Path, flaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, name = write(tmp_path, "zarr", "none"), "data.zarr/logits/c/1/2/0"
    sound = (made / name).read_bytes()
    (made / name).write_bytes(flipped(sound, 5))
    refusal(lambda: runs.push_cache(made, flaky), name, "another SHA-256")
    assert Flaky.written == {}
    (made / name).write_bytes(sound)
    opened = cache.open(made)

    def open_and_lose(*_: object, **__: object) -> cache.Cache:
        (made / name).write_bytes(flipped(sound, 5))
        return opened

    monkeypatch.setattr(cache, "open", open_and_lose)
    refusal(lambda: runs.push_cache(made, flaky), name, "another SHA-256", "expected the bytes that were sealed")
    assert "manifest.json" not in there(flaky)
    monkeypatch.undo()
    (made / name).write_bytes(sound)
    runs.push_cache(made, flaky)
    assert there(flaky) == files(made)


# ------------------------------------------------------------------ cut in the middle


def cuts(total: int) -> list[int]:
    """Twenty places in so many bytes, the first and the last among them."""
    return sorted({0, 1, total - 1, *np.linspace(0, total - 1, 20).astype(int).tolist()})[:22]


@pytest.mark.parametrize("error", [Killed, ConnectionResetError])
@pytest.mark.parametrize("store", PARTS)
def test_a_push_that_is_cut_goes_on(tmp_path: Path, flaky: str, store: Format, error: type[BaseException]) -> None:
    made = write(tmp_path, store, "none")
    runs.push_cache(made, flaky)
    places = cuts(sum(Flaky.written.values()))
    assert len(places) >= 20
    for number, left in enumerate(places):
        url = f"{flaky}-{number}/cache"
        Flaky.reset(left, error)
        with pytest.raises(Killed if error is Killed else NotNowError):
            runs.push_cache(made, url)
        Flaky.reset()
        finished = parse_record(there(url).get(PROGRESS_PATH)).finished
        if there(url).get("manifest.json") != files(made)["manifest.json"]:
            refusal(functools.partial(cache.open, url), "manifest.json")
        runs.push_cache(made, url)
        assert there(url) == files(made), left
        assert finished.isdisjoint(Flaky.written), left
        assert cache.open(url).load().tobytes() == values().tobytes()


def test_a_push_puts_up_with_a_connection_that_is_cut_now_and_then(tmp_path: Path, flaky: str) -> None:
    made = write(tmp_path, "zarr", "none")

    class OnceError(ConnectionResetError):
        """The next connection holds for a while."""

        count = 0

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            OnceError.count, Flaky.left = OnceError.count + 1, 6000

    Flaky.reset(1000, OnceError)
    runs.push_cache(made, flaky)
    assert OnceError.count >= 3
    Flaky.reset()
    assert there(flaky) == files(made)


@pytest.mark.parametrize("error", [Killed, ConnectionResetError])
@pytest.mark.parametrize("store", PARTS)
def test_a_pull_that_is_cut_goes_on(tmp_path: Path, flaky: str, store: Format, error: type[BaseException]) -> None:
    made = write(tmp_path, store, "none")
    runs.push_cache(made, flaky)
    total = sum(len(data) for name, data in files(made).items() if name != "manifest.json")
    begin = len((made / "manifest.json").read_bytes())
    for number, left in enumerate(cuts(total)):
        target = tmp_path / f"back-{number}"
        Flaky.reset(begin + left, error)
        with pytest.raises(Killed if error is Killed else NotNowError):
            runs.pull_cache(flaky, target)
        assert not target.exists()
        arrived = sum(len(data) for data in files(tmp_path / f".back-{number}.work/work").values())
        Flaky.reset()
        fetched = runs.pull_cache(flaky, target).values["fetched_bytes"]
        assert files(target) == files(made), left
        # What had arrived of the chunk that was cut is fetched once more.
        assert total - arrived <= fetched <= total - arrived + 16 * CLASSES * 4
        assert sum(count for name, count in Flaky.read.items() if name != "manifest.json") == fetched
        assert not (tmp_path / f".back-{number}.work").exists()


def test_unfinished_work_that_was_changed_is_not_trusted(tmp_path: Path, flaky: str) -> None:
    for store in PARTS:
        made = write(tmp_path / store, store, "none")
        url, target = f"{flaky}-{store}/cache", tmp_path / f"back-{store}"
        runs.push_cache(made, url)
        Flaky.reset(sum(len(data) for data in files(made).values()) - 30, Killed)
        with pytest.raises(Killed):
            runs.pull_cache(url, target)
        Flaky.reset()
        work = tmp_path / f".back-{store}.work/work"
        left = [path for path in work.rglob("*") if path.is_file() and path.stat().st_size]
        assert len(left) >= 2
        for path in left:
            path.write_bytes(flipped(path.read_bytes(), path.stat().st_size // 2))
        runs.pull_cache(url, target)
        assert files(target) == files(made)


@pytest.mark.parametrize("store", PARTS)
def test_a_part_of_a_damaged_chunk_is_fetched_again(tmp_path: Path, flaky: str, store: Format) -> None:
    """It came before anybody could see that it is damaged, and was mended there since."""
    made = write(tmp_path, store, "none")
    runs.push_cache(made, flaky)
    info = cache.open(made).table.arrays["logits"].find(2)
    sound = (made / info.file).read_bytes()
    before = [name for name in files(made) if name == "chunks.bin" or name < info.file]
    begin = sum(len(files(made)[name]) for name in {*before, "manifest.json"})
    put(flaky, info.file, flipped(sound, info.offset + 2))
    Flaky.reset(begin + info.offset + 10, Killed)
    with pytest.raises(Killed):
        runs.pull_cache(flaky, tmp_path / "back")
    (arrived,) = (tmp_path / ".back.work/work").glob(f"*/{info.file}")
    assert arrived.stat().st_size == info.offset + 10
    put(flaky, info.file, sound)
    Flaky.reset()
    runs.pull_cache(flaky, tmp_path / "back")
    assert files(tmp_path / "back") == files(made)


SLOW = """
import sys
from pipeline import runs
runs.pull_cache(sys.argv[1], sys.argv[2])
"""


class Stalling(Plain):
    """Sends nothing more after so many bytes of rows."""

    left: ClassVar[int] = 0
    stalled: ClassVar[threading.Event] = threading.Event()
    go_on: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        part = data[: Stalling.left] if "/c/" in self.path else data
        Stalling.left -= len(part) if "/c/" in self.path else 0
        self.wfile.write(part)
        self.wfile.flush()
        if len(part) < len(data):
            Stalling.stalled.set()
            Stalling.go_on.wait(30)


def test_a_pull_that_is_killed_goes_on(tmp_path: Path) -> None:
    made = write(tmp_path, "zarr", "none")
    Stalling.left = 1000
    with over_http(made, Stalling, []) as served:
        process = subprocess.Popen([sys.executable, "-c", SLOW, served.url, str(tmp_path / "back")], cwd=ROOT)
        assert Stalling.stalled.wait(60)
        time.sleep(0.2)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        Stalling.go_on.set()
    assert not (tmp_path / "back").exists()
    with with_ranges(made) as served:
        runs.pull_cache(served.url, tmp_path / "back")
        assert served.requests
        sent = {request.path: request.sent for request in served.requests if request.path != "/manifest.json"}
    assert "/data.zarr/logits/c/0/0/0" not in sent
    assert files(tmp_path / "back") == files(made)


# ------------------------------------------------------------------ another cache there


@pytest.mark.parametrize("kind", [Killed, ConnectionResetError])
def test_a_cache_that_is_exchanged_is_never_a_mixture(tmp_path: Path, flaky: str, kind: type[BaseException]) -> None:
    old, new = write(tmp_path, "zarr", "none"), other(tmp_path)
    assert {name: len(data) for name, data in files(old).items() if name != "manifest.json"} == {
        name: len(data) for name, data in files(new).items() if name != "manifest.json"
    }
    runs.push_cache(old, flaky)
    refusal(lambda: runs.push_cache(new, flaky), "found another one (root ", "--replace")
    assert there(flaky) == files(old)
    Flaky.reset()
    runs.push_cache(new, flaky, exchange=True)
    assert there(flaky) == files(new)
    for number, left in enumerate(cuts(sum(Flaky.written.values()))):
        url = f"{flaky}-{number}/cache"
        Flaky.reset()
        runs.push_cache(old, url)
        Flaky.reset(left + len(files(old)["manifest.json"]), kind)  # that is read first
        with pytest.raises(Killed if kind is Killed else NotNowError):
            runs.push_cache(new, url, exchange=True)
        Flaky.reset()
        if there(url).get("manifest.json") in (files(old)["manifest.json"], files(new)["manifest.json"]):
            assert {**there(url), BEGUN_PATH: b"", PROGRESS_PATH: b""} in [
                {**files(each), BEGUN_PATH: b"", PROGRESS_PATH: b""} for each in (old, new)
            ], left
        else:
            refusal(functools.partial(cache.open, url), "manifest.json")
            refusal(functools.partial(runs.push_cache, old, url), "--replace")
        runs.push_cache(new, url, exchange=True)
        assert there(url) == files(new), left


def test_what_only_the_former_cache_had_goes(tmp_path: Path, flaky: str) -> None:
    old, new = write(tmp_path / "old", "zarr", "none"), write(tmp_path / "new", "hdf5", "gzip")
    runs.push_cache(old, flaky)
    put(flaky, "mine.txt", b"not of any cache")
    Flaky.reset(5000, Killed)
    with pytest.raises(Killed):
        runs.push_cache(new, flaky, exchange=True)
    Flaky.reset()
    runs.push_cache(new, flaky, exchange=True)
    assert there(flaky) == {**files(new), "mine.txt": b"not of any cache"}


def test_a_record_that_somebody_made_deletes_nothing_else(tmp_path: Path, memory: str) -> None:
    root = "1" * 64
    names = ["../neighbour", "data.zarr/../../neighbour", "/neighbour", "mine.txt", "card.md"]
    put(memory, BEGUN_PATH, encode_json({"root": root, "finished": names, "stale": names}))
    put(memory, "mine.txt", b"1")
    put(memory.replace("/cache", ""), "neighbour", b"2")
    made = write(tmp_path, "zarr", "none")
    runs.push_cache(made, memory, exchange=True)
    assert there(memory) == {**files(made), "mine.txt": b"1"}
    assert there(memory.replace("/cache", ""))["neighbour"] == b"2"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"root": 3, "finished": 4}', b'{"finished": {"a": 1}}', b"[" * 99999]
)
def test_a_record_that_is_none_is_nothing(data: bytes) -> None:
    assert parse_record(data).finished == parse_record(data).stale == frozenset()
    assert parse_record(PushRecord("ab", frozenset({"card.md"})).to_bytes()) == PushRecord("ab", frozenset({"card.md"}))


def test_another_push_to_the_same_place_is_told_of(tmp_path: Path, flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = write(tmp_path, "zarr", "none"), other(tmp_path)
    finish = FlakyFile.close

    def begin_theirs(self: FlakyFile) -> None:
        finish(self)
        if self.path.endswith("c/0/1/0"):
            put(flaky, BEGUN_PATH, PushRecord(cache.open(theirs).manifest.root).to_bytes())

    monkeypatch.setattr(FlakyFile, "close", begin_theirs)
    refusal(lambda: runs.push_cache(mine, flaky), "expected no other push, found one of root", kind=NotNowError)
    assert "manifest.json" not in there(flaky)

    (there_before := there(flaky)).pop(BEGUN_PATH)
    runs.push_cache(theirs, flaky, exchange=True)
    assert there(flaky) == files(theirs)
    assert there_before


# ------------------------------------------------------------------ what is refused


def test_a_pin_and_an_expectation_refuse_another_cache(tmp_path: Path, memory: str) -> None:
    made = write(tmp_path, "zarr", "none")
    root = read_manifest(LocalFolder(made), "").root
    wrong = f"{int(root[0], 16) ^ 1:x}{root[1:]}"
    for pin in (wrong[:12], wrong):
        refusal(lambda: runs.push_cache(made, f"{memory}#{pin}"), f"root: expected {pin}, found {root[:12]}")  # noqa: B023
    refusal(lambda: runs.push_cache(made, memory, expect={"teacher.name": "small"}), "teacher.name expected small")
    assert there(memory) == {}
    runs.push_cache(made, f"{memory}#{root[:12]}", expect={"teacher.name": "big", "rows": "70"})
    for pin in (wrong[:12], wrong):
        refusal(lambda: runs.pull_cache(f"{memory}#{pin}", tmp_path / "x"), f"root: expected {pin}")  # noqa: B023
    refusal(lambda: runs.pull_cache(memory, tmp_path / "x", expect={"rows": "71"}), "rows expected 71, found 70")
    refusal(lambda: runs.pull_cache(memory, tmp_path / "x", expect={"no.such": "1"}), "no.such expected 1, found None")
    assert not any("x" in path.name for path in tmp_path.iterdir())
    runs.pull_cache(
        f"{memory}#{root.upper()}",
        tmp_path / "x",
        expect={"rows": "70", "dataset.classes": '["0", "1"]'} and {"rows": "70"},
    )


@pytest.mark.parametrize("pin", ["", "1234", "12345678901", "x" * 12, "a" * 65])
def test_a_pin_of_another_form_is_refused(tmp_path: Path, memory: str, pin: str) -> None:
    refusal(lambda: runs.pull_cache(f"{memory}#{pin}", tmp_path / "x"), "12 or more digits", repr(pin))


def test_addresses_that_cannot_be_pushed_to(tmp_path: Path) -> None:
    made = write(tmp_path, "zarr", "none")
    for protocol in ("http", "https", "dvc"):
        url = f"{protocol}://example.org/cache"
        refusal(lambda: runs.push_cache(made, url), f"found {protocol}://, which is only read")  # noqa: B023
    refusal(lambda: runs.push_cache(made, str(tmp_path / "there")), "expected a URL, such as")
    refusal(lambda: runs.push_cache("memory://x", "memory://y"), "expected a cache's folder, found a URL")
    refusal(lambda: runs.pull_cache(str(made), tmp_path / "x"), "expected a URL, such as")


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/x", "s3fs", "s3"),
        ("sftp://127.0.0.1:1/x", "sshfs", "ssh"),
        ("webdav://127.0.0.1:1/x", "webdav4", "webdav"),
        ("hf://datasets/a/b/x", "huggingface_hub", "hf"),
    ],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    for name in (package, f"{package}.fsspec"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"].__dict__["_registry"], url.partition(":")[0], raising=False)
    made = write(tmp_path, "zarr", "none")
    fix = f"pip install 'teachercache[{extra}]'"
    refusal(lambda: runs.push_cache(made, url), fix)
    refusal(lambda: runs.pull_cache(url, tmp_path / "x"), fix)
    refusal(lambda: cache.open(url), fix)


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path, memory: str) -> None:
    made, another = write(tmp_path, "zarr", "none"), other(tmp_path)
    runs.push_cache(made, memory)
    before = files(another)
    refusal(lambda: runs.pull_cache(memory, another), "expected a new folder, found something that is there")
    assert files(another) == before
    runs.pull_cache(memory, tmp_path / "back")
    name = "data.zarr/logits/c/0/0/0"
    (tmp_path / "back" / name).write_bytes(flipped((made / name).read_bytes(), 1))
    refusal(lambda: runs.pull_cache(memory, tmp_path / "back"), name, "delete it, and pull again")


@forms
def test_a_tampered_file_is_refused_and_what_arrived_is_kept(
    tmp_path: Path, flaky: str, store: Format, codec: Codec
) -> None:
    made = write(tmp_path, store, codec)
    runs.push_cache(made, flaky)
    sound = files(made)
    # As they are fetched: each that comes before is here already.
    for name in sorted(sound.keys() - {"manifest.json"}, key=lambda name: (name != "chunks.bin", name)):
        put(flaky, name, flipped(sound[name], len(sound[name]) // 2))
        action = functools.partial(runs.pull_cache, flaky, tmp_path / "back")
        refusal(action, f"file {name}", "another SHA-256", "what has arrived is kept", kind=NotNowError)
        assert not (tmp_path / "back").exists()
        put(flaky, name, sound[name])
    Flaky.reset()
    runs.pull_cache(flaky, tmp_path / "back")
    assert files(tmp_path / "back") == sound
    assert "chunks.bin" not in Flaky.read  # it came before those that were refused


def test_sizes_and_files_that_are_wrong_there_are_refused(tmp_path: Path, memory: str) -> None:
    made = write(tmp_path, "zarr", "none")
    runs.push_cache(made, memory)
    for name, data in files(made).items():
        for wrong in (data[:-1], data + b"x", None):
            put(memory, name, wrong)
            refusal(lambda: runs.pull_cache(memory, tmp_path / "back"), name)
            assert not (tmp_path / "back").exists()
        put(memory, name, data)
    runs.pull_cache(memory, tmp_path / "back")


def test_a_manifest_whose_names_lead_away_is_refused(tmp_path: Path, memory: str) -> None:
    made = write(tmp_path, "zarr", "none")
    runs.push_cache(made, memory)
    entries = json.loads((made / "manifest.json").read_bytes())
    del entries["root"]
    for name in ("../away", "/tmp/away", "data.zarr/../../away"):
        hostile = {**entries, "files": {**entries["files"], name: entries["files"]["card.md"]}}
        put(memory, "manifest.json", encode_json({**hostile, "root": hash_json(hostile)}))
        refusal(lambda: runs.pull_cache(memory, tmp_path / "back"), "expected a valid manifest")
    put(memory, "manifest.json", b" " * (9 << 20))
    refusal(lambda: runs.pull_cache(memory, tmp_path / "back"), "a manifest of at most 8 MB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump", "work"] or not (tmp_path / "back").exists()


def test_a_cache_that_is_exchanged_while_it_is_fetched_is_told_of(tmp_path: Path, flaky: str) -> None:
    old, new = write(tmp_path, "zarr", "none"), other(tmp_path)
    runs.push_cache(old, flaky)

    class ExchangeError(ConnectionResetError):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            Flaky.reset()
            for name, data in files(new).items():
                put(flaky, name, data)

    Flaky.reset(len((old / "manifest.json").read_bytes()) + 2500, ExchangeError)
    roots = [read_manifest(LocalFolder(each), "").root[:12] for each in (old, new)]
    refusal(
        lambda: runs.pull_cache(flaky, tmp_path / "back"),
        f"expected root {roots[0]}, found another one by now (root {roots[1]})",
        "pull again",
    )
    runs.pull_cache(flaky, tmp_path / "back")
    assert files(tmp_path / "back") == files(new)
    assert not (tmp_path / ".back.work").exists()


class Endless(Plain):
    """Answers for chunks of rows with bytes that never end, in the size that was asked for or in none."""

    sent: ClassVar[int] = 0

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(206 if self.headers.get("Range") else 200)
        if "/c/" not in self.path:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        while "/c/" in self.path:
            try:
                self.wfile.write(bytes(1 << 16))
            except OSError:
                return
            Endless.sent += 1 << 16


def test_bodies_that_never_end_are_cut_off(tmp_path: Path) -> None:
    made = write(tmp_path, "zarr", "none")
    with over_http(made, Endless, []) as served:
        runs.pull_cache(served.url, tmp_path / "back")  # the bytes that are listed are the sealed ones
    assert files(tmp_path / "back") == files(made)
    assert Endless.sent < 10 * (8 << 20)  # what a socket takes before it is closed


class Counting(Plain):
    """Answers with an error, and counts how often."""

    status: ClassVar[int] = 500
    count: ClassVar[int] = 0

    def do_HEAD(self) -> None:  # noqa: N802 - http.server's name
        super().do_HEAD()

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        if "/c/0/1" not in self.path:
            super().do_GET()
            return
        Counting.count += 1
        self.send_error(Counting.status)


@pytest.mark.parametrize(("status", "times"), [(500, 5), (503, 5), (403, 1), (404, 1)])
def test_servers_in_trouble_are_tried_again_and_refusals_are_not(tmp_path: Path, status: int, times: int) -> None:
    made = write(tmp_path, "zarr", "none")
    Counting.status, Counting.count = status, 0
    with over_http(made, Counting, []) as served:
        told = "found nothing" if status == 404 else f"{status}"
        refusal(lambda: runs.pull_cache(served.url, tmp_path / "back"), "c/0/1/0", told, "is kept", kind=NotNowError)
    assert Counting.count == times
    kept = files(tmp_path / ".back.work/work")
    assert any(name.endswith("c/0/0/0") for name in kept)
    with with_ranges(made) as served:
        runs.pull_cache(served.url, tmp_path / "back")
        assert "/data.zarr/logits/c/0/0/0" not in {request.path for request in served.requests}
    assert files(tmp_path / "back") == files(made)


def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(remote_errors, "PAUSES", (0.5, 1.0, 2.0, 4.0))
    monkeypatch.setattr(time, "sleep", slept.append)
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        remote_errors.persist(fail)
    assert (slept, len(calls)) == ([0.5, 1.0, 2.0, 4.0], 5)
    with pytest.raises(PermissionError):
        remote_errors.persist(lambda: (_ for _ in ()).throw(PermissionError()))
    assert len(slept) == 4


def test_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    with deaf() as url:
        refusal(lambda: runs.pull_cache(url, tmp_path / "back"), "expected to read it", kind=NotNowError)


def test_a_password_is_not_shown() -> None:
    refusal(lambda: cache.open("ftp://me:secret@127.0.0.1:1/x"), "ftp://me:***@127.0.0.1:1/x")


# ------------------------------------------------------------------ the digests of a stream


@forms
@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
def test_a_stream_is_checked_in_pieces_of_any_size(tmp_path: Path, store: Format, codec: Codec, step: int) -> None:
    made = write(tmp_path, store, codec)
    manifest = read_manifest(LocalFolder(made), "")
    records = read_table(LocalFolder(made), manifest, "").records
    for name in manifest.files:
        data = (made / name).read_bytes()
        check = FileCheck(manifest, records, name)
        for start in range(0, len(data), step):
            check.take(data[start : start + step])
            if start % 3 == 0:  # the part of a chunk that has come is taken once more
                at = check.at
                back = check.go_back()
                assert back <= at
                check.take(data[back:at])
        assert check.at == len(data)
        with pytest.raises(ChangedError, match="more than"):
            check.take(b"x")


@pytest.mark.parametrize("store", PARTS)
def test_every_byte_of_a_stream_counts(tmp_path: Path, store: Format) -> None:
    made = write(tmp_path, store, "none")
    manifest = read_manifest(LocalFolder(made), "")
    records = read_table(LocalFolder(made), manifest, "").records
    for name in sorted(manifest.files):
        data = (made / name).read_bytes()
        for at in range(0, len(data), max(1, len(data) // 40)):
            with pytest.raises(ChangedError, match=name):
                FileCheck(manifest, records, name).take(flipped(data, at))
        mine = records[records["file"] == sorted(manifest.files).index(name)]
        assert any(True for _ in iterate_gaps(mine, len(data)))


# ------------------------------------------------------------------ the commands


def test_the_commands(run: Run, capsys: Capture, copy_of: Path) -> None:
    dump, url = "data/cache/big-logits", f"file://{copy_of}/shared/big-logits"
    assert run(copy_of, "cache", "push", dump, url) == 0
    told = capsys.readouterr().out
    assert "5 files" in told
    pinned = told.splitlines()[1].partition("cache pull ")[2]
    assert pinned.startswith(f"{url}#")
    (copy_of / "elsewhere").mkdir()
    assert run(copy_of / "elsewhere", "cache", "pull", pinned, "--expect", "teacher.name=big") == 0
    assert files(copy_of / "elsewhere/big-logits") == files(copy_of / dump)
    message = refused(run, capsys, copy_of, "cache", "pull", url, "x", "--expect", "teacher.name=small")
    assert "teacher.name expected small, found big" in message
    assert "--expect: expected KEY=VALUE" in refused(run, capsys, copy_of, "cache", "pull", url, "x", "--expect", "a")
    assert "which is only read" in refused(run, capsys, copy_of, "cache", "push", dump, "https://example.org/x")
    assert run(copy_of, "cache", "push", dump, url, "--check") == 0
    assert "0 files" in capsys.readouterr().out
    assert run(copy_of, "cache", "convert", dump, "h", "--format", "hdf5") == 0
    assert "--replace" in refused(run, capsys, copy_of, "cache", "push", "h", url)
    assert run(copy_of, "cache", "push", "h", url, "--replace") == 0
    assert files(copy_of / "shared/big-logits") == files(copy_of / "h")
