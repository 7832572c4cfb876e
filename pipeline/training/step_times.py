"""How long the steps of runs take on this machine, and which of them is surely faster than another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from pipeline.base.errors import InputError
from pipeline.base.progress import track
from pipeline.training.fit import compile_run
from pipeline.training.run import Run
from pipeline.training.stack import Stack

K = TypeVar("K")


@dataclass(frozen=True)
class StepTime:
    """Seconds a step: the median of the repeats, and the quartiles around it; or why there are none."""

    median: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    failure: str | None = None


def measure_steps(runs: Mapping[K, Run], repeats: int) -> dict[K, StepTime]:
    """Time the first steps of runs `repeats` times, in turn, so that what else the machine does meets all alike.

    Args:
        runs: by any key; they are trained on as they are timed. One that fails is not run again.
        repeats: of each, after one that warms up.
    """
    seconds: dict[K, list[float]] = {key: [] for key in runs}
    compiled: dict[K, Stack] = {}
    failures: dict[K, StepTime] = {}
    turns = [*runs.items()] * (1 + repeats)
    for key, run in track(turns, "times", len(turns)):
        if key in failures:
            continue
        try:
            if run.options.compile and key not in compiled:
                compiled[key] = compile_run(run)
            seconds[key].append(_time_steps(run, compiled.get(key, run)))
        except (InputError, RuntimeError) as error:
            failures[key] = describe_failure(error)
    return {key: failures.get(key) or summarise_seconds(seconds[key][1:]) for key in runs}


def describe_failure(error: Exception) -> StepTime:
    """No time, and the first line of what was raised."""
    return StepTime(failure=(str(error) or type(error).__name__).splitlines()[0])


def summarise_seconds(seconds: Sequence[float]) -> StepTime:
    """The median and quartiles of a few times."""
    low, median, high = map(float, np.quantile(seconds, [0.25, 0.5, 0.75]))
    return StepTime(median, low, high)


def choose_fastest(times: Mapping[K, StepTime], present: K) -> K | None:
    """The fastest of those whose quartiles lie below the present one's; None where there is none.

    Where the present one fails, whatever does not fail is faster.
    """
    limit = float("inf") if times[present].failure else times[present].low
    faster = [key for key, each in times.items() if not each.failure and each.high < limit]
    return min(faster, key=lambda key: times[key].median, default=None)


def _time_steps(run: Run, stepped: Run | Stack) -> float:
    """Seconds a step, of the first steps of the run's epoch; `stepped` is the run, or what takes its steps.

    Raises:
        NotFiniteError: they end in numbers that are not finite.
    """
    device = run.data.train.labels.device
    with stepped.open():
        _finish(device)
        start = time.perf_counter()
        stepped.run_steps()
        _finish(device)
        passed = time.perf_counter() - start
    for trainee in run.trainees:
        trainee.mean_losses(0)
    return passed / run.options.count_steps(run.epoch, len(run.order))


def _finish(device: torch.device) -> None:
    """Wait for what a device has been given to do; the CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
