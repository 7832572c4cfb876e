"""The same cache over fsspec's protocols: what is fetched, and what is refused."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base.errors import InputError, NotNowError
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import CODECS, Codec, Format
from pipeline.cache.folder import RemoteFolder, locate_folder
from pipeline.cache.verify import Verification, verify_cache
from pipeline.cache.writer import write_cache
from tests.cache.test_cache import CLASSES, DESCRIPTION, ROWS
from tests.conftest import ROOT, shell
from tests.store_plans import cut_store

VIEWS, CHUNK_ROWS = 2, 16
BLOCKS = 5  # of a view: four of 16 rows, one of 6
FORMS: list[tuple[Format, Codec]] = [(store, codec) for store in CODECS for codec in CODECS[store]]
forms = pytest.mark.parametrize(("store", "codec"), FORMS)


def values() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(VIEWS, ROWS, CLASSES)).astype("<f4")


def write(folder: Path, store: Format, codec: Codec, array: NDArray[np.float32] | None = None) -> Path:
    array = values() if array is None else array

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        return {"logits": array[block.view, block.start : block.stop]}

    plan = cut_store({"logits": ArrayPlan((CLASSES,), "float32", codec)}, VIEWS, ROWS, CHUNK_ROWS)
    described = {**DESCRIPTION, "views": {**DESCRIPTION["views"], "count": VIEWS}}
    write_cache(folder / "dump", folder / "work", plan, compute, store=store, description=described)
    return folder / "dump"


@dataclass(frozen=True)
class Request:
    """One answer of a server: method, path, first and last byte asked for, bytes of the body."""

    method: str
    path: str
    asked: str | None
    sent: int


@dataclass
class Served:
    """A cache at a URL, whose files can be changed behind the reader's back."""

    url: str
    change: Callable[[str, bytes | None], None]
    read: Callable[[str], bytes]
    requests: list[Request] = field(default_factory=list)

    def flip(self, name: str, at: int) -> None:
        data = bytearray(self.read(name))
        data[at] ^= 1
        self.change(name, bytes(data))


class Plain(SimpleHTTPRequestHandler):
    """http.server's own handler: it knows no ranges."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
        """Silence."""


class Ranges(Plain):
    """Answers with the bytes that were asked for, and notes the request."""

    def __init__(self, *arguments: Any, requests: list[Request], **named: Any) -> None:
        self.requests = requests
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), self.headers.get("Range")
        if asked is None:
            part, status = data, 200
        else:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part, status = data[int(first) : int(last) + 1 if last else None], 206
        self.requests.append(Request("GET", self.path, asked, len(part)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if asked is not None:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)


@contextmanager
def over_http(
    folder: Path, handler: Callable[..., SimpleHTTPRequestHandler], requests: list[Request]
) -> Iterator[Served]:
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def change(name: str, data: bytes | None) -> None:
        if data is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data)

    try:
        yield Served(
            f"http://127.0.0.1:{server.server_port}", change, lambda name: (folder / name).read_bytes(), requests
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def in_memory(folder: Path) -> Iterator[Served]:
    memory, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def change(name: str, data: bytes | None) -> None:
        if data is None:
            memory.rm(f"{root}/{name}")
        else:
            memory.pipe(f"{root}/{name}", data)

    try:
        yield Served(f"memory:/{root}", change, lambda name: memory.cat_file(f"{root}/{name}"))
    finally:
        memory.rm(root, recursive=True)


Serve = Callable[[Path], Any]


def with_ranges(folder: Path) -> Any:
    requests: list[Request] = []
    return over_http(folder, functools.partial(Ranges, requests=requests), requests)


PLACES: dict[str, Serve] = {
    "memory": in_memory,
    "http without ranges": lambda folder: over_http(folder, Plain, []),
    "http with ranges": with_ranges,
}


@pytest.fixture(params=list(PLACES))
def serve(request: pytest.FixtureRequest) -> Serve:
    return PLACES[request.param]


def assert_one_line(error: InputError, *parts: str) -> None:
    line = str(error)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == [], line


def refusal(action: Callable[[], object], *parts: str) -> None:
    """The action raises an InputError of one line that holds every part."""
    with pytest.raises(InputError) as caught:
        action()
    assert_one_line(caught.value, *parts)


def verified(opened: cache.Cache) -> Verification:
    assert isinstance(opened.folder, RemoteFolder)
    return verify_cache(opened.folder, opened.manifest)


@forms
def test_the_same_values(tmp_path: Path, serve: Serve, store: Format, codec: Codec) -> None:
    with serve(write(tmp_path, store, codec)) as served:
        opened = cache.open(served.url, {"field.name": "logits", "rows": ROWS})
        ids, views = np.array([69, 0, 33, 33, 5, 16]), np.array([1, 0, 0, 1, 1, 0])
        assert np.array_equal(opened.rows(ids), values()[0][ids])
        assert np.array_equal(opened.rows(ids, views), values()[views, ids])
        assert opened.load().tobytes() == values().tobytes()
        assert verified(opened).is_whole


@forms
def test_a_slash_at_the_end_changes_nothing(tmp_path: Path, serve: Serve, store: Format, codec: Codec) -> None:
    with serve(write(tmp_path, store, codec)) as served:
        assert cache.open(served.url + "/").load().tobytes() == values().tobytes()


def bodies(served: Served) -> list[Request]:
    """The requests since the last call that were answered with bytes."""
    found = [request for request in served.requests if request.method == "GET"]
    served.requests.clear()
    return found


@forms
def test_only_needed_blocks_are_fetched(tmp_path: Path, store: Format, codec: Codec) -> None:
    with with_ranges(write(tmp_path, store, codec)) as served:
        opened = cache.open(served.url)
        assert {request.path for request in bodies(served)} == {"/manifest.json", "/chunks.bin"}
        find = opened.table.arrays["logits"].find
        wanted = [find(0), find(4), find(BLOCKS + 2)]

        picked = opened.rows(np.array([3, 69, 40, 1, 35]), np.array([0, 0, 1, 0, 1]))
        assert np.array_equal(picked, values()[[0, 0, 1, 0, 1], [3, 69, 40, 1, 35]])
        expected = {(f"/{b.file}", f"bytes={b.offset}-{b.offset + b.bytes - 1}", b.bytes) for b in wanted}
        found = bodies(served)
        assert {(request.path, request.asked, request.sent) for request in found} == expected
        assert len(found) == 3

        opened.rows(np.array([70 - 1, 0, 15]))  # of blocks that are held
        assert bodies(served) == []
        opened.rows(np.array([20]))
        assert [request.sent for request in bodies(served)] == [find(1).bytes]


@forms
def test_a_changed_block_is_refused_when_it_arrives(tmp_path: Path, serve: Serve, store: Format, codec: Codec) -> None:
    with serve(write(tmp_path, store, codec)) as served:
        opened = cache.open(served.url)
        info = opened.table.arrays["logits"].find(2)
        served.flip(info.file, info.offset + info.bytes // 2)
        opened = cache.open(served.url, fix="fetch it again")
        assert np.array_equal(opened.rows(np.array([0, 69])), values()[0][[0, 69]])
        named = (
            f"file {info.file}, bytes {info.offset} to {info.offset + info.bytes}: expected the chunk that was sealed"
        )
        refusal(lambda: opened.rows(np.array([0, 35])), named, served.url, "fetch it again")
        refusal(lambda: opened.rows(np.array([35])), named)  # it is not taken for fetched
        refusal(opened.load, named)
        (damage,) = verified(opened).damage
        assert (damage.file, [block.index for _, block in damage.blocks]) == (info.file, [2])


@forms
def test_a_block_that_is_gone_is_refused(tmp_path: Path, serve: Serve, store: Format, codec: Codec) -> None:
    with serve(write(tmp_path, store, codec)) as served:
        opened = cache.open(served.url)
        info = opened.table.arrays["logits"].find(2)
        served.change(info.file, None)
        refusal(lambda: opened.rows(np.array([35])), info.file, "expected a file of a cache, found nothing")


@forms
def test_a_block_that_was_cut_is_refused(tmp_path: Path, serve: Serve, store: Format, codec: Codec) -> None:
    with serve(write(tmp_path, store, codec)) as served:
        opened = cache.open(served.url)
        info = opened.table.arrays["logits"].find(2)
        served.change(info.file, served.read(info.file)[: info.offset + info.bytes - 1])
        refusal(lambda: opened.rows(np.array([35])), info.file, "expected the chunk that was sealed")


@forms
def test_missing_files_and_wrong_sizes_are_refused_at_open(
    tmp_path: Path, serve: Serve, store: Format, codec: Codec
) -> None:
    folder = write(tmp_path, store, codec)
    sizes = {name: info["bytes"] for name, info in json.loads((folder / "manifest.json").read_bytes())["files"].items()}
    assert len(sizes) > 1
    with serve(folder) as served:
        for name, size in sizes.items():
            data = served.read(name)
            served.change(name, None)
            refusal(lambda: cache.open(served.url), "expected a file of a cache, found nothing")
            served.change(name, data + b"\0")
            refusal(lambda: cache.open(served.url), f"file {name}: expected {size} bytes, found {size + 1}")
            served.change(name, data)
        cache.open(served.url)
        served.flip("manifest.json", 40)
        refusal(lambda: cache.open(served.url), "manifest.json")
        served.change("manifest.json", None)
        refusal(lambda: cache.open(served.url), "manifest.json: expected a file of a cache, found nothing")


def test_another_cache_than_expected_is_refused(tmp_path: Path, serve: Serve) -> None:
    with serve(write(tmp_path, "zarr", "none")) as served:
        refusal(lambda: cache.open(served.url, {"teacher.name": "small"}), "teacher.name expected small, found big")


@contextmanager
def deaf() -> Iterator[str]:
    """The address of a port that refuses connections: it is bound and never listened to."""
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{silent.getsockname()[1]}/dump"


def test_addresses_that_lead_nowhere(tmp_path: Path) -> None:
    refusal(
        lambda: cache.open("nonsense://bucket/dump"), "nonsense://bucket/dump", "a URL that fsspec reads", "nonsense"
    )
    refusal(lambda: cache.open("memory://nothing/here"), "manifest.json: expected a file of a cache, found nothing")
    with deaf() as url:
        refusal(lambda: cache.open(url), f"{url}: manifest.json")
    with over_http(tmp_path, Plain, []) as served:
        refusal(lambda: cache.open(f"{served.url}/away"), "/away: manifest.json", "found nothing")


def test_a_refused_connection_is_told_from_a_missing_file() -> None:
    with deaf() as url:
        refusal(lambda: cache.open(url), "manifest.json: expected to read it", "check the address")
        with pytest.raises(NotNowError):  # what has been fetched before is kept
            cache.open(url)
    with pytest.raises(InputError) as caught:
        cache.open("memory://nothing/here")
    assert not isinstance(caught.value, NotNowError)


class Broken(Plain):
    """A server with trouble of its own."""

    def do_GET(self) -> None:
        self.send_error(500)

    def do_HEAD(self) -> None:
        self.send_error(500)


def test_a_server_in_trouble(tmp_path: Path) -> None:
    with over_http(tmp_path, Broken, []) as served:
        refusal(lambda: cache.open(served.url), f"{served.url}: manifest.json")


def test_a_server_in_trouble_is_told_from_a_missing_file(tmp_path: Path) -> None:
    with over_http(tmp_path, Broken, []) as served:
        refusal(lambda: cache.open(served.url), "manifest.json: expected to read it", "500", "check the address")


def test_options_that_no_file_system_takes_are_refused() -> None:
    refusal(lambda: cache.open("memory://dump", storage_options={"url": "elsewhere"}), "memory://dump")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository that holds the caches in its remote alone."""
    base = tmp_path_factory.mktemp("dvc")
    folder = base / "repository"
    for store, codec in FORMS:
        write(folder / "data/cache" / f"{store}-{codec}", store, codec)
        for lock in (folder / "data/cache" / f"{store}-{codec}").glob("*.lock"):
            lock.unlink()
    shell(folder, "git init -q && git config user.name t && git config user.email t@t && dvc init -q")
    shell(folder, f"dvc config core.analytics false && dvc remote add -q -d shared {base / 'remote'}")
    shell(folder, "dvc add -q data/cache && dvc push -q && git add -A && git commit -qm made")
    shell(folder, "rm -r data/cache .dvc/cache")
    return folder


@pytest.mark.dvc
@forms
def test_a_cache_in_a_dvc_remote(repository: Path, store: Format, codec: Codec) -> None:
    url = f"dvc://data/cache/{store}-{codec}/dump"
    opened = cache.open(url, {"teacher.name": "big"}, storage_options={"repo": str(repository)})
    ids = np.array([69, 0, 33, 33, 5])
    assert np.array_equal(opened.rows(ids, 1), values()[1][ids])
    assert opened.load().tobytes() == values().tobytes()
    assert verified(opened).is_whole
    assert not (repository / "data/cache").exists()  # nothing was pulled


@pytest.mark.dvc
def test_a_changed_block_in_a_dvc_remote_is_refused(repository: Path, tmp_path: Path) -> None:
    shell(tmp_path, f"git clone -q {repository} clone && cp -r {repository.parent / 'remote'} remote")
    shell(tmp_path / "clone", f"dvc remote modify --local shared url {tmp_path / 'remote'}")
    opened = cache.open("dvc://data/cache/zarr-none/dump", storage_options={"repo": str(tmp_path / "clone")})
    info = opened.table.arrays["logits"].find(2)
    digest = hashlib.md5(opened.folder.read_range(info.file, 0, 1 << 20, "").tobytes()).hexdigest()
    stored = tmp_path / "remote/files/md5" / digest[:2] / digest[2:]
    stored.chmod(0o644)
    stored.write_bytes(bytes([stored.read_bytes()[0] ^ 1]) + stored.read_bytes()[1:])
    assert np.array_equal(opened.rows(np.array([0])), values()[0][[0]])
    refusal(lambda: opened.rows(np.array([35])), f"file {info.file}, bytes 0 to {info.bytes}: expected the chunk")


@pytest.mark.dvc
def test_dvc_addresses_that_lead_nowhere(repository: Path, tmp_path: Path) -> None:
    for url, options in (
        ("dvc://data/cache/none", {"repo": str(repository)}),
        ("dvc://data/cache/zarr-none/dump", {"repo": str(repository), "rev": "none"}),
        ("dvc://data/cache/zarr-none/dump", {"repo": str(tmp_path / "none")}),
    ):
        refusal(functools.partial(cache.open, url, storage_options=options), url)


def test_reading_a_url_loads_no_dvc_and_no_torch(tmp_path: Path) -> None:
    write(tmp_path, "zarr", "none")
    code = f"""
import sys, fsspec, pipeline.cache
fsspec.filesystem("memory").put({str(tmp_path / "dump")!r}, "/dump", recursive=True)
assert pipeline.cache.open("memory://dump").rows([1, 2]).shape == (2, {CLASSES})
print([name for name in ("dvc", "torch", "zarr", "aiohttp") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Pieces(Plain):
    """A server that does not say how much is to come, and sends a thousand bytes at a time."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(200 if Path(self.translate_path(self.path)).is_file() else 404)
        self.send_header("Content-Length", "0")  # as it does for any page that it makes up
        self.end_headers()

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(data), 1000):
            piece = data[start : start + 1000]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def test_a_manifest_may_come_in_pieces(tmp_path: Path) -> None:
    folder = write(tmp_path, "zarr", "none")
    with over_http(folder, Pieces, []) as served:
        remote = locate_folder(served.url)
        assert isinstance(remote, RemoteFolder)
        assert remote.read_manifest_bytes("") == (folder / "manifest.json").read_bytes()
        assert len(remote.read_manifest_bytes("")) > 3000


class Cutting(Plain):
    """A server that ends in the middle of every chunk of rows."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if "/c/" in self.path else data)


def test_a_server_that_breaks_off_is_told_of_as_damage(tmp_path: Path) -> None:
    with over_http(write(tmp_path, "zarr", "none"), Cutting, []) as served:
        opened = cache.open(served.url)
        refusal(lambda: opened.rows(np.array([0])), "data.zarr/logits/c/0/0/0")
        found = verified(opened)
        assert {each.file for each in found.damage} == {name for name in opened.manifest.files if "/c/" in name}


def test_a_remote_cache_can_be_read_in_another_process(tmp_path: Path) -> None:
    with over_http(write(tmp_path, "zarr", "zstd"), Plain, []) as served:
        opened = cache.open(served.url)
        opened.rows(np.array([0]))
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).rows([3, 69]).tolist())"
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(opened), capture_output=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == values()[0][[3, 69]].tolist()
