"""A student's loss: the sum of weighted terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipeline.losses import TERMS, learned_of, taps_of
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
    def taps(self) -> tuple[str, ...]:
        """The student's activations that the terms ask for, each once."""
        return tuple(dict.fromkeys(tap for term in self.terms for tap in taps_of(term.name, term.options)))

    def learned(self, outputs: Outputs, target: Callable[[str], Any]) -> dict[str, nn.Module]:
        """By term, what it learns beside the student, made for the shapes of these outputs and targets."""
        made = {
            term.name: maker(outputs, None if term.dump is None else target(term.dump), term.options)
            for term in self.terms
            if (maker := learned_of(term.name)) is not None
        }
        return {name: module for name, module in made.items() if module is not None}

    @property
    def dumps(self) -> tuple[str, ...]:
        """The dumps that the terms read, each once."""
        return tuple(dict.fromkeys(term.dump for term in self.terms if term.dump is not None))
