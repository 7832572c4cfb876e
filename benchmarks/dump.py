"""All four fields of 60,000 images in one pass, beside the forward pass alone.

    python benchmarks/dump.py [--mnist FOLDER] [--device cuda] [--repeats 3] [--rows 60000]

The teacher is the CNN 32-64-512 with a multi-channel head (`channels` of 360 bits). Without --mnist
(the folder with the idx files) the images are drawn at random, and the hints compress worse.
Prints the median of the ratios (dump / forward) of interleaved repeats, their spread, the bytes of each
field and the growth of the resident memory.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import torch

from pipeline.cache.manifest import Manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.raw import Place
from pipeline.datasets.record import Dataset
from pipeline.dumps.dump_fields import DumpRequest, dump_fields, select_samples
from pipeline.perplexity import warm_up
from pipeline.teacher import Ensemble, Samples, Teacher, train_teacher
from pipeline.training.optimizers import OPTIMIZERS, constant
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Splits
from pipeline.views.view import PLAIN

BATCH, STEPS = 512, 300
MODEL = {"name": "cnn", "widths": [32, 64, 512], "head": {"name": "multichannel", "kernel": 127, "stride": 11}}
FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("logits", {}),
    "hints": ("hints", {"taps": ("block2", "features")}),
    "bits": ("multichannel", {}),
    "affinities": ("affinities", {"batch_size": 100, "perplexity": 20.0}),
}


def images_of(mnist: str | None, rows: int) -> Dataset:
    """MNIST's training images, or as many random ones."""
    if mnist is not None:
        whole = prepare("mnist", "mnist", Place("mnist", mnist))
        return replace(whole, bounds=(rows, whole.bounds[1]))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows + 100, 1, 28, 28), np.uint8)
    return Dataset(
        images, random.integers(0, 10, rows + 100), (rows, rows), tuple("0123456789"), np.arange(rows + 100), "random"
    )


def teacher_of(dataset: Dataset, device: torch.device) -> Teacher:
    """Trained for a few hundred steps: its activations look like a teacher's."""
    options = TrainingOptions(lambda p: OPTIMIZERS.function("adam")(p, lr=1e-3), constant, steps=STEPS, batch_size=50)
    splits = Splits.from_dataset(dataset, device)
    network, _ = train_teacher(splits, model=MODEL, options=options, seed=0, what="teacher")
    card = {
        "name": "big", "model": MODEL, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": "0" * 64, "test_accuracy": None, "test_accuracy_per_class": [None] * 10,
    }  # fmt: skip
    return Teacher(Ensemble([network]), card, device)


@torch.no_grad()
def forward(teacher: Teacher, samples: Samples) -> float:
    """Seconds of the network over all images, its answers thrown away."""
    teacher.network.eval()
    start = time.perf_counter()
    for images, _ in samples.batches(0, 0, samples.rows, teacher.device):
        teacher.network(images)
    if teacher.device.type == "cuda":
        torch.cuda.synchronize(teacher.device)
    return time.perf_counter() - start


class Watch:
    """The most resident memory while it is open, above that at its start, in bytes; mapped files left out."""

    def __enter__(self) -> Self:
        self.process, self.grown, self.open = psutil.Process(), 0, True
        self.base = self.resident()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def resident(self) -> int:
        info = self.process.memory_info()
        return int(info.rss - info.shared)

    def look(self) -> None:
        while self.open:
            self.grown = max(self.grown, self.resident() - self.base)
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()


def dumped(teacher: Teacher, dataset: Dataset, folder: Path, names: list[str]) -> tuple[float, list[Manifest], int]:
    """Seconds, manifests and memory of one pass with these fields."""
    wanted = [DumpRequest(folder / name, folder / f".{name}", *FIELDS[name], "zarr") for name in names]
    with Watch() as watch:
        start = time.perf_counter()
        made = dump_fields(teacher, dataset, wanted, batch=BATCH)
        seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    folder.mkdir()
    return seconds, made, watch.grown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, help="where the caches are written; a temporary folder unless given")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    print(f"compiling or loading the perplexity search: {warm_up():.2f} s, once")
    dataset = images_of(options.mnist, options.rows)
    teacher = teacher_of(dataset, device)
    samples = select_samples(dataset, batch=BATCH, samples="train", views=PLAIN)
    names, ratios, seconds = list(FIELDS), [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place) / "caches"
        folder.mkdir()
        forward(teacher, samples)
        for _ in range(options.repeats):
            alone = forward(teacher, samples)
            spent, made, grown = dumped(teacher, dataset, folder, names)
            ratios.append(spent / alone)
            seconds.append((alone, spent))
        each = {name: dumped(teacher, dataset, folder, [name])[0] for name in names}
    print(
        f"{options.rows:,} images of {dataset.name}: forward {statistics.median(s for s, _ in seconds):.1f} s, "
        f"dump of {', '.join(names)} {statistics.median(s for _, s in seconds):.1f} s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)})"
    )
    alone_each = ", ".join(f"{name} {spent:.1f} s" for name, spent in each.items())
    print(f"resident memory grew by {grown / 1e6:.0f} MB; one by one: {alone_each}")
    for name, manifest in zip(names, made, strict=True):
        for array, info in manifest.arrays.items():
            stored = sum(block.bytes for block in info.blocks)
            print(
                f"{name}/{array}: {stored:,} bytes, {stored / options.rows:.1f} an image, "
                f"{stored / info.bytes:.2f} of raw ({info.dtype}, {info.codec})"
            )


if __name__ == "__main__":
    main()
