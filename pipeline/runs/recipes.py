"""A phase's losses as params.yaml states them -> the recipe that is minimised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights import build_schedule
from pipeline.study.part_sections import TermParams
from pipeline.study.sections import PhaseParams


def build_recipe(params: PhaseParams, epochs: int) -> Recipe:
    """A phase's weighted loss terms, their schedules spread over its epochs."""
    return Recipe(
        tuple(
            Term(term.loss, build_schedule(term.weight, epochs), term.options, term.reads, label=name)
            for name, term in params.losses.items()
        )
    )


def write_losses(losses: Mapping[str, TermParams]) -> dict[str, Any]:
    """The loss terms as the user has written them; a term says its loss where it is not called so."""
    return {
        name: {
            **({"loss": term.loss} if term.loss != name else {}),
            "weight": term.weight,
            "options": term.written_options(),
        }
        for name, term in losses.items()
    }
