"""The hints field: activations inside the network, at any taps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PlainValidator
from torch import Tensor
from torch.nn import functional

from pipeline.base.errors import InputError
from pipeline.cache.blocks import ArrayForm, ArrayPlan
from pipeline.cache.codecs import Codec
from pipeline.cache.manifest import ARRAY_NAME
from pipeline.dumps.field import RowField

if TYPE_CHECKING:  # a student's process reads this module's options, and must not load a teacher's room
    from pipeline.teacher import Samples, TeacherLike, TeacherOutputs

HintsType = Literal["float16", "float32"]


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _validate_pool(value: Any) -> Any:
    if value is not None and value != "global" and not _is_count(value, 1):
        raise ValueError(f"expected the side of a square, from 1, or global, found {value!r}")
    return value


def _validate_channels(value: Any) -> Any:
    listed = isinstance(value, tuple) and value and all(_is_count(each, 0) for each in value)
    if value is not None and not _is_count(value, 1) and not (listed and len(set(value)) == len(value)):
        shown = list(value) if isinstance(value, tuple) else value
        raise ValueError(f"expected a number from 1, or a list of different numbers from 0, found {shown!r}")
    return value


# (An int, a tuple of ints or None; pydantic writes a tuple beside a validator of one's own with a warning.)
Channels = Annotated[Any, PlainValidator(_validate_channels)]
Pool = Annotated[int | Literal["global"] | None, PlainValidator(_validate_pool)]

# The least magnitude that becomes infinite when it is rounded to nearest.
OVERFLOW = {"float16": 65520.0, "float32": float("inf")}


def hints(
    teacher: TeacherLike,
    samples: Samples,
    *,
    taps: tuple[str, ...] = ("features",),
    pool: Pool = None,
    channels: Channels = None,
    dtype: HintsType = "float16",
    codec: Codec = "zstd",
) -> RowField:
    """One array a tap, under the tap's name, (views, samples, *activations), rounded to `dtype`.

    Args:
        teacher: the network, which may be a student.
        samples: that it is shown.
        taps: the architecture's own, or any module path inside it (`layer3.1`); one pass serves all.
        pool: of maps (C, H, W), the average over squares of this side, or over the whole map
            ("global"): then (C,). Vectors stay as they are.
        channels: keep these (the first axis of a sample's activations), or the first so many.
        dtype: on disk.
        codec: compression. Activations after a ReLU are full of zeros: zstd halves them. (HDF5 has none: gzip.)

    Raises:
        InputError: the network has no such tap, or the tap no such channel; (when computed) an
            activation that is NaN, infinite or beyond the dtype's range.
    """
    name = teacher.card["name"]
    if pool is not None and not any(len(shape) == 3 for shape in teacher.shapes(taps).values()):
        raise InputError("pool", expected="a tap with maps (C, H, W)", found=f"none among {', '.join(taps)}")
    shapes = {tap: _plan_shape(tap, shape, pool, channels) for tap, shape in teacher.shapes(taps).items()}

    def extract(answer: TeacherOutputs) -> dict[str, NDArray[Any]]:
        kept = {tap: _select_and_pool(answer.values[tap], pool, channels) for tap in taps}
        for tap, activations in kept.items():
            _refuse_overflow(activations, dtype, f"hint {tap!r} of {name!r} for sample", answer.start)
        return {tap: activations.to(getattr(torch, dtype)).cpu().numpy() for tap, activations in kept.items()}

    return RowField({tap: ArrayPlan(shape, dtype, codec) for tap, shape in shapes.items()}, taps, extract)


def check_options(*, taps: tuple[str, ...], **_: Any) -> None:
    """Raise ValueError for a tap that is named twice, or that is none."""
    if not taps:
        raise ValueError("taps: expected at least one, such as [features]")
    twice = next((tap for tap in taps if taps.count(tap) > 1), None)
    if twice is not None:
        raise ValueError(f"taps: expected each once, found {twice!r} {taps.count(twice)} times")
    unnamed = next((tap for tap in taps if not re.fullmatch(ARRAY_NAME, tap)), None)
    if unnamed is not None:
        raise ValueError(f"taps: expected names that an array can have, {ARRAY_NAME}, found {unnamed!r}")
    if "pixels" in taps:
        raise ValueError("taps: expected activations, found 'pixels', which every student has")


def list_taps(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """What it reads inside of the network."""
    return tuple(parameters["taps"])


def plan_arrays(parameters: Mapping[str, Any], classes: int) -> dict[str, ArrayForm]:
    """The arrays of a cache with these parameters; their shapes are the network's affair."""
    return {tap: ArrayForm(None, parameters["dtype"]) for tap in parameters["taps"]}


def _plan_shape(tap: str, shape: tuple[int, ...], pool: Pool, channels: Channels) -> tuple[int, ...]:
    """The shape of a sample's kept activations."""
    if not shape:
        raise InputError(f"tap {tap!r}", expected="activations of each sample", found="one number a sample")
    wanted = range(channels) if isinstance(channels, int) else channels or ()
    if wanted and max(wanted) >= shape[0]:
        raise InputError(
            f"tap {tap!r}: channels", expected=f"0..{shape[0] - 1}", found=str(max(wanted)), fix="name fewer channels"
        )
    if isinstance(pool, int) and len(shape) == 3 and pool > min(shape[1:]):
        raise InputError(
            f"tap {tap!r}: pool", expected=f"at most {min(shape[1:])}, its map's side", found=str(pool), fix="lower it"
        )
    return tuple(_select_and_pool(torch.zeros((1, *shape)), pool, channels).shape[1:])


def _select_and_pool(activations: Tensor, pool: Pool, channels: Channels) -> Tensor:
    """The kept channels of activations (n, C, ...), pooled."""
    if isinstance(channels, int):
        activations = activations[:, :channels]
    elif channels is not None:
        activations = activations[:, list(channels)]
    if pool is None or activations.dim() != 4:
        return activations
    return activations.mean((2, 3)) if pool == "global" else functional.avg_pool2d(activations, pool)


def _refuse_overflow(activations: Tensor, dtype: str, what: str, first: int) -> None:
    """Raise InputError for the first sample with a value that the format cannot hold; `first` is the first one's id."""
    if not activations.numel() or bool(activations.abs().amax() < OVERFLOW[dtype]):  # NaN is below nothing
        return
    worst = activations.abs().flatten(1).amax(1).cpu().numpy()
    bad = int(np.flatnonzero(~(worst < OVERFLOW[dtype]))[0])
    overflow = bool(np.isfinite(worst[bad]))
    raise InputError(
        f"{what} {first + bad}",
        expected=f"finite {dtype} numbers",
        found=f"{worst[bad]:.6g}, beyond its range" if overflow else "NaN or inf",
        fix="dump with dtype: float32" if overflow else "train the network again",
    )
