"""A student's epoch in the precision and layout that are fastest here, beside the default in float32.

    python benchmarks/tuned.py [--repeats 3] [--samples 1000] [--device cuda]

Every combination of `precision` and `layout` is timed for a few steps, as `teachercache tune` does it; what it would
choose is then timed beside the default. Plain cross-entropy, images of noise, Adam, batches of 100, on the CPU one
thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from epochs import CE, CIFAR, MNIST, Case, make_splits, time_ours
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record

from pipeline.models.vgg_guided import STUDENT
from pipeline.teacher import CrossEntropy
from pipeline.training.network_trainer import Member
from pipeline.training.rows import Rows
from pipeline.training.run import Data, Plan, Run
from pipeline.training.step_times import choose_fastest, measure_steps

# By case, the most that the tuned epoch may take of the default one.
CASES = (
    (Case("vgg_guided, the student", {"name": "vgg_guided", "layers": STUDENT}, CIFAR, 500, epochs=2), 0.8),
    (Case("nin", {"name": "nin"}, CIFAR, 200, epochs=2), 0.5),
    (Case("cnn 32-64-512", {"name": "cnn", "widths": [32, 64, 512]}, MNIST, 1_000, epochs=2), 0.8),
)


def choose_computation(case: Case, rows: Rows, repeats: int = 3) -> Case:
    """The case in the precision and layout that `tune` would choose for it here."""
    device = rows.labels.device
    precisions = ("float32", "bfloat16", *(["tf32"] if device.type == "cuda" else []))
    present = ("float32", None)
    steps = max(1, case.options.steps_per_epoch(len(rows)) // 2)
    plan = partial(Plan, options=replace(case.options, epochs=None, steps=steps), seed=0, what=case.name)
    runs = {}
    for choice in (present, *product(precisions, ("contiguous", "channels_last"))):
        member = Member(set_computation(case, *choice).draw_network(device), CrossEntropy())
        runs[choice] = Run(plan([member]), Data(rows, make_splits(rows, case.shape).validation))
    fastest = choose_fastest(measure_steps(runs, repeats), present)
    return set_computation(case, *(fastest or present))


def set_computation(case: Case, precision: str, layout: str | None) -> Case:
    """The case in this precision and layout; None: its architecture's own."""
    return replace(case, model={**case.model, "computed": {"precision": precision, "layout": layout}})


def describe(model: dict[str, Any]) -> str:
    """How a network is computed."""
    return ", ".join(str(value) for value in model["computed"].values() if value)


def measure_case(case: Case, most: float, device: torch.device, repeats: int) -> Row:
    """Of one network."""
    rows = case.make_rows(device)
    tuned = choose_computation(case, rows)
    sides = {name: partial(time_ours, each, rows, CE) for name, each in (("tuned", tuned), ("default", case))}
    found = interleave(sides, repeats, warm_up=False)
    values = {
        "tuned / default": ratios(found["tuned"], found["default"]),
        "tuned, ms a step": Spread.of(1e3 * each * case.batch / case.samples for each in found["tuned"]),
        "default, ms a step": Spread.of(1e3 * each * case.batch / case.samples for each in found["default"]),
    }
    labels = {"network": case.name, "tuned": describe(dict(tuned.model)), "device": name_device(str(device))}
    goal = Goal(at_most=0.5 if device.type == "cuda" else most)
    return Row(labels=labels, values=values, goal=goal)


def measure(most: int, device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """A row for each network."""
    for case, limit in CASES:
        yield "epochs", measure_case(replace(case, samples=min(case.samples, most)), limit, device, repeats)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--samples", type=int, default=1_000, help="of a case, at most")
    given = options.parse_args()
    device = open_device(given.device, threads=1)
    record("tuned", measure(given.samples, device, given.repeats), given, ["torch", "numpy"], samples=given.samples)


if __name__ == "__main__":
    main()
