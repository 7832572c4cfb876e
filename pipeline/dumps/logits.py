"""The logits field: the teacher's pre-softmax outputs for every sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from pipeline.base.errors import InputError
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.codecs import Codec
from pipeline.cache.dtypes import round_to_dtype, widen_bfloat16
from pipeline.dumps.field import RowField

if TYPE_CHECKING:  # a student's process reads this module's options, and must not load a teacher's room
    from pipeline.teacher import Samples, TeacherLike

DERIVED = ("given", "floor")  # of numbers from elsewhere

LogitsType = Literal["float16", "bfloat16", "float32"]


def logits(
    teacher: TeacherLike,
    samples: Samples,
    *,
    dtype: LogitsType = "float16",
    codec: Codec = "none",
    top_k: PositiveInt | None = None,
    temperature: PositiveFloat | None = None,
) -> RowField:
    """Array `logits`, (views, samples, classes), rounded to `dtype`; or the k largest of each sample.

    With `top_k`: arrays `values` (views, samples, k), the largest logits in falling order,
    `indices` (views, samples, k), their classes, and `tail` (views, samples, 1) float32, the log of
    the other classes' mass, log sum_j exp(a_j / temperature). So a student's loss at that
    temperature is normalised over k + 1 parts on both sides.

    Args:
        teacher: whose logits.
        samples: that it answers for.
        dtype: on disk; float16 keeps a relative precision of 2^-11, bfloat16 of 2^-8 in float32's range.
        codec: compression; logits hardly gain (5 to 8 %).
        top_k: classes kept a sample; None keeps all.
        temperature: that the tail's mass is taken at: that of the student's loss (only with `top_k`).

    Raises:
        InputError: `top_k` is not below the number of classes; (when computed) a logit that is
            NaN, infinite or beyond the dtype's range.
    """
    name, classes = teacher.card["name"], len(teacher.card["classes"])
    if top_k is None:
        return RowField(
            {"logits": ArrayPlan((classes,), dtype, codec)},
            ("logits",),
            lambda answer: {"logits": round_logits(answer.numpy("logits"), dtype, answer.start, name)},
            _describe_origin(teacher),
        )
    check_options(top_k=top_k, temperature=temperature)
    assert temperature is not None
    refuse_all_classes(top_k, classes, name)
    return RowField(
        plan_top_k_arrays(top_k, classes, dtype, codec),
        ("logits",),
        lambda answer: select_top_k(
            answer.numpy("logits"), top_k, temperature, dtype=dtype, first=answer.start, teacher=name
        ),
        _describe_origin(teacher),
    )


def _describe_origin(teacher: TeacherLike) -> dict[str, Any]:
    """What the logits were before they were such, where they come from elsewhere."""
    return dict(teacher.card.get("outputs", {}))


def check_options(*, top_k: int | None, temperature: float | None, **_: Any) -> None:
    """Raise ValueError unless both are given, or neither."""
    if top_k is not None and temperature is None:
        raise ValueError("temperature: missing; the tail's mass is kept for one, that of the student's loss")
    if temperature is not None and not 0 < temperature < np.inf:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}")
    if top_k is None and temperature is not None:
        raise ValueError("temperature: only with top_k; all logits serve any temperature")


def plan_arrays(parameters: Mapping[str, Any], classes: int) -> dict[str, ArrayPlan]:
    """The arrays of a cache with these parameters."""
    if parameters["top_k"] is None:
        return {"logits": ArrayPlan((classes,), parameters["dtype"])}
    return plan_top_k_arrays(parameters["top_k"], classes, parameters["dtype"], "none")


def plan_top_k_arrays(top_k: int, classes: int, dtype: LogitsType, codec: Codec) -> dict[str, ArrayPlan]:
    """The arrays that hold the largest logits of each sample."""
    index: Literal["int16", "int32"] = "int16" if classes <= np.iinfo(np.int16).max else "int32"
    return {
        "values": ArrayPlan((top_k,), dtype, codec),
        "indices": ArrayPlan((top_k,), index, codec),
        "tail": ArrayPlan((1,), "float32", codec),
    }


def select_top_k(
    exact: NDArray[np.float32], top_k: int, temperature: float, *, dtype: str, first: int, teacher: str
) -> dict[str, NDArray[Any]]:
    """The arrays `values`, `indices` and `tail` of logits (n, classes); `first` is the first one's sample id."""
    order = _sort_falling(exact)
    values = round_logits(np.take_along_axis(exact, order[:, :top_k], 1), dtype, first, teacher)
    rest = np.take_along_axis(exact, order[:, top_k:], 1).astype(np.float64) / temperature
    peak = rest.max(1, keepdims=True)
    tail = peak + np.log(np.exp(rest - peak).sum(1, keepdims=True))
    index = plan_top_k_arrays(top_k, exact.shape[1], "float32", "none")["indices"].dtype
    return {
        "values": values,
        "indices": order[:, :top_k].astype(index),
        "tail": round_logits(tail, "float32", first, teacher),
    }


def _sort_falling(exact: NDArray[np.float32]) -> NDArray[np.int64]:
    """Classes by falling logit, the lower class first of equals: the same everywhere."""
    return np.argsort(-exact, axis=1, kind="stable")


def round_logits(exact: NDArray[np.floating[Any]], dtype: str, first: int, teacher: str) -> NDArray[Any]:
    """Logits (n, ...) rounded to a format; `first` is the first row's sample id.

    Raises:
        InputError: a value that the format cannot hold, with its sample.
    """
    stored = round_to_dtype(exact, dtype)
    bad = np.flatnonzero(~np.isfinite(widen_bfloat16(stored, dtype)).all(axis=1))
    if len(bad):
        overflow = np.isfinite(exact[bad[0]]).all()
        raise InputError(
            f"logits of teacher {teacher!r} for sample {first + bad[0]}",
            expected=f"finite {dtype} numbers",
            found=f"{np.abs(exact[bad[0]]).max():.6g}, beyond its range" if overflow else "NaN or inf",
            fix="dump with dtype: float32" if overflow else "train the teacher again, or correct its file of outputs",
        )
    return stored


def refuse_all_classes(top_k: int, classes: int, teacher: str) -> None:
    """Raise InputError where no class is left for the tail."""
    if top_k >= classes:
        raise InputError(
            f"logits of teacher {teacher!r}: top_k",
            expected=f"below its {classes} classes",
            found=str(top_k),
            fix="leave top_k out to keep them all",
        )
