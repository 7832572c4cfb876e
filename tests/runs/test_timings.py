"""How long a stage took, and its process before it began."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
