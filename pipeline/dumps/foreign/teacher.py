"""Outputs that another framework or an API has made, in the place of a teacher that is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.base.files import hash_file, refuse_irregular_file
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.field import EXTERNAL
from pipeline.dumps.foreign.columns import match_columns
from pipeline.dumps.foreign.label_agreement import describe_agreement, warn_of_disorder
from pipeline.dumps.foreign.number_kinds import (
    Reading,
    Values,
    choose_reading,
    describe_reading,
    refuse_wrong_values,
    survey_outputs,
    warn_of_look_alikes,
)
from pipeline.teacher import Samples, TeacherOutputs


@dataclass(frozen=True)
class ForeignTeacher:
    """Answers from a file; dumped and checked like a teacher of our own.

    Attributes:
        outputs: (rows, columns) floats, row i being that of sample id i.
        card: name, classes and image shape of the data set, digest.
        reading: what the numbers are.
        columns: for each class, the column that is its own; None: they are in the classes' order.
        notes: lines about what was made of the file.
        warnings: lines about what is probably wrong with it.
    """

    outputs: NDArray[np.floating[Any]]
    card: dict[str, Any]
    reading: Reading = field(default_factory=lambda: Reading("logits"))
    columns: Sequence[int] | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of the file, its columns in the classes' order."""
        rows = self.outputs[start:stop]
        return rows if self.columns is None else rows[:, self.columns]

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

    def compute_outputs(
        self, samples: Samples, reads: Iterable[str], view: int, start: int, stop: int
    ) -> Iterator[TeacherOutputs]:
        """The logits of rows [start, stop) of the file."""
        self.shapes(reads)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused by the dump, with its sample
            rows = torch.from_numpy(self.reading.to_logits(self.rows(start, stop)).astype(np.float32))
        yield TeacherOutputs(view, start, stop, dict.fromkeys(reads, rows))


def read_outputs(
    path: Path,
    dataset: Dataset,
    name: str,
    sha256: str | None,
    *,
    values: Values | None = None,
    floor: float | None = None,
    classes: Path | None = None,
) -> tuple[ForeignTeacher, Literal["train", "all"]]:
    """A foreign teacher from a `.npy` file, and which samples it answers for.

    Args:
        path: floats (rows, classes), the data set's training rows in order, or all its rows.
        dataset: that they belong to.
        name: of the teacher.
        sha256: of its weights, as its owner states it; None takes the digest of the file.
        values: what the numbers are; None: logits, unless they look like something else.
        floor: smaller probabilities count as this.
        classes: a text file with the class of each column; None: they are in the data set's order.

    Raises:
        InputError: no such array; one of another length, width or type; numbers that look like others than
            they are said to be; a class without a column.
    """
    outputs = _open_outputs(path, dataset)
    reading = choose_reading(values, floor, len(dataset.classes))
    columns = None if classes is None else match_columns(classes, dataset.classes)
    found = survey_outputs(outputs, reading)
    names = np.array(dataset.classes, object)
    given = names if columns is None else names[np.argsort(columns)]
    refuse_wrong_values(str(path), values, reading, found, tuple(given))
    predictions = _predict_classes(outputs, columns)
    test, per_class = dataset.rows("test"), [None] * len(names)
    accuracy: float | None = None
    if len(outputs) == len(dataset) and test.stop > test.start:
        accuracy, per_class = _measure_accuracy(predictions[test], dataset.labels[test], len(names))
    card = {
        "name": name,
        "model": EXTERNAL,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "weights_sha256": sha256 or hash_file(path),
        "test_accuracy": accuracy,
        "test_accuracy_per_class": per_class,
        "outputs": reading.parameters,
    }
    lines = (*describe_reading(reading, found, len(names)), describe_agreement(predictions, dataset))
    doubt = warn_of_disorder(predictions, dataset, columns_named=classes is not None)
    warnings = (*warn_of_look_alikes(reading, values, found), *([doubt] if doubt else []))
    made = ForeignTeacher(outputs, card, reading, columns, lines, warnings)
    return made, "all" if len(outputs) == len(dataset) else "train"


def _open_outputs(path: Path, dataset: Dataset) -> NDArray[np.floating[Any]]:
    refuse_irregular_file(path, "a .npy file of numbers")
    try:
        outputs = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, OverflowError, EOFError, SyntaxError, TokenError, BadZipFile) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else "no array of numbers"
        fix = "save the outputs as float32 with numpy.save"
        raise InputError(str(path), expected="a .npy file of numbers", found=found, fix=fix) from None
    train, count, classes = dataset.bounds[0], len(dataset), len(dataset.classes)
    is_array = isinstance(outputs, np.ndarray)
    fits = is_array and outputs.shape in ((train, classes), (count, classes))
    if not fits or outputs.dtype.kind != "f":
        raise InputError(
            str(path),
            expected=f"floats of shape ({train}, {classes}), training rows, or ({count}, {classes}), all rows",
            found=f"{outputs.dtype} {outputs.shape}" if is_array else "an archive of arrays",
            fix="save them as floats: outputs.astype('float32')"
            if fits
            else "save one row of floats for each image, in the order of images.npy",
        )
    made: NDArray[np.floating[Any]] = outputs
    return made


def _predict_classes(outputs: NDArray[Any], columns: Sequence[int] | None) -> NDArray[np.int64]:
    """The class (rows,) that each row prefers."""
    predictions: NDArray[np.int64] = outputs.argmax(1)
    return predictions if columns is None else np.argsort(columns)[predictions]


def _measure_accuracy(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> tuple[float, list[Any]]:
    right = predictions == labels
    members = [right[labels == label] for label in range(classes)]
    return float(right.mean()), [float(each.mean()) if len(each) else None for each in members]
