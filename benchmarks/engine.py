"""What a student's epoch from the cache costs, beside plain training and beside a teacher that runs in each step.

    python benchmarks/engine.py [--repeats 7] [--samples 10000] [--device cuda]

Each ratio is of two epochs within one repeat: same network, images of noise, Adam, batches of 100, on the CPU one
thread. `epochs`: soft targets, t-SNE and 360 binary labels from the cache; and our plain loop beside one written by
hand. `live`: the same training with the teacher's forward pass in each step instead of the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch
from epochs import (
    CE,
    CIFAR,
    CLASSES,
    DIGITS,
    MNIST,
    SOFT_TARGETS,
    TSNE,
    Case,
    LiveTeacher,
    make_affinities,
    make_logits,
    make_term,
    time_by_hand,
    time_ours,
)
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record

from pipeline.fields.rows import CachedRows
from pipeline.losses.multichannel_bce import unpack_bits
from pipeline.losses.recipe import Recipe
from pipeline.training.rows import Rows

CHANNELS = 36
UNPACK = "pipeline.losses.multichannel_bce.unpack_bits"
TINY = Case("mlp 64-12-10", {"name": "mlp", "widths": [12]}, DIGITS, 10_000, epochs=25)
MLP = Case("mlp 784-800-800-10", {"name": "mlp", "widths": [800, 800]}, MNIST, 5_000)
CNN = Case("cnn 8-16-32", {"name": "cnn", "widths": [8, 16, 32]}, MNIST, 5_000)
CONV = Case("CIFAR cnn 16-32-64", {"name": "cnn", "widths": [16, 32, 64]}, CIFAR, 2_000)
# By case: at most so many times plain training with the affinities, and at most so many times the loop by hand.
LIMITS = ((TINY, None, 1.1), (MLP, 1.1, 1.03), (CNN, 1.05, 1.03), (CONV, 1.05, 1.03))
TEACHERS = (
    (MLP, Case("mlp 1200-1200", {"name": "mlp", "widths": [1200, 1200]}, MNIST, 0), 1.7),
    (CNN, Case("cnn 32-64-512", {"name": "cnn", "widths": [32, 64, 512]}, MNIST, 0), 3.5),
    (CONV, Case("nin", {"name": "nin"}, CIFAR, 0), 25.0),
)


def fit_to(case: Case, most: int) -> Case:
    """The case with no more samples than these, if need be in fewer epochs."""
    return case if case.samples <= most else replace(case, samples=most, epochs=min(case.epochs, 3))


def make_row(case: Case, what: str, device: torch.device, found: tuple[list[float], list[float]], goal: Goal) -> Row:
    """Of what was found of two sides."""
    one, other = found
    values = {"times": ratios(one, other), "ms an epoch": Spread.of(1e3 * each for each in one)}
    return Row(
        labels={"network": case.name, "what": what, "device": name_device(str(device))}, values=values, goal=goal
    )


def measure_case(
    case: Case, tsne_limit: float | None, hand_limit: float, device: torch.device, repeats: int
) -> Iterator[Row]:
    """The rows of one network."""
    rows = case.make_rows(device)
    sides = {
        "hand": partial(time_by_hand, case, rows),
        "plain": partial(time_ours, case, rows, CE),
        "soft": partial(time_ours, case, rows, SOFT_TARGETS, make_logits(case.samples, device)),
    }
    if tsne_limit is not None:
        sides["tsne"] = partial(time_ours, case, rows, TSNE, make_affinities(case.samples, case.batch, device))
    found = interleave(sides, repeats)
    make = partial(make_row, case, device=device)
    if tsne_limit is not None:  # of the tiny network only the loop has a goal
        yield make("soft targets / plain", found=(found["soft"], found["plain"]), goal=Goal(at_most=1.03))
        yield make("t-SNE, n = 100 / plain", found=(found["tsne"], found["plain"]), goal=Goal(at_most=tsne_limit))
    yield make("plain / by hand", found=(found["plain"], found["hand"]), goal=Goal(at_most=hand_limit))


def time_floats(case: Case, rows: Rows, recipe: Recipe, labels: CachedRows) -> float:
    """Seconds of an epoch whose cached labels are floats already."""
    with patch(UNPACK, lambda values, *_: values):
        return time_ours(case, rows, recipe, labels)


def measure_bits(case: Case, device: torch.device, repeats: int) -> Row:
    """Of 360 labels in 45 bytes, and in as many floats."""
    case = replace(case, model={**case.model, "head": {"name": "channel_outputs", "channels": CHANNELS}})
    rows, count = case.make_rows(device), CHANNELS * CLASSES
    packed = torch.randint(256, (case.samples, count // 8), dtype=torch.uint8, device=device)
    floats = CachedRows({"bits": unpack_bits(packed, count).float()[None]})
    recipe = Recipe((make_term("multichannel_bce", "dump"),))
    sides = {
        "packed": partial(time_ours, case, rows, recipe, CachedRows({"bits": packed[None]})),
        "floats": partial(time_floats, case, rows, recipe, floats),
    }
    found = interleave(sides, repeats)
    what = f"{count} labels, bits / floats"
    return make_row(case, what, device, (found["packed"], found["floats"]), Goal(at_most=1.02))


def measure_live(case: Case, teacher: Case, least: float, device: torch.device, repeats: int) -> Row:
    """Of a student whose teacher runs in each step."""
    case = replace(case, samples=min(case.samples, 1_000), epochs=2)
    rows = case.make_rows(device)
    live = LiveTeacher(teacher.draw_network(device).eval())
    sides = {
        "live": partial(time_ours, case, rows, SOFT_TARGETS, live),
        "cached": partial(time_ours, case, rows, SOFT_TARGETS, make_logits(case.samples, device)),
    }
    found = interleave(sides, repeats, warm_up=False)
    goal = Goal(at_least=least)
    return make_row(case, f"live {teacher.name} / cached", device, (found["live"], found["cached"]), goal)


def measure_graphs(device: torch.device, repeats: int) -> Row:
    """Of a small network's steps, replayed as one graph: only a GPU has those."""
    labels = {"network": CNN.name, "what": "step, replayed / eager", "device": name_device(str(device))}
    if device.type != "cuda":
        return Row(labels=labels, values={"times": None}, goal=Goal(at_most=0.5)).unmeasured()
    rows = CNN.make_rows(device)
    sides = {"replayed": partial(time_traced, CNN, rows, 0), "eager": partial(time_traced, CNN, rows, 10**9)}
    found = interleave(sides, repeats)
    return make_row(CNN, labels["what"], device, (found["replayed"], found["eager"]), Goal(at_most=0.5))


def time_traced(case: Case, rows: Rows, fewest_steps: int) -> float:
    """Seconds of a plain epoch; of so many steps or more, it is traced (on a GPU: recorded)."""
    with patch("pipeline.training.stack.FEWEST_STEPS", fewest_steps):
        return time_ours(case, rows, CE)


def measure(most: int, device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows, each with its table."""
    for case, tsne_limit, hand_limit in LIMITS:
        few = fit_to(case, most)
        yield from (("epochs", row) for row in measure_case(few, tsne_limit, hand_limit, device, repeats))
    yield "epochs", measure_bits(fit_to(MLP, most), device, repeats)
    for case, teacher, least in TEACHERS:
        yield "live", measure_live(fit_to(case, most), teacher, least, device, -(-repeats // 2))
    yield "graphs", measure_graphs(device, repeats)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--samples", type=int, default=10_000, help="of a case, at most")
    given = options.parse_args()
    device = open_device(given.device, threads=1)
    record("engine", measure(given.samples, device, given.repeats), given, ["torch", "numpy"], samples=given.samples)


if __name__ == "__main__":
    main()
