"""A student and image files -> what they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.base.table import Table
from pipeline.datasets.image_files import Decoder
from pipeline.export.predict import find_images, format_answer, predict_logits
from pipeline.runs.student_lookup import load_anywhere

COLUMNS = ("file", "class", "probability")


@dataclass(frozen=True)
class Predictions:
    """What a student sees in images.

    Attributes:
        files: their names, as the user has written them or as they were found.
        logits: (images, classes) float32.
        classes: the student's.
        notes: what was decided without being asked for, a line each.
    """

    files: Sequence[str]
    logits: NDArray[np.float32]
    classes: Sequence[str]
    notes: tuple[str, ...] = ()

    def answers(self, top: int | None = None) -> Iterator[dict[str, Any]]:
        """Each image's answer (see `export.predict.format_answer`), with so many probabilities; all unless given.

        One by one: the numbers of many images take far more room as text than as an array.
        """
        for file, row in zip(self.files, self.logits, strict=True):
            yield format_answer(file, row, self.classes, top or len(self.classes))

    def table(self, top: int | None = None) -> Table:
        """A table with one row an image: its likeliest class, and of the others so many that there are `top` in all."""
        top = top or min(2, len(self.classes))
        columns = (*COLUMNS, *([] if top == 1 else ["runner-up" if top == 2 else "runners-up"]))
        rows = [_cells(each)[: len(columns)] for each in self.answers(top)]
        return Table("", columns, rows)


def predict_images(
    student: str,
    images: Sequence[str],
    *,
    seed: int | None = None,
    top: int | None = None,
    own_code: bool = False,
    params: Path | str = "params.yaml",
    device: str = "auto",
) -> Predictions:
    """Say which class a student sees in each image, and how probable it holds it.

    Args:
        student: of the study, or a folder made by `export_student`.
        images: image files, or folders of them.
        seed: which of the study's; None for the first.
        top: how many classes an image will be asked for.
        own_code: run the architecture that an exported folder names by a module.
        params: the study's file; not read where `student` is a folder.
        device: where the network runs.

    Raises:
        InputError: no such student, no such image, or one that cannot be read.
    """
    files, notices = find_images(images, Path.cwd())
    network, card, where = load_anywhere(student, seed, Path(params), device, own_code=own_code)
    classes = card["classes"]
    if top is not None and top > len(classes):
        raise InputError("--top", expected=f"at most {len(classes)}, the student's classes", found=str(top))
    decoder = Decoder()
    logits = predict_logits(network, files, tuple(card["shape"]), where, decoder)
    return Predictions([file.where for file in files], logits, classes, (*notices, *decoder.notices()))


def _cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    """One image's row of the table."""
    first, *others = found["probabilities"].items()
    return found["file"], first[0], _percent(first[1]), ", ".join(f"{name} {_percent(p)}" for name, p in others)


def _percent(probability: float) -> str:
    return f"{100 * probability:.2f} %"
