"""All benchmarks, each in a process of its own, one after the other: `python -m benchmarks`, at most 20 minutes.

    python -m benchmarks [NAME ...] [--mnist FOLDER] [--photos FOLDER --before CHECKOUT] [--torchdistill CHECKOUT]
                         [--repdistiller CHECKOUT] [--full] [--minutes 20] [--device cuda] [--results FOLDER]

Sizes and repeats are those that fit into the time; `--full` takes every benchmark's own, and all the time it needs.
What needs a folder that is not given, and what no longer fits, is left out with a line that says so; its last result
stays. One that fails does not stop the others: the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Plan:
    """How one benchmark is run among all.

    Attributes:
        minutes: that it takes on two cores.
        sizes: its options unless all is measured in full.
        folders: the folders that it is given where we are.
        needs: those of them without which there is nothing to measure.
        on_gpu: whether it has a part for a GPU.
        only_named: it is run when it is asked for by name, and not with all.
    """

    minutes: float
    sizes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    on_gpu: bool = False
    only_named: bool = False


# The goals of the engine first; then what takes longest for what it says.
PLANS = {
    "engine": Plan(3.2, on_gpu=True),
    "cohort": Plan(0.8, on_gpu=True),
    "tuned": Plan(1.3, on_gpu=True),
    "peers": Plan(2.7, folders=("mnist", "torchdistill", "repdistiller"), on_gpu=True),
    "data_path": Plan(0.1, on_gpu=True),
    "start_up": Plan(0.8),
    "student_epoch": Plan(0.7, on_gpu=True),
    "perplexity": Plan(0.3, ("--repeats", "5"), folders=("mnist",)),
    "cache_io": Plan(0.7, ("--repeats", "5", "--sizes", "100"), on_gpu=True),
    "cache_rows": Plan(0.6, ("--repeats", "3")),
    "cache_open": Plan(0.8, ("--repeats", "3")),
    "dump": Plan(1.5, ("--repeats", "2", "--rows", "10000", "--steps", "100"), folders=("mnist",), on_gpu=True),
    "scale": Plan(0.8, ("--samples", "20000", "--views", "50")),
    "streaming": Plan(2.0, ("--repeats", "3", "--rows", "12000", "--limited", "100000")),
    "ranks": Plan(2.0),
    "prepare": Plan(1.0, ("--repeats", "1"), folders=("photos", "before"), needs=("photos", "before")),
    "study": Plan(3.0, only_named=True),
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    options = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PLANS)}; all unless given")
    for folder in dict.fromkeys(name for plan in PLANS.values() for name in plan.folders):
        options.add_argument(f"--{folder}", type=Path, metavar="FOLDER", help="see benchmarks/README.md")
    options.add_argument("--full", action="store_true", help="every benchmark's own sizes")
    options.add_argument("--minutes", type=float, default=20.0, help="for all together")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--results", type=Path, default=HERE / "results", help="the folder of the JSON files")
    given = options.parse_args(arguments)
    unknown = [name for name in given.names if name not in PLANS]
    if unknown:
        options.error(f"no benchmark {unknown[0]!r}; there are {', '.join(PLANS)}")
    return given


def find_reason_against(plan: Plan, given: argparse.Namespace, seconds_left: float) -> str | None:
    """Why a benchmark is left out; None: it is not."""
    if plan.only_named and not given.names:
        return "runs where it is named"
    missing = [name for name in plan.needs if getattr(given, name) is None]
    if missing:
        return f"needs {' and '.join(f'--{name}' for name in missing)}"
    if given.device != "cpu" and not plan.on_gpu:
        return "has no part for a GPU"
    if not given.full and 60 * plan.minutes > seconds_left:
        return f"takes about {plan.minutes:g} minutes, {max(0.0, seconds_left / 60):.1f} are left"
    return None


def make_command(name: str, plan: Plan, given: argparse.Namespace) -> list[str]:
    """What runs a benchmark."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--results", str(given.results), "--device", given.device]
    for folder in plan.folders:
        place: Path | None = getattr(given, folder)
        command += [f"--{folder}", str(place)] if place is not None else []
    return command if given.full else [*command, *plan.sizes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all; the exit code: 0, or 1 where one failed."""
    given = parse_arguments(arguments)
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {"GOMP_SPINCOUNT": "1000"} | os.environ | {"PYTHONPATH": path}
    start, failed = time.monotonic(), []
    for name in given.names or PLANS:
        plan, spent = PLANS[name], time.monotonic() - start
        reason = find_reason_against(plan, given, 60 * given.minutes - spent)
        if reason is not None:
            print(f"== {name}: left out, {reason}", flush=True)
            continue
        print(f"== {name}", flush=True)
        done = subprocess.run(make_command(name, plan, given), env=environment, check=False)
        took = time.monotonic() - start - spent
        print(
            f"== {name}: {took:.0f} s" + (f", failed with exit code {done.returncode}" * (done.returncode != 0)),
            flush=True,
        )
        failed += [name] * (done.returncode != 0)
    print(f"== all: {(time.monotonic() - start) / 60:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
