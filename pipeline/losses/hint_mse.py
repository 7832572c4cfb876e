"""Hints: the student's guided layer matches the teacher's hint layer (FitNets: Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.losses.hint_choice import find_hint_mismatch, select_hint
from pipeline.losses.outputs import Outputs, Reduction, apply_module, reduce_samples, widen

READS = "hints"


def taps(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The guided layer."""
    return (options["tap"],)


def find_mismatch(options: Mapping[str, Any], dump: Mapping[str, Any]) -> str | None:
    """Why a dump does not have the hint."""
    return find_hint_mismatch(options["hint"], dump)


def build_learned(
    outputs: Outputs, target: Tensor | Mapping[str, Tensor], options: Mapping[str, Any]
) -> nn.Module | None:
    """The regressor from the guided layer's shape to the hint's; None where they are the same.

    Of maps of one size a 1x1 convolution, of vectors a linear layer.

    Raises:
        InputError: shapes that no such regressor joins.
    """
    guided, hint = outputs.taps[options["tap"]].shape[1:], select_hint(target, options["hint"]).shape[1:]
    if guided == hint:
        return None
    if len(guided) == len(hint) == 1:
        return nn.Linear(guided[0], hint[0])
    if len(guided) == len(hint) == 3 and guided[1:] == hint[1:]:
        return nn.Conv2d(guided[0], hint[0], 1)
    raise InputError(
        f"loss hint_mse: tap {options['tap']!r}",
        expected=f"vectors, or maps of the hint's size: the hint is {tuple(hint)}",
        found=str(tuple(guided)),
        fix="guide another tap, or dump the hint with another `pool`",
    )


def hint_mse(
    outputs: Outputs,
    target: Tensor | Mapping[str, Tensor],
    *,
    tap: str = "features",
    hint: str | None = None,
    over_units: Literal["mean", "sum"] = "mean",
    reduction: Reduction = "mean",
) -> Tensor:
    """|r(v) - u|^2 of the student's guided activations v and the teacher's u, averaged (or summed) over the units.

    r is a regressor that is trained beside the student where the shapes differ, else the identity.
    FitNets writes half of the sum: the weight may hold that factor.

    Args:
        outputs: the student's guided activations (B, ...) among its taps.
        target: the teacher's activations (B, ...), or several by tap.
        tap: the student's guided layer.
        hint: the teacher's tap; may be left out where the dump holds one.
        over_units: how a sample's squares are put together.
        reduction: over the samples.
    """
    guided = outputs.taps[tap]
    guided = widen(guided) if outputs.module is None else apply_module(outputs.module, guided)
    squares = (guided - select_hint(target, hint)).square().flatten(1)
    return reduce_samples(squares.mean(1) if over_units == "mean" else squares.sum(1), reduction)
