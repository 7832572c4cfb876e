"""Eight seeds of a student trained together, beside one alone.

    python benchmarks/cohort.py [--repeats 5] [--samples 1500] [--device cuda]

Both are whole trainings from drawing the weights to the test part, as `train-student` does them: soft targets from the
cache, images of noise, Adam, on the CPU one thread. What is done once for all steps (a trace) is in them. Networks that
gain nothing together are trained one after the other, which a line says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from epochs import DIGITS, MNIST, SOFT_TARGETS, Case, make_logits, make_splits
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record, seconds

from pipeline.student import train_cohort
from pipeline.student_phase import Phase, StudentRun

SEEDS = 8
CASES = (
    (Case("mlp 64-32-10, batch 64", {"name": "mlp", "widths": [32]}, DIGITS, 1_472, epochs=40, batch=64), 2.5),
    (Case("mlp 784-800-800-10, batch 100", {"name": "mlp", "widths": [800, 800]}, MNIST, 1_500, epochs=3), 8.2),
    (Case("cnn 8-16-32, batch 100", {"name": "cnn", "widths": [8, 16, 32]}, MNIST, 1_500, epochs=3), 8.2),
)


def train_seeds(case: Case, seeds: int, device: torch.device) -> None:
    """Train so many students at once."""
    splits = make_splits(case.make_rows(device), case.shape)
    targets = {"dump": make_logits(case.samples, device)}
    phase = Phase(SOFT_TARGETS, case.options)
    train_cohort(splits, targets, [StudentRun(case.model, [phase], seed, f"seed {seed}") for seed in range(seeds)])


def measure_case(case: Case, most: float, device: torch.device, repeats: int) -> Row:
    """Of one network."""
    sides = {str(seeds): partial(seconds, partial(train_seeds, case, seeds, device)) for seeds in (SEEDS, 1)}
    found = interleave(sides, repeats)
    values = {
        "8 seeds / 1": ratios(found["8"], found["1"]),
        "8 seeds, s": Spread.of(found["8"]),
        "1 seed, s": Spread.of(found["1"]),
    }
    goal = Goal(at_most=2 if device.type == "cuda" else most)
    return Row(labels={"network": case.name, "device": name_device(str(device))}, values=values, goal=goal)


def measure(most: int, device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """A row for each network."""
    for case, limit in CASES:
        fewer = case if case.samples <= most else replace(case, samples=most, epochs=2)
        yield "seeds", measure_case(fewer, limit, device, repeats)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--samples", type=int, default=1_500, help="of a case, at most")
    given = options.parse_args()
    device = open_device(given.device, threads=1)
    record("cohort", measure(given.samples, device, given.repeats), given, ["torch", "numpy"], samples=given.samples)


if __name__ == "__main__":
    main()
