"""One epoch of a student: our engine against the usual DataLoader loop, side by side.

    python benchmarks/student_epoch.py [--device cuda] [--repeats 7]

Both train the same network with Adam on the same images and cached logits with the same loss;
the loop reads them through a `TensorDataset` and a shuffling `DataLoader`. Prints the median
of the ratios (loop / ours) of interleaved repeats, and their spread.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands do, before torch is imported

import torch
from torch.nn import functional
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset

from pipeline.fields.rows import CachedRows
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.build import build_network
from pipeline.student import train_student
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows, Splits

BATCH, TEMPERATURE = 128, 4.0
CASES = {
    "digits-like, mlp 12": (1_150, (1, 8, 8), {"name": "mlp", "widths": [12]}),
    "MNIST-like, mlp 800-800": (12_800, (1, 28, 28), {"name": "mlp", "widths": [800, 800]}),
    "MNIST-like, cnn 8-16-32": (6_000, (1, 28, 28), {"name": "cnn", "widths": [8, 16, 32]}),
}


def ours(rows: Rows, logits: torch.Tensor, shape: tuple[int, int, int], model: Mapping[str, Any]) -> float:
    """Seconds of one epoch, validation and test left out."""
    nothing = Rows(rows.images[:1], rows.labels[:1], rows.classes)
    empty = Rows(rows.images[:0], rows.labels[:0], rows.classes)
    recipe = Recipe((Term("soft_targets", steady(1, value=1.0), {"temperature": TEMPERATURE}, "dump"),))
    options = TrainingOptions(partial(Adam, lr=1e-3), constant, epochs=1, batch_size=BATCH)
    start = time.perf_counter()
    splits = Splits(rows, empty, nothing, shape)
    train_student(
        splits,
        {"dump": CachedRows({"logits": logits[None]})},
        recipe,
        model=model,
        options=options,
        seed=0,
        what="ours",
    )
    return time.perf_counter() - start


def loop(rows: Rows, logits: torch.Tensor, shape: tuple[int, int, int], model: Mapping[str, Any]) -> float:
    """Seconds of one epoch of the usual loop."""
    device = rows.labels.device
    start = time.perf_counter()
    network = build_network(model, shape, 10).to(device)
    optimizer = Adam(network.parameters(), lr=1e-3)
    data = TensorDataset(rows.images.cpu(), rows.labels.cpu(), logits.cpu())
    network.train()
    for images, _, target in DataLoader(data, BATCH, shuffle=True):
        student = functional.log_softmax(network(images.to(device)) / TEMPERATURE, dim=1)
        teacher = functional.softmax(target.to(device).float() / TEMPERATURE, dim=1)
        loss = -(teacher * student).sum(1).mean() * TEMPERATURE**2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
    return time.perf_counter() - start


def main() -> None:
    """Measure every case and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    for name, (count, shape, model) in CASES.items():
        images = torch.randint(256, (count, *shape), dtype=torch.uint8, device=device)
        rows = Rows(images, torch.randint(10, (count,), device=device), 10)
        logits = torch.randn(count, 10, device=device).half()
        pairs = [
            (loop(rows, logits, shape, model), ours(rows, logits, shape, model)) for _ in range(options.repeats + 1)
        ][1:]
        ratios = sorted(slow / fast for slow, fast in pairs)
        fast = statistics.median(pair[1] for pair in pairs)
        print(
            f"{name}: {statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f}, n = {len(ratios)}), "
            f"ours {1e3 * fast:.0f} ms an epoch"
        )


if __name__ == "__main__":
    main()
