"""One epoch of a student: our engine against the usual DataLoader loop, side by side.

    python benchmarks/student_epoch.py [--repeats 7] [--rows 12800] [--device cuda]

Both train the same network with Adam on the same images and cached logits with the same loss;
the loop reads them through a `TensorDataset` and a shuffling `DataLoader`. A ratio (loop / ours)
is taken within one repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from measurement import Row, Spread, interleave, name_device, open_device, parser, ratios, record, seconds
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


def train_ours(rows: Rows, logits: torch.Tensor, shape: tuple[int, int, int], model: Mapping[str, Any]) -> None:
    """One epoch, validation and test left out."""
    nothing = Rows(rows.images[:1], rows.labels[:1], rows.classes)
    empty = Rows(rows.images[:0], rows.labels[:0], rows.classes)
    recipe = Recipe((Term("soft_targets", steady(1, value=1.0), {"temperature": TEMPERATURE}, "dump"),))
    options = TrainingOptions(partial(Adam, lr=1e-3), constant, epochs=1, batch_size=BATCH)
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


def train_loop(rows: Rows, logits: torch.Tensor, shape: tuple[int, int, int], model: Mapping[str, Any]) -> None:
    """One epoch of the usual loop."""
    device = rows.labels.device
    network = build_network(model, shape, 10).to(device)
    optimizer = Adam(network.parameters(), lr=1e-3)
    assert isinstance(rows.images, torch.Tensor)
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


def measure(most: int, device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """A row of each case."""
    for name, (images_of_case, shape, model) in CASES.items():
        count = min(images_of_case, most)
        images = torch.randint(256, (count, *shape), dtype=torch.uint8, device=device)
        rows = Rows(images, torch.randint(10, (count,), device=device), 10)
        logits = torch.randn(count, 10, device=device).half()
        found = interleave(
            {
                "loop": partial(seconds, partial(train_loop, rows, logits, shape, model)),
                "ours": partial(seconds, partial(train_ours, rows, logits, shape, model)),
            },
            repeats,
        )
        values = {
            "loop / ours": ratios(found["loop"], found["ours"]),
            "ours, ms an epoch": Spread.of(1e3 * each for each in found["ours"]),
        }
        yield "epochs", Row(labels={"network": name, "device": name_device(str(device))}, values=values)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--rows", type=int, default=12_800, help="images of a case, at most")
    given = options.parse_args()
    rows = measure(given.rows, open_device(given.device), given.repeats)
    record("student_epoch", rows, given, ["torch", "numpy"], rows=given.rows)


if __name__ == "__main__":
    main()
