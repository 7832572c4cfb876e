"""Probes between a mentor's layers and its mentee's (METHODS: mentee networks)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from pipeline.base.errors import InputError
from pipeline.losses.hint_choice import find_hint_mismatch, select_hint
from pipeline.losses.outputs import Outputs, find_top_k_mismatch, widen

Between = Literal["activations", "softmax"]


def READS(options: Mapping[str, Any]) -> str:  # noqa: N802 - as constant as other terms' constants
    """Activations are hints; softmax outputs are made of logits."""
    return "hints" if options["between"] == "activations" else "logits"


def taps(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The mentee's layer."""
    return (options["tap"],) if options["between"] == "activations" else ()


def find_mismatch(options: Mapping[str, Any], dump: Mapping[str, Any]) -> str | None:
    """Why a dump does not serve: it must hold the mentor's layer, or all of its logits."""
    if options["between"] == "activations":
        return find_hint_mismatch(options["hint"], dump)
    return find_top_k_mismatch(dump)


def probe_rmse(
    outputs: Outputs,
    target: Tensor | Mapping[str, Tensor],
    *,
    between: Between = "activations",
    tap: str = "features",
    hint: str | None = None,
    temperature: PositiveFloat = 0.7,
    over_batch: Literal["mean", "root"] = "mean",
) -> Tensor:
    """Phi = sqrt((1/a) sum_{i < a} (M_i - S_i)^2), over the first a = min(width_M, width_S) neurons.

    M and S are the activations of a layer each, or both networks' softmax(logits / temperature). Of
    maps, which must be of one size, the first channels are compared. At zero difference the gradient
    is defined as 0.

    Args:
        outputs: the student's activations (B, width, ...) among its taps, and its logits (B, C).
        target: the teacher's activations (B, width, ...), or several by tap; or its logits (B, C).
        between: which of the two is compared.
        tap: the student's layer.
        hint: the teacher's layer; may be left out where the dump holds one.
        temperature: of both softmax outputs.
        over_batch: the mean of each sample's phi, or one root over the whole batch.

    Raises:
        InputError: maps of different sizes.
    """
    if between == "softmax":
        mentee = outputs.log_softmax(temperature).exp()
        # By the very operations that made the mentee's: equal logits are then equal to the last bit, and have no slope.
        mentor = functional.log_softmax(select_hint(target, None) / temperature, dim=1).exp()
    else:
        mentee, mentor = _cut_to_common_width(widen(outputs.taps[tap]), select_hint(target, hint), tap)
    squares = (mentee - mentor).square().flatten(1).mean(1)  # (B,)
    return _safe_sqrt(squares).mean() if over_batch == "mean" else _safe_sqrt(squares.mean())


def _cut_to_common_width(mentee: Tensor, mentor: Tensor, tap: str) -> tuple[Tensor, Tensor]:
    """The neurons (or channels) that both layers have."""
    if mentee.shape[2:] != mentor.shape[2:]:
        raise InputError(
            f"loss probe_rmse: tap {tap!r}",
            expected=f"as many dimensions, and maps of one size: the mentor's layer is {tuple(mentor.shape[1:])}",
            found=str(tuple(mentee.shape[1:])),
            fix="name another tap, or dump the hint with another `pool`",
        )
    width = min(mentee.shape[1], mentor.shape[1])
    return mentee[:, :width], mentor[:, :width]


def _safe_sqrt(squares: Tensor) -> Tensor:
    """The square root, with gradient 0 where it is 0 (its own is infinite there)."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
