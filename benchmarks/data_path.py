"""What a step's data cost, without a network: a `DataLoader` over the cache, and our batches.

    python benchmarks/data_path.py [--repeats 7] [--samples 10000] [--device cuda]

Both hand out shuffled batches of 100 images, labels and cached logits, on the device: the loader those of a
`CachedDataset`, in the process itself and by two workers; ours as a student's training reads them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from epochs import BATCH, CLASSES, MNIST
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record, seconds
from synthetic import describe_cache
from torch.utils.data import DataLoader

from pipeline import cache
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.store_plan import plan_store
from pipeline.cache.writer import write_cache
from pipeline.datasets.dataset import Dataset
from pipeline.fields import load_field
from pipeline.fields.dataset import CachedDataset
from pipeline.fields.rows import CachedRows
from pipeline.training.batches import iterate_batches
from pipeline.training.rows import Rows
from pipeline.training.sample_order import RandomOrder

WORKERS = (0, 2)


def make_dataset(samples: int) -> Dataset:
    """Images of noise, one of them to test with."""
    random, count = np.random.default_rng(0), samples + 1
    images = random.integers(0, 256, (count, *MNIST), np.uint8)
    classes = tuple(map(str, range(CLASSES)))
    return Dataset(images, random.integers(0, CLASSES, count), (samples, samples), classes, np.arange(count), "noise")


def write_logits(folder: Path, dataset: Dataset) -> cache.Cache:
    """A cache of logits of noise, opened."""
    samples = dataset.bounds[0]
    values = np.random.default_rng(1).standard_normal((samples, CLASSES)).astype(np.float16)
    description = describe_cache(samples, CLASSES)
    description["dataset"] |= {"fingerprint": dataset.fingerprint, "shape": list(MNIST)}
    plan = plan_store({"logits": ArrayPlan((CLASSES,), "float16")}, views=1, rows=samples, batch=description["batch"])
    write_cache(
        folder / "dump",
        folder / "work",
        plan,
        lambda block: {"logits": values[block.start : block.stop]},
        store="zarr",
        description=description,
    )
    return cache.open(folder / "dump")


def read_loader(dataset: CachedDataset, workers: int, device: torch.device) -> None:
    """An epoch of a loader's batches."""
    for images, labels, fields in DataLoader(dataset, BATCH, shuffle=True, num_workers=workers):
        images.to(device), labels.to(device), fields["logits"].to(device)


def read_ours(rows: Rows, field: CachedRows, order: RandomOrder) -> None:
    """An epoch of our batches."""
    for batch in iterate_batches(rows, order.ids(0), BATCH, -(-len(rows) // BATCH), 0):
        field.target(batch)


def measure(samples: int, device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """A row for each number of workers."""
    with tempfile.TemporaryDirectory(prefix="data-path-") as folder:
        dataset = make_dataset(samples)
        logits = write_logits(Path(folder), dataset)
        field = load_field(logits, device)
        assert isinstance(field, CachedRows)
        ours = partial(read_ours, Rows.from_dataset(dataset, "train", device), field, RandomOrder(samples, 0))
        cached = CachedDataset(dataset, {"logits": logits})
        sides = {"ours": partial(seconds, ours)}
        sides |= {f"{count}": partial(seconds, partial(read_loader, cached, count, device)) for count in WORKERS}
        found = interleave(sides, repeats)
        steps = -(-samples // BATCH)
        for count in WORKERS:
            values = {
                "loader / ours": ratios(found[f"{count}"], found["ours"]),
                "loader, microseconds a step": Spread.of(1e6 * each / steps for each in found[f"{count}"]),
                "ours, microseconds a step": Spread.of(1e6 * each / steps for each in found["ours"]),
            }
            labels = {"what": f"`DataLoader`, {count} workers", "device": name_device(str(device))}
            yield "steps", Row(labels=labels, values=values, goal=Goal(at_least=10))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--samples", type=int, default=10_000)
    given = options.parse_args()
    device = open_device(given.device, threads=1)
    record("data_path", measure(given.samples, device, given.repeats), given, ["torch", "numpy"], samples=given.samples)


if __name__ == "__main__":
    main()
