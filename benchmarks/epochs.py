"""An epoch of a student: by our engine, as users run it, and by a loop written by hand.

Timed is the time from the end of one epoch to that of the next: what precedes the first step (weights, a trace) and
what follows the last (the test part) is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from pipeline.fields.batches import CachedBatches, locate_pairs
from pipeline.fields.rows import CachedRows
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.build import draw_network
from pipeline.models.network import Network
from pipeline.student import train_student
from pipeline.student_phase import CachedField
from pipeline.training.batch_plan import make_batch_plan
from pipeline.training.batches import Batch
from pipeline.training.optimizers import adam, constant
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows, Splits

CLASSES, BATCH, TEMPERATURE, RATE = 10, 100, 4.0, 1e-3
MNIST, CIFAR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)
make_optimizer = partial(adam, lr=RATE)


@dataclass(frozen=True)
class Case:
    """A network, and what it is trained on.

    Attributes:
        name: in the tables.
        model: what `build_network` takes.
        shape: (C, H, W) of the images.
        samples: an epoch.
        epochs: that are trained in one measurement; the first does not count.
        batch: samples a step.
    """

    name: str
    model: Mapping[str, Any]
    shape: tuple[int, int, int]
    samples: int
    epochs: int = 3
    batch: int = BATCH

    def make_rows(self, device: torch.device) -> Rows:
        """Images and labels of noise."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (self.samples, *self.shape), dtype=torch.uint8, generator=generator)
        labels = torch.randint(CLASSES, (self.samples,), generator=generator)
        return Rows(images.to(device), labels.to(device), CLASSES)

    def draw_network(self, device: torch.device) -> Network:
        """With fresh weights."""
        return draw_network(self.model, self.shape, CLASSES, seed=0, device=device).train()

    @property
    def options(self) -> TrainingOptions:
        """Of its training."""
        return TrainingOptions(make_optimizer, constant, epochs=self.epochs, batch_size=self.batch)


@dataclass(frozen=True)
class LiveTeacher:
    """A teacher that answers for each batch when it is asked, where a cache would look the answer up."""

    network: Network
    plans: None = None

    @torch.no_grad()
    def target(self, batch: Batch) -> torch.Tensor:
        """Its logits of the batch's images."""
        logits: torch.Tensor = self.network(batch.images)
        return logits


def make_term(loss: str, dump: str | None = None, **options: Any) -> Term:
    """A term of weight 1."""
    return Term(loss, steady(1, value=1.0), options, dump)


CE = Recipe((make_term("ce"),))
SOFT_TARGETS = Recipe((make_term("soft_targets", "dump", temperature=TEMPERATURE),))
TSNE = Recipe((make_term("ce"), make_term("tsne", "dump", tap="features")))


def make_logits(samples: int, device: torch.device) -> CachedRows:
    """Cached logits, float16."""
    return CachedRows({"logits": torch.randn(1, samples, CLASSES).half().to(device)})


def make_affinities(samples: int, n: int, device: torch.device) -> CachedBatches:
    """Cached joint probabilities of batches of n samples."""
    plans = torch.from_numpy(make_batch_plan(samples, n))
    triangles = torch.rand(*plans.shape[:2], n * (n - 1) // 2)
    triangles /= triangles.mean(-1, keepdim=True)  # n (n - 1) p: its mean is 1
    return CachedBatches(triangles.half().to(device), plans, locate_pairs(n).to(device))


def make_splits(rows: Rows, shape: tuple[int, int, int]) -> Splits:
    """Rows to train on, none to validate with, one to test."""
    none, one = (Rows(rows.images[:count], rows.labels[:count], rows.classes) for count in (0, 1))
    return Splits(rows, none, one, shape)


def time_ours(case: Case, rows: Rows, recipe: Recipe, field: CachedField | None = None) -> float:
    """Seconds of an epoch by our engine."""
    ends: list[float] = []
    train_student(
        make_splits(rows, case.shape),
        {} if field is None else {"dump": field},
        recipe,
        model=case.model,
        options=case.options,
        seed=0,
        what=case.name,
        on_epoch=lambda _: ends.append(time.perf_counter()),
    )
    return take_middle(ends)


def time_by_hand(case: Case, rows: Rows) -> float:
    """Seconds of an epoch of plain cross-entropy by a loop of a few lines, with the same network and optimiser."""
    images, labels = rows.images, rows.labels
    assert isinstance(images, torch.Tensor)
    network = case.draw_network(labels.device)
    optimizer = make_optimizer(network.parameters())
    ends = []
    for _ in range(case.epochs):
        total = torch.zeros((), device=labels.device)
        for ids in torch.split(torch.randperm(case.samples).to(labels.device), case.batch):
            loss = functional.cross_entropy(network(images.index_select(0, ids)), labels.index_select(0, ids))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        total.item()
        ends.append(time.perf_counter())
    return take_middle(ends)


def take_middle(ends: list[float]) -> float:
    """Seconds of an epoch, of when each of several ended."""
    return statistics.median(end - start for start, end in pairwise(ends))
