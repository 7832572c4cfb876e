"""A dump by two processes that torchrun starts, one thread each, beside one process with one thread.

    python benchmarks/ranks.py [--repeats 3] [--views 200]

A NIN answers for augmented views of the digits. The seconds are those of the stage's work, of its own record: what a
process takes to start (torchrun starts two) is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from measurement import Goal, Row, Spread, interleave, parser, ratios, record
from start_up import HERE, run_command

STUDY = """
datasets: {{digits: {{source: digits}}}}
views: {{policy: crop_flip, count: {views}, padding: 1}}
teachers: {{big: {{model: {{name: nin, scale: 0.5}}, epochs: 1}}}}
dumps: {{logits: {{field: logits, of: big, batch: 128}}}}
students: {{small: {{model: {{name: mlp, widths: [8]}}, epochs: 1, losses: {{ce: {{}}}}}}}}
"""


def time_dump(folder: Path, processes: int) -> float:
    """Seconds of the work of a dump by so many processes."""
    shutil.rmtree(folder / "data/cache", ignore_errors=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "stages.dump", "big", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    noted: dict[str, float] = json.loads((folder / "data/timings/dump-big/timings.json").read_text(encoding="utf-8"))
    return noted["seconds"]


def measure(views: int, repeats: int) -> Iterator[tuple[str, Row]]:
    """The only row."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as place:
        folder = Path(place)
        (folder / "params.yaml").write_text(STUDY.format(views=views), encoding="utf-8")
        run_command(folder, "prepare", "digits")
        run_command(folder, "train-teacher", "big", "--device", "cpu")
        sides = {"one": partial(time_dump, folder, 1), "two": partial(time_dump, folder, 2)}
        found = interleave(sides, repeats, warm_up=False)
    values = {
        "one / two": ratios(found["one"], found["two"]),
        "one, s": Spread.of(found["one"]),
        "two, s": Spread.of(found["two"]),
    }
    yield "dumps", Row(labels={"network": f"nin, {views} views"}, values=values, goal=Goal(at_least=1.7))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--views", type=int, default=200, help="of the digits")
    given = options.parse_args()
    record("ranks", measure(given.views, given.repeats), given, ["torch", "numpy"], views=given.views)


if __name__ == "__main__":
    main()
