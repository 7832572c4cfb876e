"""A phase's losses as params.yaml states them -> the recipe that is minimised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.losses.hooks import term_taps
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import build_schedule
from pipeline.runs.training import trainable_part
from pipeline.study.part_sections import TermParams
from pipeline.study.sections import PhaseParams, Study
from pipeline.training.trainable_part import TrainablePart


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


def list_loss_taps(study: Study, student: str) -> Iterator[tuple[str, str]]:
    """The activations that a student's losses ask for, each with the key of params.yaml that says so."""
    for term in study.students[student].terms():
        yield from ((f"students.{student}: loss {term.loss}", tap) for tap in term_taps(term.loss, term.options))


def list_trainable_parts(study: Study, student: str) -> Iterator[tuple[str, TrainablePart]]:
    """The parts that a student's phases train, each with the key of params.yaml that says so."""
    phases, own = study.students[student].phases, f"students.{student}"
    keys = [*(f"{own}.pretrain.{number}" for number in range(len(phases) - 1)), own]
    for key, phase in zip(keys, phases, strict=True):
        if phase.trainable is not None:
            yield f"{key}.trainable", trainable_part(phase.trainable)
