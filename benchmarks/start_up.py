"""What starting costs: from a process's start to a student's first step; a whole stage; and, if asked, all stages.

    python benchmarks/start_up.py [--repeats 5] [--repro]

In a study of the digits whose networks are trained for one epoch: the seconds of each stage's command, from the start
of its process to its end, and those before its work begins, of its own record. A student's first step lies between
the two. `--repro` adds `dvc repro` of the default study in a clone of this checkout, which takes minutes; what is not
committed is not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from measurement import Goal, Row, Spread, parser, record, seconds

HERE = Path(__file__).parents[1]
STUDY = """
datasets: {digits: {source: digits}}
teachers: {big: {dataset: digits, model: {name: mlp, widths: [16]}, epochs: 1}}
dumps: {big-logits: {field: logits, of: big}}
students:
  small:
    dataset: digits
    model: {name: mlp, widths: [12]}
    losses: {soft_targets: {}}
    seeds: 1
    epochs: 1
"""
STAGES = {"prepare": "digits", "train-teacher": "big", "dump-logits": "big-logits", "train-student": "small"}
WHOLE, REPRO = 3.5, 100.0  # seconds, at most


def run_command(folder: Path, *command: str) -> None:
    """A command of ours, in a folder."""
    code = "import sys; from stages.main import main; sys.argv[0] = 'teachercache'; main()"
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    subprocess.run([sys.executable, "-c", code, *command], cwd=folder, env=environment, check=True, capture_output=True)


def list_timings(folder: Path) -> list[dict[str, float]]:
    """What stages noted of their times, the last one's last."""
    files = sorted(folder.glob("data/timings/*/timings.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def measure_stages(folder: Path, stages: Sequence[str], repeats: int) -> Iterator[Row]:
    """A row for each command."""
    (folder / "params.yaml").write_text(STUDY, encoding="utf-8")
    for command in stages:
        whole, before = [], []
        for _ in range(repeats):
            whole.append(seconds(partial(run_command, folder, command, STAGES[command])))
            before.append(list_timings(folder)[-1]["startup"])
        values = {"whole, s": Spread.of(whole), "before its work, s": Spread.of(before)}
        yield Row(labels={"stage": f"`{command}`"}, values=values, goal=Goal(at_most=WHOLE))


def measure_repro(folder: Path) -> Row:
    """The default study, from a clone without data."""
    clone = folder / "clone"
    run_all(["git", "clone", "--quiet", str(HERE), str(clone)], folder)
    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([bin_folder, os.environ["PATH"]])
    taken = seconds(partial(run_all, ["dvc", "repro"], clone, PATH=path, PYTHONPATH=str(clone)))
    stages = list_timings(clone)
    values: dict[str, Spread | float | None] = {
        "whole, s": round(taken, 1),
        "in the stages' work, s": round(sum(stage["seconds"] for stage in stages), 1),
        "before their work, s": round(sum(stage["startup"] for stage in stages), 1),
        "stages": float(len(stages)),
    }
    return Row(labels={"what": "`dvc repro` of the default study"}, values=values, goal=Goal(at_most=REPRO))


def run_all(command: Sequence[str], folder: Path, **variables: str) -> None:
    """A command of others, in a folder."""
    subprocess.run(command, cwd=folder, env=os.environ | variables, check=True, capture_output=True)


def measure(stages: Sequence[str], repeats: int, *, repro: bool) -> Iterator[tuple[str, Row]]:
    """All rows, each with its table."""
    with tempfile.TemporaryDirectory(prefix="start-up-") as folder:
        yield from (("stages", row) for row in measure_stages(Path(folder), stages, repeats))
        if repro:
            yield "study", measure_repro(Path(folder))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="those that are timed")
    options.add_argument("--repro", action="store_true", help="the default study, too")
    given = options.parse_args()
    record(
        "start_up",
        measure(given.stages, given.repeats, repro=given.repro),
        given,
        ["torch", "numpy", "dvc"],
        repro=int(given.repro),
    )


if __name__ == "__main__":
    main()
