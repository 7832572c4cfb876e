"""A student's loss: the sum of weighted terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.losses import TERMS
from pipeline.losses.step import Outputs
from pipeline.schedules import Schedule


@dataclass(frozen=True)
class Term:
    """One weighted term of a recipe.

    Attributes:
        name: of `TERMS`.
        weight: epoch -> weight; a term of weight 0 is not computed.
        options: the term's own parameters.
        dump: the dump that its target comes from, or None.
    """

    name: str
    weight: Schedule
    options: Mapping[str, Any]
    dump: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A student's loss: the sum of weighted terms."""

    terms: tuple[Term, ...]

    def __call__(self, outputs: Outputs, targets: Mapping[str, Any], epoch: int) -> dict[str, Tensor]:
        """Each term's weight times its value, by name.

        Args:
            outputs: the student's, for one batch.
            targets: by dump, the batch's rows of the cached field: a float32 tensor, or arrays by name.
            epoch: from 0.
        """
        weighted: dict[str, Tensor] = {}
        for term in self.terms:
            weight = term.weight(epoch)
            target = None if term.dump is None else targets[term.dump]
            value = TERMS.function(term.name)(outputs, target, **term.options) if weight else outputs.logits.sum() * 0
            weighted[term.name] = weight * value
        return weighted

    @property
    def dumps(self) -> tuple[str, ...]:
        """The dumps that the terms read, each once."""
        return tuple(dict.fromkeys(term.dump for term in self.terms if term.dump is not None))
