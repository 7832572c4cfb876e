"""Outputs that another framework or an API has made, in the place of a teacher that is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.datasets.record import Dataset
from pipeline.dumps.field import EXTERNAL
from pipeline.errors import InputError
from pipeline.files import sha256_of
from pipeline.teacher import Answer, Samples


@dataclass(frozen=True)
class ForeignTeacher:
    """Answers from a file; dumped and checked like a teacher of our own.

    Attributes:
        outputs: (rows, classes) floats, row i being that of sample id i.
        card: name, classes and image shape of the data set, digest.
    """

    outputs: NDArray[np.floating[Any]]
    card: dict[str, Any]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def shapes(self, reads: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Of logits: one number a class.

        Raises:
            InputError: anything else is asked for.
        """
        for read in reads:
            if read != "logits":
                name = self.card["name"]
                raise InputError(f"{read!r} of {name!r}", expected="logits, all that its file holds", found=read)
        return dict.fromkeys(reads, self.outputs.shape[1:])

    def answers(self, samples: Samples, reads: Iterable[str], view: int, start: int, stop: int) -> Iterator[Answer]:
        """Rows [start, stop) of the file."""
        self.shapes(reads)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused by the dump, with its sample
            rows = torch.from_numpy(np.array(self.outputs[start:stop], np.float32))
        yield Answer(view, start, stop, dict.fromkeys(reads, rows))


def read_outputs(
    path: Path, dataset: Dataset, name: str, sha256: str | None
) -> tuple[ForeignTeacher, Literal["train", "all"]]:
    """A foreign teacher from a `.npy` file, and which samples it answers for.

    Args:
        path: floats (rows, classes), the data set's training rows in order, or all its rows.
        dataset: that they belong to.
        name: of the teacher.
        sha256: of its weights, as its owner states it; None takes the digest of the file.

    Raises:
        InputError: no such array, or one of another length, width or type.
    """
    try:
        outputs = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else "no array of numbers"
        fix = "save the outputs as float32 with numpy.save"
        raise InputError(str(path), expected="a .npy file of numbers", found=found, fix=fix) from None
    train, count, classes = dataset.bounds[0], len(dataset), len(dataset.classes)
    if (
        not isinstance(outputs, np.ndarray)
        or outputs.dtype.kind != "f"
        or outputs.shape not in ((train, classes), (count, classes))
    ):
        found = f"{outputs.dtype} {outputs.shape}" if isinstance(outputs, np.ndarray) else "an archive of arrays"
        raise InputError(
            str(path),
            expected=f"floats of shape ({train}, {classes}), training rows, or ({count}, {classes}), all rows",
            found=found,
            fix="save one row of floats for each image, in the order of images.npy",
        )
    test = dataset.rows("test")
    accuracy, per_class = None, [None] * classes
    if len(outputs) == count and test.stop > test.start:
        accuracy, per_class = _accuracy(outputs[test], dataset.labels[test], classes)
    card = {
        "name": name,
        "model": EXTERNAL,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "weights_sha256": sha256 or sha256_of(path),
        "test_accuracy": accuracy,
        "test_accuracy_per_class": per_class,
    }
    return ForeignTeacher(outputs, card), "all" if len(outputs) == count else "train"


def _accuracy(outputs: NDArray[Any], labels: NDArray[np.int64], classes: int) -> tuple[float, list[Any]]:
    right = outputs.argmax(1) == labels
    members = [right[labels == label] for label in range(classes)]
    return float(right.mean()), [float(each.mean()) if len(each) else None for each in members]
