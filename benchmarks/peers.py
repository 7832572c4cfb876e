"""The same distillation by the usual loops, beside ours: 10,000 samples of MNIST, one epoch.

    python benchmarks/peers.py [--mnist FOLDER] [--torchdistill CHECKOUT] [--repdistiller CHECKOUT] [--repeats 3]
                               [--samples 10000] [--device cuda]

Everyone trains the CNN 8-16-32 from the same teacher, a CNN 32-64-512, with 0.1 times cross-entropy and 0.9 times
soft targets, Adam, batches of 100, and is given the images as uint8 tensors, so that nobody decodes or transforms any.
On the CPU torch has one thread, a `DataLoader` two workers more. Other projects' code runs as it stands in a checkout:
torchdistill's box reads the per-sample files that it wrote in an epoch before (commit 3e4373c is the last that can);
RepDistiller's `train_distill` runs the teacher in each step. Some of torchdistill's rows are given their images as
torchvision's MNIST gives them, each a picture that becomes a tensor of floats.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dump import read_images
from epochs import BATCH, CLASSES, MNIST, TEMPERATURE, Case, make_optimizer, time_ours
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record, seconds
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset
from tuned import choose_computation

from pipeline.fields.rows import CachedRows
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.network import Network
from pipeline.training.rows import Rows

HARD, SOFT = 0.1, 0.9
WORKERS = 2
COLUMNS = ("times ours", "times ours, tuned", "s an epoch")
STUDENT, TEACHER = ({"name": "cnn", "widths": widths, "dropout": 0.0} for widths in ([8, 16, 32], [32, 64, 512]))
RECIPE = Recipe(
    (
        Term("ce", steady(1, value=HARD), {}),
        Term("soft_targets", steady(1, value=SOFT), {"temperature": TEMPERATURE, "form": "kl"}, "dump"),
    )
)
Step = Callable[[], object]


@dataclass(frozen=True)
class Scene:
    """What everyone trains on.

    Attributes:
        rows: images and labels, on the device.
        teacher: that ran over them.
        logits: what it said, float16, on the device.
    """

    rows: Rows
    teacher: Network
    logits: Tensor

    @property
    def device(self) -> torch.device:
        """Where everything is trained."""
        return self.rows.labels.device

    @property
    def case(self) -> Case:
        """Our training."""
        return Case("ours", STUDENT, MNIST, len(self.rows))

    def tensors(self) -> TensorDataset:
        """Images, labels and cached logits in the host's memory, as loaders take them."""
        assert isinstance(self.rows.images, Tensor)
        return TensorDataset(self.rows.images.cpu(), self.rows.labels.cpu(), self.logits.cpu())


class Samples(Dataset[tuple[Any, ...]]):
    """Images and labels.

    Attributes:
        numbered: with the sample's number.
        pictures: each image is a picture first, made a tensor of floats by torchvision, as its MNIST does it.
    """

    def __init__(self, scene: Scene, *, numbered: bool = False, pictures: bool = False) -> None:
        self.images, self.labels, _ = scene.tensors().tensors
        self.numbered, self.pictures = numbered, pictures

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image = self.images[index]
        if self.pictures:
            from torchvision.transforms.functional import to_tensor

            image = to_tensor(Image.fromarray(image[0].numpy()))
        sample = image, int(self.labels[index])
        return (*sample, index) if self.numbered else sample


@torch.no_grad()
def make_scene(images: Tensor, labels: Tensor, device: torch.device) -> Scene:
    """With a teacher of fresh weights: what it says does not matter here."""
    rows = Rows(images.to(device), labels.to(device), CLASSES)
    teacher = Case("teacher", TEACHER, MNIST, 0).draw_network(device).eval()
    logits = torch.cat([teacher(part) for part in torch.split(images.to(device), 1_000)])
    return Scene(rows, teacher, logits.half())


# --- loops -----------------------------------------------------------------------------------------


def make_loader_loop(scene: Scene, *, live: bool) -> Step:
    """An epoch of the usual loop: a shuffling `DataLoader` with workers; its teacher runs, or its logits are loaded."""
    network = scene.case.draw_network(scene.device)
    optimizer = make_optimizer(network.parameters())
    loader = DataLoader(scene.tensors(), BATCH, shuffle=True, num_workers=WORKERS)

    def run() -> None:
        for batch in loader:
            images, labels, logits = (each.to(scene.device) for each in batch)
            if live:
                with torch.no_grad():
                    logits = scene.teacher(images)
            answers = network(images)
            student = functional.log_softmax(answers / TEMPERATURE, dim=1)
            soft = functional.softmax(logits.float() / TEMPERATURE, dim=1)
            divergence = functional.kl_div(student, soft, reduction="batchmean") * TEMPERATURE**2
            loss = HARD * functional.cross_entropy(answers, labels) + SOFT * divergence
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()

    return run


def make_torchdistill(
    scene: Scene, checkout: Path, folder: Path, *, pictures: bool = False, workers: int = WORKERS
) -> Step:
    """An epoch of torchdistill from the files of its cache, which are written now."""
    distillation = import_from(checkout, "torchdistill.core.distillation")
    ends = {"student_module_path": ".", "teacher_module_path": "."}
    kinds = {"student_module_io": "output", "teacher_module_io": "output"}
    loss = {"temperature": TEMPERATURE, "alpha": HARD, "beta": SOFT, "reduction": "batchmean", **ends, **kinds}
    model: dict[str, Any] = {"forward_proc": "forward_batch_only", "sequential": [], "wrapper": None}
    config = {
        "num_epochs": 1_000,
        "train_data_loader": {
            "dataset_id": "train",
            "cache_output": str(folder),
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": BATCH, "num_workers": workers},
        },
        "teacher": {**model, "requires_grad": False},
        "student": model,
        "optimizer": {"key": "Adam", "kwargs": {"lr": 1e-3}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}}},
        },
    }
    box = distillation.get_distillation_box(
        scene.teacher, scene.case.draw_network(scene.device), {"train": Samples(scene, pictures=pictures)}, config,
        scene.device, [], False, 1,
    )  # fmt: skip

    def run() -> None:
        box.pre_epoch_process(epoch=0)
        for images, labels, more in box.train_data_loader:
            found = box.forward_process(images.to(scene.device), labels.to(scene.device), more)
            box.post_forward_process(loss=found)
            found.item()
        box.post_epoch_process()

    run()
    return run


class WithFeatures(nn.Module):
    """A network as RepDistiller calls it: it is asked for features, too."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, **_: bool) -> tuple[list[Tensor], Tensor]:
        return [], self.network(images)


def make_repdistiller(scene: Scene, checkout: Path) -> Step:
    """An epoch of RepDistiller's `train_distill`."""
    loops, losses = (import_from(checkout, name) for name in ("helper.loops", "distiller_zoo.KD"))
    student = WithFeatures(scene.case.draw_network(scene.device))
    networks = nn.ModuleList([student, WithFeatures(scene.teacher)])
    divergence = losses.DistillKL(TEMPERATURE)
    criteria = nn.ModuleList([nn.CrossEntropyLoss(), divergence, divergence])
    optimizer = make_optimizer(student.parameters())
    loader = DataLoader(Samples(scene, numbered=True), BATCH, shuffle=True, num_workers=WORKERS)
    how = argparse.Namespace(distill="kd", gamma=HARD, alpha=SOFT, beta=0.0, print_freq=100)

    def run() -> None:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            loops.train_distill(1, loader, networks, criteria, optimizer, how)

    return run


def import_from(checkout: Path, module: str) -> Any:
    """A module of another project's checkout."""
    sys.path.append(str(checkout.resolve()))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.pop()


# --- rows ------------------------------------------------------------------------------------------


def make_loops(
    scene: Scene, torchdistill: Path | None, repdistiller: Path | None, folder: Path
) -> dict[str, Step | None]:
    """By name an epoch of each; None where there is no checkout."""
    distill = None if torchdistill is None else partial(make_torchdistill, scene, torchdistill)
    return {
        "`DataLoader`, 2 workers, cached logits": make_loader_loop(scene, live=False),
        "`DataLoader`, 2 workers, live teacher": make_loader_loop(scene, live=True),
        "RepDistiller, 2 workers, live teacher": None
        if repdistiller is None
        else make_repdistiller(scene, repdistiller),
        "torchdistill, 2 workers, cached": distill and distill(folder / "a"),
        "torchdistill, 2 workers, cached, torchvision's images": distill and distill(folder / "b", pictures=True),
        "torchdistill, no workers, cached, torchvision's images": distill
        and distill(folder / "c", pictures=True, workers=0),
    }


def measure(scene: Scene, given: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """A row for each loop, and one for ours."""
    field = CachedRows({"logits": scene.logits[None]})
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        loops = make_loops(scene, given.torchdistill, given.repdistiller, Path(folder))
        tuned = choose_computation(scene.case, scene.rows)
        sides: dict[str, Callable[[], float]] = {
            name: partial(time_ours, case, scene.rows, RECIPE, field)
            for name, case in (("ours", scene.case), ("ours, tuned", tuned))
        }
        sides |= {name: partial(seconds, loop) for name, loop in loops.items() if loop is not None}
        found = interleave(sides, given.repeats)
    for name in ("ours", "ours, tuned", *loops):
        values: dict[str, Spread | float | None] = dict.fromkeys(COLUMNS)
        if name in found:
            values = {f"times {ours}": ratios(found[name], found[ours]) for ours in ("ours", "ours, tuned")}
            values["s an epoch"] = Spread.of(found[name])
        goal = Goal(at_least=4) if name.startswith("torchdistill") else None
        what = name if name in sides else f"{name}: no checkout"
        yield "epochs", Row(labels={"loop": what, "device": name_device(given.device)}, values=values, goal=goal)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--mnist", help="the folder of MNIST's idx files")
    options.add_argument("--torchdistill", type=Path, help="a checkout of torchdistill that has a cache")
    options.add_argument("--repdistiller", type=Path, help="a checkout of RepDistiller")
    options.add_argument("--samples", type=int, default=10_000)
    given = options.parse_args()
    device = open_device(given.device, threads=1)
    warnings.filterwarnings("ignore")  # of other projects: old names of torch's arguments
    data = read_images(given.mnist, given.samples)
    images, labels = torch.from_numpy(data.images[: given.samples]), torch.from_numpy(data.labels[: given.samples])
    rows = measure(make_scene(images, labels, device), given)
    record("peers", rows, given, ["torch", "numpy"], samples=given.samples, images="mnist" if given.mnist else "random")


if __name__ == "__main__":
    main()
