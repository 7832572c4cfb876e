"""`teachercache`, `dvc` and `python` for the tests: forks of one warm process, since a fresh one imports for seconds.

`python -m tests.warm SOCKET` is the warm process: it imports, changes nothing, and answers each request with a fork that
runs one command in the asker's folder and environment, on the asker's streams. It ends with its standard input.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pipeline
import stages

ROOT = Path(__file__).resolve().parent.parent

# What stands on PATH in place of a program: it asks, hands its signals on, and ends as the fork ends.
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect({address!r})
request = {{"arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(asked, [b"."], [0, 1, 2])
asked.sendall(json.dumps(request).encode() + b"\\n")
fork = int.from_bytes(asked.recv(4), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(fork, number))
code = asked.recv(1)
if not code:
    os.kill(os.getpid(), signal.SIGKILL)  # as the fork was
os._exit(code[0])
"""


def teachercache() -> None:
    from stages.main import main

    main()


def dvc() -> int:
    from dvc.cli import main

    return int(main())


def python() -> None:
    """`python -c CODE ...` and `python -m MODULE ...`, with `-W error` before it or not."""
    if sys.argv[1] == "-W":
        warnings.simplefilter(sys.argv[2])  # type: ignore[arg-type]
        del sys.argv[1:3]
    _, flag, code, *arguments = sys.argv
    sys.path[0] = ""
    sys.argv = [flag, *arguments]
    if flag == "-m":
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    else:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


PROGRAMS: dict[str, Callable[[], int | None]] = {"teachercache": teachercache, "dvc": dvc, "python": python}

# What the programs import inside of their functions; without it all would work, and each fork would import it.
LATE = (
    "PIL.PngImagePlugin", "dvc.cachemgr", "dvc.cli.parser", "dvc.data_cloud", "dvc.repo.experiments.utils",
    "dvc.repo.index", "dvc.repo.metrics.show", "dvc.repo.reproduce", "dvc.scm", "dvc.stage.run", "dvc_http", "dvclive",
    "flufl.lock", "matplotlib.pyplot", "networkx", "rich.table", "scipy.stats", "sklearn.datasets", "zc.lockfile",
)  # fmt: skip


class Programs:
    """A folder with the programs, and the warm process that answers for them until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        address = folder / "socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(address)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.read(1), "the warm process did not start"
        for name in PROGRAMS:
            (folder / name).write_text(CLIENT.format(python=sys.executable, address=str(address)))
            (folder / name).chmod(0o755)

    def close(self) -> None:
        """End the warm process."""
        self._process.communicate()

    @property
    def path(self) -> str:
        """PATH with these programs first, then those of this environment."""
        return os.pathsep.join([str(self.folder), str(Path(sys.executable).parent), os.environ["PATH"]])


def import_all() -> None:
    """Import all of ours, and what it imports late."""
    for package in (pipeline, stages):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in LATE:
        with suppress(ModuleNotFoundError):  # in another version
            importlib.import_module(name)


def serve(address: str) -> None:
    """Answer until standard input is closed."""
    import_all()
    assert threading.active_count() == 1, "a fork has no other thread than the one that forks"
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        os.write(1, b".")
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                answer(connection)
            connection.close()
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def answer(connection: socket.socket) -> None:
    """Run the command that is asked for, in a fork; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may have them ignore it
        connection.sendall(os.getpid().to_bytes(4, "big"))
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile() as lines:
            request = json.loads(lines.readline())
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        code = run(**request)
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 - as an interpreter does it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


def run(arguments: list[str], folder: str, environment: Mapping[str, str]) -> int:
    """The program's exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)  # as in a console script
    main = sys.modules["__main__"]
    main.__spec__ = main.__package__ = None  # likewise
    try:
        return PROGRAMS[Path(arguments[0]).name]() or 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0


if __name__ == "__main__":
    serve(sys.argv[1])
