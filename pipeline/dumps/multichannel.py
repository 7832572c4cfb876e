"""The multichannel field: binary labels, one for each channel that the network has for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base.errors import InputError
from pipeline.cache.blocks import ArrayForm, ArrayPlan
from pipeline.cache.codecs import Codec
from pipeline.dumps.field import RowField
from pipeline.models.heads import CHANNELS

if TYPE_CHECKING:  # a student's process reads this module's options, and must not load a teacher's room
    from pipeline.teacher import Samples, TeacherLike, TeacherOutputs

DERIVED = ("channels",)
NEEDS_HEAD = True


def multichannel(
    teacher: TeacherLike,
    samples: Samples,
    *,
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    codec: Codec = "none",
) -> RowField:
    """Array `bits`, (views, samples, ceil(classes * K / 8)) uint8: sigmoid(s_ck) >= threshold, packed.

    The classes * K labels of a sample stand class by class, the first in the highest bit of the first byte
    (numpy's packbits); the bits that fill up the last byte are zero. Scores are compared as
    s >= log(threshold / (1 - threshold)), in float32: a score of just that is a one. The manifest's
    parameter `channels` is K.

    Args:
        teacher: a network with a head, which may be a student.
        samples: that it answers for.
        threshold: t.
        codec: compression; bits of a network that is sure of most channels gain.

    Raises:
        InputError: a network without channels; (when computed) a score that is NaN.
    """
    name, classes = teacher.card["name"], len(teacher.card["classes"])
    channels = _count_channels(teacher)
    least = np.float32(math.log(threshold) - math.log1p(-threshold))

    def extract(answer: TeacherOutputs) -> dict[str, NDArray[Any]]:
        scores = answer.numpy(CHANNELS).reshape(answer.stop - answer.start, classes * channels)
        _refuse_nan(scores, f"channels of {name!r} for sample", answer.start)
        return {"bits": np.packbits(scores >= least, axis=1)}

    bits = ArrayPlan((count_packed_bytes(classes, channels),), "uint8", codec)
    return RowField({"bits": bits}, (CHANNELS,), extract, {"channels": channels})


def plan_arrays(parameters: Mapping[str, Any], classes: int) -> dict[str, ArrayForm]:
    """The arrays of a cache with these parameters.

    Raises:
        InputError: they have no number of channels (a stranger's may say anything).
    """
    channels = parameters.get("channels")
    if type(channels) is not int or channels < 1:
        raise InputError("field.parameters.channels", expected="a number from 1", found=repr(channels))
    return {"bits": ArrayForm((count_packed_bytes(classes, channels),), "uint8")}


def count_packed_bytes(classes: int, channels: int) -> int:
    """Bytes of a sample's labels."""
    return -(-classes * channels // 8)


def _count_channels(teacher: TeacherLike) -> int:
    """The network's channels a class."""
    name, classes = teacher.card["name"], len(teacher.card["classes"])
    try:
        shape = teacher.shapes([CHANNELS])[CHANNELS]
        found = f"a tap `{CHANNELS}` of {shape}"
    except InputError as error:
        shape, found = (), str(error)
    if len(shape) != 2 or shape[0] != classes:
        raise InputError(
            f"channels of {name!r}",
            expected=f"a single network with a tap `{CHANNELS}` of ({classes} classes, K)",
            found=found,
            fix="train it with `head: {multichannel: {}}`",
        )
    return shape[1]


def _refuse_nan(scores: NDArray[np.float32], what: str, first: int) -> None:
    """Raise InputError for the first sample with a score that is no number; `first` is the first one's id."""
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(bad):
        raise InputError(f"{what} {first + bad[0]}", expected="numbers", found="NaN", fix="train the network again")
