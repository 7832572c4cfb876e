"""The default study as a whole: the seconds of `dvc repro`, and of those its stages' work and their start-up.

    python benchmarks/study.py [--repeats 1] [--folder FOLDER]

It is run in a clone of this checkout, with nothing made before; what is not committed is not in it. It takes minutes,
and all cores. --folder is the study's, in the repository: its root unless given.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from measurement import Goal, Row, Spread, parser, record, seconds
from start_up import list_timings

HERE = Path(__file__).parents[1]
MOST = 100.0  # seconds


def run_other(command: Sequence[str], folder: Path, **variables: str) -> None:
    """A command of others, in a folder."""
    subprocess.run(command, cwd=folder, env=os.environ | variables, check=True, capture_output=True)


def run_study(clone: Path, folder: str) -> dict[str, float]:
    """The seconds of a study, in a clone made anew."""
    run_other(["git", "clone", "--quiet", str(HERE), str(clone)], HERE)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    repro = partial(run_other, ["dvc", "repro"], clone / folder, PATH=path, PYTHONPATH=str(clone))
    whole, stages = seconds(repro), list_timings(clone / folder)
    work, startup = (sum(stage[key] for stage in stages) for key in ("seconds", "startup"))
    return {"whole, s": whole, "stages' work, s": work, "stages' start-up, s": startup, "stages": len(stages)}


def measure(folder: str, repeats: int) -> Iterator[tuple[str, Row]]:
    """The one row."""
    with tempfile.TemporaryDirectory(prefix="study-") as place:
        found = [run_study(Path(place) / f"{number}", folder) for number in range(repeats)]
    values = {key: Spread.of(each[key] for each in found) for key in found[0]}
    what = "`dvc repro` of the default study" if folder == "." else f"`dvc repro` in {folder}"
    yield "repro", Row(labels={"what": what}, values=values, goal=Goal(at_most=MOST))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=1)
    options.add_argument("--folder", default=".", help="the study's, in the repository")
    given = options.parse_args()
    record("study", measure(given.folder, given.repeats), given, ["torch", "numpy", "dvc"], folder=given.folder)


if __name__ == "__main__":
    main()
