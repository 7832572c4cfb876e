"""A fork of the warm process is to its user what a process is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import programs, shell, warm_python

TELL = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), os.environ["WORD"], sys.stdin.read()]))
print("to people", file=sys.stderr)
sys.exit(3)
"""


def test_it_gets_what_a_process_gets_and_gives_what_a_process_gives(tmp_path: Path) -> None:
    found = [
        subprocess.run(
            [python, "-c", TELL, "a b"], cwd=tmp_path, env={**os.environ, "WORD": "ü"}, input="given",
            capture_output=True, text=True, check=False,
        )
        for python in (sys.executable, programs().folder / "python")
    ]  # fmt: skip
    assert [(each.returncode, each.stdout, each.stderr) for each in found] == [
        (3, json.dumps([["-c", "a b"], str(tmp_path), "ü", "given"]) + "\n", "to people\n")
    ] * 2


def test_the_programs_are_those_of_this_environment(tmp_path: Path) -> None:
    for command in ("teachercache --version", "teachercache nothing", "dvc --version", "dvc nothing"):
        ours, theirs = (
            shell(tmp_path, f"{command}; echo $?", PATH=path)
            for path in (programs().path, f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        )
        assert ours == theirs


def test_an_error_is_told_and_a_kill_is_a_kill(tmp_path: Path) -> None:
    failed = warm_python(tmp_path, "-c", "1 / 0")
    assert failed.returncode == 1
    assert failed.stderr.endswith("ZeroDivisionError: division by zero\n")
    killed = warm_python(tmp_path, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert killed.returncode == -signal.SIGKILL
    assert warm_python(tmp_path, "-W", "error", "-c", "import warnings; warnings.warn('x')").returncode == 1


def test_nothing_is_left_to_the_next(tmp_path: Path) -> None:
    change = "import json, os, sys; json.own = 1; sys.path.insert(0, 'own'); os.environ['OWN'] = '1'; os.chdir('/')"
    look = "import json, os, sys; print(hasattr(json, 'own'), 'own' in sys.path, 'OWN' in os.environ, os.getcwd())"
    assert warm_python(tmp_path, "-c", change).returncode == 0
    assert warm_python(tmp_path, "-c", look).stdout == f"False False False {tmp_path}\n"
