"""All four fields of 60,000 images in one pass, beside the forward pass alone.

    python benchmarks/dump.py [--mnist FOLDER] [--repeats 3] [--rows 60000] [--steps 300] [--device cuda]

The teacher is the CNN 32-64-512 with a multi-channel head (`channels` of 360 bits). Without --mnist
(the folder with the idx files) the images are drawn at random, and the hints compress worse. Every repeat
runs the forward pass, all fields in one pass and each field alone; measured too are the bytes of each array
and the growth of the resident memory.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import torch
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record, seconds

from pipeline.cache.manifest import Manifest
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.dumps.dump_fields import DumpRequest, dump_fields, select_samples
from pipeline.perplexity import compile_kernels
from pipeline.teacher import Ensemble, Samples, Teacher, train_teacher
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.registries import OPTIMIZERS
from pipeline.training.rows import Splits
from pipeline.views.view import PLAIN

BATCH = 512
MODEL = {"name": "cnn", "widths": [32, 64, 512], "head": {"name": "multichannel", "kernel": 127, "stride": 11}}
FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("logits", {}),
    "hints": ("hints", {"taps": ("block2", "features")}),
    "bits": ("multichannel", {}),
    "affinities": ("affinities", {"batch_size": 100, "perplexity": 20.0}),
}


def read_images(mnist: str | None, rows: int) -> Dataset:
    """MNIST's training images, or as many random ones."""
    if mnist is not None:
        whole = prepare_dataset("mnist", "mnist", Place("mnist", mnist))
        return replace(whole, bounds=(rows, whole.bounds[1]))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows + 100, 1, 28, 28), np.uint8)
    return Dataset(
        images, random.integers(0, 10, rows + 100), (rows, rows), tuple("0123456789"), np.arange(rows + 100), "random"
    )


def make_teacher(dataset: Dataset, steps: int, device: torch.device) -> Teacher:
    """Trained for some steps: after a few hundred its activations look like a teacher's."""
    options = TrainingOptions(
        lambda p: OPTIMIZERS.import_function("adam")(p, lr=1e-3), constant, steps=steps, batch_size=50
    )
    splits = Splits.from_dataset(dataset, device)
    network, _ = train_teacher(splits, model=MODEL, options=options, seed=0, what="teacher")
    card = {
        "name": "big", "model": MODEL, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": "0" * 64, "test_accuracy": None, "test_accuracy_per_class": [None] * 10,
    }  # fmt: skip
    return Teacher(Ensemble([network]), card, device)


@torch.no_grad()
def run_forward(teacher: Teacher, samples: Samples) -> None:
    """The network over all images, its answers thrown away."""
    teacher.network.eval()
    for images, _ in samples.batches(0, 0, samples.rows, teacher.device):
        teacher.network(images)
    if teacher.device.type == "cuda":
        torch.cuda.synchronize(teacher.device)


class MemoryWatch:
    """The most resident memory while it is open, above that at its start, in bytes; mapped files left out."""

    def __enter__(self) -> Self:
        self.process, self.grown, self.open = psutil.Process(), 0, True
        self.base = self.resident()
        self.thread = threading.Thread(target=self.poll)
        self.thread.start()
        return self

    def resident(self) -> int:
        info = self.process.memory_info()
        return int(info.rss - info.shared)

    def poll(self) -> None:
        while self.open:
            self.grown = max(self.grown, self.resident() - self.base)
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()


@dataclass
class Passes:
    """Dumps of one teacher, and what the last one of all fields left.

    Attributes:
        folder: where caches are written, and removed.
        manifests: by field.
        grown: the most bytes of resident memory, in each dump of all fields.
    """

    teacher: Teacher
    dataset: Dataset
    folder: Path
    manifests: dict[str, Manifest] = field(default_factory=dict)
    grown: list[int] = field(default_factory=list)

    def time_dump(self, *names: str) -> float:
        """Seconds of one pass with these fields."""
        wanted = [DumpRequest(self.folder / name, self.folder / f".{name}", *FIELDS[name], "zarr") for name in names]
        found: list[Manifest] = []
        with MemoryWatch() as watch:
            spent = seconds(lambda: found.extend(dump_fields(self.teacher, self.dataset, wanted, batch=BATCH)))
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        if len(names) == len(FIELDS):
            self.manifests = dict(zip(names, found, strict=True))
            self.grown.append(watch.grown)
        return spent


def measure_times(passes: Passes, samples: Samples, repeats: int) -> Iterator[Row]:
    """One pass, and each field alone, beside the forward pass."""
    run_forward(passes.teacher, samples)  # warms up: a whole round more would take minutes
    sides: dict[str, Callable[[], float]] = {
        "forward alone": partial(seconds, partial(run_forward, passes.teacher, samples)),
        "all fields in one pass": partial(passes.time_dump, *FIELDS),
    }
    sides |= {f"{name} alone": partial(passes.time_dump, name) for name in FIELDS}
    found = interleave(sides, repeats, warm_up=False)
    for name, each in found.items():
        values = {"times forward": ratios(each, found["forward alone"]), "s": Spread.of(each)}
        goal = Goal(at_most=1.25) if name == "all fields in one pass" else None
        labels = {"what": name, "device": name_device(str(passes.teacher.device))}
        yield Row(labels=labels, values=values, goal=goal)


def measure_bytes(passes: Passes) -> Iterator[Row]:
    """Each array as it was stored."""
    for name, manifest in passes.manifests.items():
        for array, info in manifest.arrays.items():
            place = f"data.zarr/{array}/c/"
            stored = sum(file.bytes for path, file in manifest.files.items() if path.startswith(place))
            labels = {"field": name, "array": array, "stored as": f"{info.dtype}, {info.codec}"}
            values = {"bytes an image": stored / passes.dataset.bounds[0], "of raw": stored / info.bytes}
            yield Row(labels=labels, values=values)


def measure_memory(passes: Passes) -> Row:
    """Above that before the dump; mapped files left out."""
    what = {"what": "growth of the resident memory in one pass of all fields"}
    return Row(labels=what, values={"MB": Spread.of(grown / 1e6 for grown in passes.grown)})


def measure(teacher: Teacher, dataset: Dataset, folder: Path | None, repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows."""
    print(f"compiling or loading the perplexity search: {compile_kernels():.2f} s, once")
    samples = select_samples(dataset, batch=BATCH, samples="train", views=PLAIN)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        passes = Passes(teacher, dataset, Path(place) / "caches")
        passes.folder.mkdir()
        yield from (("times", row) for row in measure_times(passes, samples, repeats))
    yield from (("bytes", row) for row in measure_bytes(passes))
    yield "memory", measure_memory(passes)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--mnist", help="the folder of MNIST's idx files")
    options.add_argument("--rows", type=int, default=60_000)
    options.add_argument("--steps", type=int, default=300, help="of the teacher's training")
    options.add_argument("--folder", type=Path, help="where the caches are written; a temporary folder unless given")
    given = options.parse_args()
    dataset = read_images(given.mnist, given.rows)
    teacher = make_teacher(dataset, given.steps, open_device(given.device))
    rows = measure(teacher, dataset, given.folder, given.repeats)
    libraries = ["torch", "numpy", "numba", "numcodecs"]
    record("dump", rows, given, libraries, images=dataset.name, rows=given.rows, steps=given.steps)


if __name__ == "__main__":
    main()
