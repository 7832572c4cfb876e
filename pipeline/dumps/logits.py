"""The logits field: the teacher's pre-softmax outputs for every sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.dumps.field import Field
from pipeline.errors import InputError

if TYPE_CHECKING:  # a student's process reads this module's options, and must not load a teacher's room
    from pipeline.teacher import Teacher


def logits(
    teacher: Teacher,
    images: NDArray[np.uint8],
    batch: int,
    *,
    dtype: Literal["float16", "float32"] = "float16",
) -> Field:
    """Array `logits`, (views, samples, classes), rounded to `dtype`.

    Args:
        teacher: answers over the fixed partition.
        images: (samples, C, H, W) uint8, row i being sample id i.
        batch: rows a forward pass.
        dtype: on disk; float16 keeps a relative precision of 2^-11.

    Raises:
        InputError: (when computed) a logit that is NaN, infinite or beyond the dtype's range.
    """

    def compute(block: Block) -> dict[str, NDArray[np.floating]]:
        exact = teacher.logits(images, block.start, block.stop, batch)
        with np.errstate(over="ignore"):  # overflow is refused below, with the sample's id
            rounded = exact.astype(dtype)
        refuse_non_finite(exact, rounded, block.start, teacher.card["name"])
        return {"logits": rounded}

    classes = len(teacher.card["classes"])
    return Field({"logits": ArrayPlan((classes,), dtype)}, len(images), compute, {"dtype": dtype})


def refuse_non_finite(exact: NDArray[np.floating], rounded: NDArray[np.floating], first: int, teacher: str) -> None:
    """Raise InputError that names the first sample with a value the dtype cannot hold."""
    bad = np.flatnonzero(~np.isfinite(rounded).all(axis=1))
    if len(bad):
        overflow = np.isfinite(exact[bad[0]]).all()
        raise InputError(
            f"logits of teacher {teacher!r} for sample {first + bad[0]}",
            expected=f"finite {rounded.dtype} numbers",
            found=f"{np.abs(exact[bad[0]]).max():.6g}, beyond its range" if overflow else "NaN or inf",
            fix="dump with dtype: float32" if overflow else "train the teacher again",
        )
