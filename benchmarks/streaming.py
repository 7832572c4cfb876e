"""An epoch from images and logits that stay on disk, beside one from the device; its memory; and a hard limit.

    python benchmarks/streaming.py [--repeats 5] [--rows 24000] [--limited 400000] [--device cuda]

Images (3, 32, 32) and a field of 1,000 logits in float16, all random, eight times the budget, in the page cache. Losses
and weights of both sides must be equal bit for bit, or this fails. The memory is that of a process of its own: the most
that is resident during the epoch, above what is resident before. The limit is a control group's where one can be made
(Linux, version 1), else RLIMIT_DATA, which counts no mapped files; its data are three times as large, and not cached.
Processes of their own give each freed array of 128 KiB or more back at once (MALLOC_MMAP_THRESHOLD_): glibc would keep
hundreds of megabytes for later.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import Goal, Row, Spread, interleave, name_device, parser, ratios, record, seconds
from torch.optim import Adam

from pipeline import cache
from pipeline.base.files import remove_path
from pipeline.datasets.dataset import Dataset, load_dataset, save_dataset, write_images
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.fields import load_field, measure_field
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.student import train_student
from pipeline.teacher import TeacherOutputs
from pipeline.training.memory import choose_streamed
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.training.rows import Splits, measure_images

BATCH, CLASSES, SHAPE = 128, 1_000, (3, 32, 32)
CONV, MLP = {"name": "cnn", "widths": [32, 64, 128]}, {"name": "mlp", "widths": [800, 800]}
SMALL = {"name": "mlp", "widths": [16]}
GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT_SHARE = 3  # data / limit
LEAST_LIMIT = 500 << 20  # an interpreter with torch takes three fifths of it


class RandomTeacher:
    """Answers anything, at once."""

    device = torch.device("cpu")

    def __init__(self, dataset: Dataset) -> None:
        accuracies = [0.0] * CLASSES
        self.card: dict[str, Any] = {
            "name": "random",
            "model": {"name": "random"},
            "shape": SHAPE,
            "classes": dataset.classes,
        }
        self.card |= {"weights_sha256": "0" * 64, "test_accuracy": 0.0, "test_accuracy_per_class": accuracies}

    def shapes(self, reads: Any) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(reads, (CLASSES,))

    def compute_outputs(self, samples: Any, reads: Any, view: int, start: int, stop: int) -> Iterator[TeacherOutputs]:
        generator = torch.Generator().manual_seed(start)
        for first in range(start, stop, samples.batch):
            count = min(samples.batch, stop - first)
            rows = torch.randn(count, CLASSES, generator=generator)
            yield TeacherOutputs(view, first, first + count, dict.fromkeys(reads, rows))


def write_data(folder: Path, rows: int) -> int:
    """A prepared data set and a cache of random numbers; the bytes of both."""
    random = np.random.default_rng(0)
    pieces = (random.integers(256, size=(min(4096, rows - i), *SHAPE), dtype=np.uint8) for i in range(0, rows, 4096))
    (folder / "data").mkdir(parents=True)
    images = write_images(folder / "data/images.npy", (rows, *SHAPE), pieces)
    labels = random.integers(CLASSES, size=rows)
    names = tuple(f"c{number}" for number in range(CLASSES))
    dataset = Dataset(images, labels, (rows - 1, rows - 1), names, np.arange(rows), "random")
    save_dataset(dataset, folder / "data")
    request = DumpRequest(folder / "logits", folder / ".work", "logits", {"dtype": "float16"}, "zarr")
    dump_fields(RandomTeacher(dataset), dataset, [request], batch=512)
    return rows * (int(np.prod(SHAPE)) + 2 * CLASSES)


class Epoch:
    """One epoch of a student; both sides differ in the budget alone."""

    def __init__(self, folder: Path, budget: int, model: Any, device: torch.device) -> None:
        dataset, opened = load_dataset(folder / "data", resident=False), cache.open(folder / "logits")
        images, field = measure_images(dataset, BATCH), measure_field("logits", opened, BATCH)
        streamed = choose_streamed([images, field], budget)
        self.splits = Splits.from_dataset(dataset, device, streamed=images in streamed)
        self.targets = {"dump": load_field(opened, device, streamed=field in streamed)}
        self.model, self.trained = model, list[TrainedStudent]()

    def run(self, steps: int | None = None) -> None:
        """Train; a number of steps instead of an epoch warms up."""
        terms = (
            Term("ce", steady(1, value=1.0), {}),
            Term("soft_targets", steady(1, value=1.0), {"temperature": 4.0}, "dump"),
        )
        length: dict[str, int] = {"epochs": 1} if steps is None else {"steps": steps}
        options = TrainingOptions(partial(Adam, lr=1e-3), constant, batch_size=BATCH, **length)  # type: ignore[arg-type]
        made = train_student(
            self.splits, self.targets, Recipe(terms), model=self.model, options=options, seed=0, what="s"
        )
        self.trained = [made]

    def fingerprint(self) -> str:
        """Of all losses and weights."""
        (made,) = self.trained
        digest = hashlib.sha256(json.dumps(made.fitted.history).encode())
        for tensor in made.state("last").values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()


def measure_times(folder: Path, size: int, repeats: int, device: torch.device) -> Iterator[tuple[str, Row]]:
    """Streamed beside resident."""
    for name, model, most in (("cnn 32-64-128", CONV, 1.1), ("mlp 800-800", MLP, 1.3), ("mlp 16", SMALL, None)):
        sides = {
            "streamed": Epoch(folder, size // 8, model, device),
            "resident": Epoch(folder, 2 * size, model, device),
        }
        found = interleave({side: partial(seconds, each.run) for side, each in sides.items()}, repeats)
        if len({each.fingerprint() for each in sides.values()}) > 1:
            raise AssertionError(f"{name}: streamed and resident epochs differ")
        values: dict[str, Spread | float | None] = {
            "streamed / resident": ratios(found["streamed"], found["resident"]),
            "streamed, s": Spread.of(found["streamed"]),
            "resident, s": Spread.of(found["resident"]),
        }
        labels = {"network": name, "device": name_device(str(device))}
        yield "epochs", Row(labels=labels, values=values, goal=None if most is None else Goal(at_most=most))


# --- processes of their own ------------------------------------------------------------------------


def read_status(key: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def run_alone(folder: Path, budget: int, device: str) -> None:
    """What the other process does: an epoch, and then a line of JSON that says what it took."""
    epoch = Epoch(folder, budget, SMALL, torch.device(device))
    epoch.run(steps=1)
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    taken = seconds(epoch.run)
    found = {"s": taken, "MB": (read_status("VmHWM") - before) / 1e6, "digest": epoch.fingerprint()}
    print(json.dumps(found))


def start_alone(folder: Path, budget: int, device: str, limit: int = 0, group: Path | None = None) -> dict[str, Any]:
    """An epoch in a process of its own, perhaps under a hard limit of bytes."""

    def restrict() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        elif limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    done = subprocess.run(
        [sys.executable, __file__, "--alone", str(folder), str(budget), device],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 << 10)},
        preexec_fn=restrict,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """A control group of memory with this limit; None where none can be made."""
    group = GROUPS / f"streaming-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit), encoding="ascii")
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def drop_cached(folder: Path) -> None:
    """Write files back and forget their pages, so that whoever reads them next is charged for them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_memory(folder: Path, size: int, repeats: int, device: str) -> Iterator[tuple[str, Row]]:
    """Resident memory of a streamed epoch above that before it."""
    found = [start_alone(folder, size // 8, device)["MB"] for _ in range(repeats)]
    values = {"MB above": Spread.of(found), "MB of data": size / 1e6}
    yield "memory", Row(labels={"what": "mlp 16, streamed"}, values=values, goal=Goal(at_most=500))


def measure_limited(folder: Path, size: int, device: str) -> Iterator[tuple[str, Row]]:
    """An epoch under a hard limit, and the same without."""
    limit = max(LEAST_LIMIT, size // LIMIT_SHARE)
    free = start_alone(folder, 2 * size, device)
    with control_group(limit) as group:
        drop_cached(folder)
        held = start_alone(folder, size // 24, device, limit, group)
    if held["digest"] != free["digest"]:
        raise AssertionError("the limited epoch differs from the one without a limit")
    kind = "RLIMIT_DATA" if group is None else "control group"
    values = {
        "data / limit": size / limit, "limit, MB": limit / 1e6, "limited, s": held["s"],
        "resident, no limit, s": free["s"], "MB above": held["MB"],
    }  # fmt: skip
    yield "limited", Row(labels={"what": f"mlp 16, {kind}, the same losses"}, values=values, goal=Goal(at_least=3))


def measure(rows: int, limited: int, repeats: int, device: str) -> Iterator[tuple[str, Row]]:
    """All tables."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = write_data(folder / "a", rows)
        yield from measure_times(folder / "a", size, repeats, torch.device(device))
        yield from measure_memory(folder / "a", size, repeats, device)
        remove_path(folder / "a")
        yield from measure_limited(folder / "b", write_data(folder / "b", limited), device)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--rows", type=int, default=24_000, help="images that are timed")
    options.add_argument("--limited", type=int, default=400_000, help="images that are trained on under the limit")
    given = options.parse_args()
    rows = measure(given.rows, given.limited, given.repeats, given.device)
    record("streaming", rows, given, ["torch", "numpy"], rows=given.rows, limited=given.limited)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        run_alone(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main()
