"""How long a stage took, and its process before it began."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import time
time.sleep(1.0)
from pipeline.runs.stage_work import record_seconds
with record_seconds("x"):
    time.sleep(0.3)
"""


def test_start_up_is_counted_from_the_start_of_the_process(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, check=True)
    noted = json.loads((tmp_path / "data/timings/x/timings.json").read_text())
    assert noted.keys() == {"stage", "seconds", "startup"}
    assert 0.3 <= noted["seconds"] < 0.8
    assert noted["startup"] > 1.0


@pytest.mark.parametrize(
    ("run", "needs"),
    [
        ("datasets", set()),
        ("teachers", {"torch"}),
        ("dumps", {"torch"}),
        ("students", {"torch"}),
        ("report", {"torch", "matplotlib"}),
    ],
)
def test_a_stage_begins_with_no_library_that_only_some_studies_need(run: str, needs: set[str]) -> None:
    heavy = "torch torch._dynamo torchvision timm sklearn matplotlib pandas numba scipy.stats dvclive onnx"
    code = f"import sys, pipeline.runs.{run}; print(*(name for name in '{heavy}'.split() if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} <= needs
