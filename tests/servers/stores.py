"""Real servers on this machine's loopback, each started where its package is installed, behind a line that can be cut."""

from __future__ import annotations

import asyncio
import functools
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PIECE = 512  # bytes that a line takes at a time, so that a cut falls where it should


class Line:
    """A TCP line to a server; it is cut after so many bytes, and refuses new calls until it is mended."""

    def __init__(self, server: int) -> None:
        self.server, self.left, self.passed = server, float("inf"), 0
        self._lock, self._open = threading.Lock(), set[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self, left: float = float("inf")) -> None:
        """Let as many bytes through, and count from 0."""
        with self._lock:
            self.left, self.passed = left, 0

    def close(self) -> None:
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.left <= 0:
                    near.close()
                else:
                    threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        """Pass on what comes from either end, until both have ended or the line is cut."""
        with near, socket.create_connection(("127.0.0.1", self.server)) as far:
            self._open |= {near, far}
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()
            self._open -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                with self._lock:
                    part = data[: int(min(self.left, len(data)))]
                    self.left -= len(part)
                    self.passed += len(part)
                sink.sendall(part)
                if len(part) < len(data):
                    self._cut()
                    return
            sink.shutdown(socket.SHUT_WR)

    def _cut(self) -> None:
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Store:
    """A server, as a client and as its owner sees it.

    Attributes:
        url: of an empty folder there; over `line`.
        options: for the client's file system.
        read, write, list_files: behind the client's back, by path below that folder.
        http: the folder's address over plain HTTP, where it has one.
    """

    url: str
    options: dict[str, str]
    line: Line
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], object]
    list_files: Callable[[str], list[str]]
    http: str | None = None


def on_disk(folder: Path) -> dict[str, Any]:
    """How the owner of a server of files sees them."""

    def write(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)

    def list_files(below: str) -> list[str]:
        root = folder / below
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    return {"read": lambda name: (folder / name).read_bytes(), "write": write, "list_files": list_files}


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serve_s3(folder: Path) -> Iterator[Store]:
    """Moto's S3."""
    client = pytest.importorskip("s3fs", reason="s3:// needs s3fs (teachercache[s3])")
    server_room = pytest.importorskip("moto.server", reason="no S3 server: moto is not installed")
    import boto3  # moto's own

    server = server_room.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = int(server.get_host_and_port()[1])
    line = Line(port)
    owner = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        region_name="us-east-1",
    )
    owner.create_bucket(Bucket="bucket")

    def list_files(below: str) -> list[str]:
        found = owner.list_objects_v2(Bucket="bucket", Prefix=f"shared/{below}/").get("Contents", [])
        return sorted(each["Key"].removeprefix(f"shared/{below}/") for each in found)

    patience, client.S3FileSystem.retries = client.S3FileSystem.retries, 1  # its pauses are long, and ours come on top
    try:
        yield Store(
            "s3://bucket/shared",
            {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{line.port}"},
            line,
            lambda name: bytes(owner.get_object(Bucket="bucket", Key=f"shared/{name}")["Body"].read()),
            lambda name, data: owner.put_object(Bucket="bucket", Key=f"shared/{name}", Body=data),
            list_files,
        )
    finally:
        client.S3FileSystem.retries = patience
        owner.close()
        line.close()
        server.stop()


@contextmanager
def serve_webdav(folder: Path) -> Iterator[Store]:
    """WsgiDAV, which also answers plain HTTP, with ranges."""
    pytest.importorskip("webdav4", reason="webdav:// needs webdav4 (teachercache[webdav])")
    application = pytest.importorskip("wsgidav.wsgidav_app", reason="no WebDAV server: wsgidav is not installed")
    wsgi = pytest.importorskip("cheroot.wsgi", reason="wsgidav is served by cheroot, which is not installed")
    (folder / "shared").mkdir(parents=True)
    users = {"*": {"me": {"password": "secret"}}, "/open": True}
    made = application.WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder), "/open": {"root": str(folder), "readonly": True}},
            "simple_dc": {"user_mapping": users},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    server = wsgi.Server(("127.0.0.1", find_port()), made)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    line = Line(server.bind_addr[1])
    try:
        yield Store(
            f"webdav://127.0.0.1:{line.port}/shared",
            {"user": "me", "password": "secret"},
            line,
            **on_disk(folder / "shared"),
            http=f"http://127.0.0.1:{line.port}/open/shared",
        )
    finally:
        line.close()
        server.stop()
        thread.join()


def make_keys(folder: Path, port: int) -> dict[str, str]:
    """Key pairs of a server and of a client, and what the client knows of the server."""
    asyncssh = pytest.importorskip("asyncssh", reason="no SSH here: asyncssh is not installed")
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(folder / name))
        key.write_public_key(str(folder / f"{name}.pub"))
        (folder / name).chmod(0o600)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    return {"known_hosts": str(folder / "known"), "client_keys": str(folder / "client")}


@contextmanager
def serve_openssh(folder: Path) -> Iterator[Store]:
    """OpenSSH's sshd, as this account, with its own sftp."""
    pytest.importorskip("sshfs", reason="sftp:// needs sshfs (teachercache[ssh])")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
    if sshd is None:
        pytest.skip("no SSH server: no sshd here")
    (folder / "shared").mkdir(parents=True)
    folder.chmod(0o755)
    port = find_port()
    line = Line(port)
    options = make_keys(folder, line.port)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nStrictModes no\nUsePAM yes\n"
        f"AuthorizedKeysFile {folder}/client.pub\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            if not is_listening(port, process):
                pytest.skip(f"no SSH server: sshd does not start: {(folder / 'log').read_text()[-200:]}")
            url = f"sftp://{getpass.getuser()}@127.0.0.1:{line.port}{folder}/shared"
            yield Store(url, options, line, **on_disk(folder / "shared"))
        finally:
            line.close()
            process.terminate()


@contextmanager
def serve_asyncssh(folder: Path) -> Iterator[Store]:
    """AsyncSSH's server: another sftp than OpenSSH's, and one that a package brings."""
    pytest.importorskip("sshfs", reason="sftp:// needs sshfs (teachercache[ssh])")
    asyncssh = pytest.importorskip("asyncssh", reason="no SSH server: asyncssh is not installed")
    (folder / "shared").mkdir(parents=True)
    port = find_port()
    line = Line(port)
    options = make_keys(folder, line.port)
    loop = asyncio.new_event_loop()
    listening = asyncssh.listen(
        "127.0.0.1", port, server_host_keys=[str(folder / "host")], authorized_client_keys=str(folder / "client.pub"),
        sftp_factory=functools.partial(asyncssh.SFTPServer, chroot=str(folder)),
    )  # fmt: skip
    server = loop.run_until_complete(listening)

    async def close() -> None:
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Store(f"ssh://me@127.0.0.1:{line.port}/shared", options, line, **on_disk(folder / "shared"))
    finally:
        line.close()
        asyncio.run_coroutine_threadsafe(close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def is_listening(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until somebody listens there; False: the process has ended, or does not come to it."""
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return False


STORES: dict[str, Callable[[Path], Any]] = {
    "S3 (moto)": serve_s3,
    "WebDAV (wsgidav)": serve_webdav,
    "sftp (OpenSSH)": serve_openssh,
    "sftp (AsyncSSH)": serve_asyncssh,
}
