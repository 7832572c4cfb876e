"""What grows with the number of samples, and how well `plan` foretells it.

    python benchmarks/scale.py [--repeats 3] [--samples 60000] [--views 50 500]

Synthetic float16 logits of 10 classes, of 1, 10 and 100 times as many samples: seconds a sample to write and seal the
cache, to open it for the first time, and of a student's epoch. And dumps of the digits in two numbers of views: what
`plan` says before, and what is measured then.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import Goal, Row, Spread, interleave, parser, ratios, record, seconds
from synthetic import BATCH as FORWARD_BATCH
from synthetic import describe_cache
from torch.optim import Adam

from pipeline import cache, runs
from pipeline.base.files import remove_path
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.store_plan import plan_store
from pipeline.cache.writer import write_cache
from pipeline.fields import load_field
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.student import train_student
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows, Splits

FACTORS = (1, 10, 100)
CLASSES, SHAPE, BATCH = 10, (1, 8, 8), 128
CPU = torch.device("cpu")
STUDY = """
datasets: {{digits: {{source: digits}}}}
views: {{policy: crop_flip, count: {views}, padding: 1}}
teachers: {{big: {{dataset: digits, model: {{name: cnn, widths: [16, 32, 64]}}, epochs: 3}}}}
dumps:
  logits: {{field: logits, of: big}}
  hdf5: {{field: logits, of: big, format: hdf5}}
  hints: {{field: hints, of: big, taps: [features]}}
"""


@dataclass(frozen=True)
class Growth:
    """One number of samples: logits, and images for a student."""

    folder: Path
    samples: int

    def write(self) -> None:
        """Write and seal the cache, as a dump does once it has the logits."""
        values = np.random.default_rng(0).integers(0, 1 << 14, (self.samples, CLASSES), np.int16).view(np.float16)
        remove_path(self.folder)
        self.folder.mkdir()
        plan = plan_store({"logits": ArrayPlan((CLASSES,), "float16")}, views=1, rows=self.samples, batch=FORWARD_BATCH)
        write_cache(
            self.folder / "dump",
            self.folder / "work",
            plan,
            lambda block: {"logits": values[block.start : block.stop]},
            store="zarr",
            description=describe_cache(self.samples, CLASSES),
        )

    def time_open(self) -> float:
        """Seconds of a first open."""
        remove_path(Path(os.environ["XDG_CACHE_HOME"]) / "teachercache")
        return seconds(lambda: cache.open(self.folder / "dump"))

    def time_epoch(self) -> float:
        """Seconds of an epoch of a small student, its images and logits in memory."""
        images = torch.randint(256, (self.samples, *SHAPE), dtype=torch.uint8)
        rows = Rows(images, torch.randint(CLASSES, (self.samples,)), CLASSES)
        few = Rows(images[:1], rows.labels[:1], CLASSES)
        none = Rows(images[:0], rows.labels[:0], CLASSES)
        field = load_field(cache.open(self.folder / "dump"), CPU)
        recipe = Recipe((Term("soft_targets", steady(1, value=1.0), {"temperature": 4.0}, "dump"),))
        options = TrainingOptions(partial(Adam, lr=1e-3), constant, epochs=1, batch_size=BATCH)
        model = {"name": "mlp", "widths": [64]}
        splits = Splits(rows, none, few, SHAPE)
        how: Mapping[str, Any] = {"model": model, "options": options, "seed": 0, "what": "student"}
        return seconds(lambda: train_student(splits, {"dump": field}, recipe, **how))


def measure_growth(folder: Path, samples: int, repeats: int) -> Iterator[Row]:
    """Seconds a sample of each number of samples, against the least."""
    cases = {factor: Growth(folder / str(factor), factor * samples) for factor in FACTORS}
    actions: dict[str, dict[int, Callable[[], float]]] = {
        "write and seal": {factor: partial(seconds, case.write) for factor, case in cases.items()},
        "first open": {factor: case.time_open for factor, case in cases.items()},
        "epoch of a student": {factor: case.time_epoch for factor, case in cases.items()},
    }
    for what, sides in actions.items():
        found = interleave({str(factor): side for factor, side in sides.items()}, repeats)
        each = {factor: [time / cases[factor].samples for time in found[str(factor)]] for factor in FACTORS}
        for factor in FACTORS:
            values = {
                "time a sample / that of the fewest": ratios(each[factor], each[FACTORS[0]]),
                "microseconds a sample": Spread.of(1e6 * time for time in each[factor]),
            }
            labels = {"what": what, "samples": f"{cases[factor].samples:,}"}
            yield Row(labels=labels, values=values, goal=None if factor == FACTORS[0] else Goal(at_most=1.1))


def measure_plan(folder: Path, views: int) -> Iterator[Row]:
    """What was foretold of each dump, over what was measured."""
    place = folder / f"plan-{views}"
    place.mkdir()
    with chdir(place):
        Path("params.yaml").write_text(STUDY.format(views=views), encoding="utf-8")
        study = runs.open_study("params.yaml")
        runs.prepare_dataset(study, "digits")
        runs.train_teacher(study, "big", "cpu")
        planned = runs.plan_dumps(study, "cpu").values
        for name, told in planned.items():
            dump = seconds(partial(runs.make_dump, study, name, None, "cpu"))
            target = Path("data/cache") / name
            remove_path(Path(os.environ["XDG_CACHE_HOME"]) / "teachercache")
            opened = seconds(partial(cache.open, target))
            found = {path: path.stat().st_size for path in target.rglob("*") if path.is_file()}
            labels = {"dump": name, "views": str(views), "rows": f"{views * cache.open(target).manifest.rows:,}"}
            values: dict[str, Spread | float | None] = {
                "bytes told / found": round(told["bytes"] / sum(found.values()), 4),
                "files told / found": round((told["files"] + 1) / len(found), 4),
                "dump, time told / found": round(told["dump_seconds"] / dump, 3),
                "first open, time told / found": round(told["first_open_seconds"] / opened, 3),
                "dump, seconds": round(dump, 3),
                "MB": round(sum(found.values()) / 1e6, 2),
            }
            yield Row(labels=labels, values=values)


def measure(samples: int, views: list[int], repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows, each with its table."""
    with tempfile.TemporaryDirectory(prefix="scale-") as base:
        os.environ["XDG_CACHE_HOME"] = str(Path(base) / "notes")
        for count in views:
            yield from (("plan", row) for row in measure_plan(Path(base), count))
        yield from (("growth", row) for row in measure_growth(Path(base), samples, repeats))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--samples", type=int, default=60_000, help="of the least number")
    options.add_argument("--views", type=int, nargs="+", default=[50, 500], help="of the digits that are dumped")
    given = options.parse_args()
    rows = measure(given.samples, given.views, given.repeats)
    record("scale", rows, given, ["numpy", "torch"], samples=given.samples, views=given.views)


if __name__ == "__main__":
    main()
