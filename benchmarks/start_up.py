"""What starting costs: from a process's start to a student's first step, and a whole stage.

    python benchmarks/start_up.py [--repeats 5]

In a study of the digits whose networks are trained for one epoch: the seconds of each stage's command, from the start
of its process to its end, and those before its work begins, of its own record. A student's first step lies between
the two.
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
WHOLE = 3.5  # seconds, at most


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


def measure(stages: Sequence[str], repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows, each with its table."""
    with tempfile.TemporaryDirectory(prefix="start-up-") as folder:
        yield from (("stages", row) for row in measure_stages(Path(folder), stages, repeats))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="those that are timed")
    given = options.parse_args()
    record("start_up", measure(given.stages, given.repeats), given, ["torch", "numpy"])


if __name__ == "__main__":
    main()
