"""Every part of docs/extending.md, added as the page says, one file and one line each, and used in one study."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT, write_study

PAGE = (ROOT / "docs/extending.md").read_text()
STUDY: dict[str, Any] = {
    "views": {"policy": "dim", "count": 2, "levels": 8},
    "datasets": {"pets": {"source": "mine", "root": "pets"}},
    "teachers": {
        "big": {"model": {"name": "tiny", "width": 6}, "head": {"dropped_outputs": {"channels": 4}}, "epochs": 1}
    },
    "dumps": {"choice": {"field": "top1", "of": "big"}, "scores": {"field": "logits", "of": "big"}},
    "students": {"small": {"model": {"name": "tiny"}, "epochs": 1, "losses": {"logits_mae": {"weight": 0.5}}}},
}
COMMANDS = (
    "graph",
    "prepare pets",
    "train-teacher big",
    "dump-top1 choice",
    "dump-logits scores",
    "train-student small",
)
RUN = """
import sys
from stages.main import main
for command in sys.argv[1:]:
    sys.argv = ["teachercache", *command.split()]
    try:
        main()
    except SystemExit as error:
        if error.code:
            raise
"""


def parts() -> list[tuple[str, str, str, str]]:
    """Of each example: its file, its code, its registry and its line there."""
    stated = r"`(pipeline/[\w/]+\.py)`:\n\n```python\n(.*?)```\n\nand in `([A-Z]+)`: `(.+?,)`"
    return re.findall(stated, PAGE, re.DOTALL)


def test_every_kind_of_part_has_an_example() -> None:
    rows = re.findall(
        r"^\| ([a-z ]+) \| `(pipeline/[\w/]+)/NAME.py` \| `([\w/.]+)` \(`([A-Z]+)`\) \|$", PAGE, re.MULTILINE
    )
    assert len(rows) == 6
    assert {(file.rpartition("/")[0], registry) for file, _, registry, _ in parts()} == {
        (room, registry) for _, room, _, registry in rows
    }


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with every example in its file and its line in its registry."""
    copy = tmp_path_factory.mktemp("extended")
    for package in ("pipeline", "stages"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, code, registry, line in parts():
        (copy / file).write_text(code)
        face = (copy / file).parent / "__init__.py"
        opened = re.search(rf"^{registry} = Registry\(\n    \"[\w ]+\",\n    {{\n", face.read_text(), re.MULTILINE)
        assert opened, face
        place = opened.end()
        face.write_text(f"{face.read_text()[:place]}        {line}\n{face.read_text()[place:]}")
    return copy


def test_one_file_and_one_line_each_are_enough(extended: Path, tmp_path: Path) -> None:
    write_study(tmp_path, STUDY)
    (tmp_path / "pets").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)
    labels = np.arange(40) % 2
    arrays = {"train_images": images, "test_images": images, "train_labels": labels, "test_labels": labels}
    np.savez(tmp_path / "pets/mine.npz", **arrays)  # type: ignore[arg-type]
    command = [sys.executable, "-W", "error", "-c", RUN, *COMMANDS]
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "choice: 40 samples" in done.stdout
    assert "student small: test accuracy" in done.stdout
