"""Whether a network has what the study asks of it, known before any time is spent on it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.dumps import list_taps as taps_of_dump
from pipeline.losses import term_taps
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.runs.training import trainable_part
from pipeline.study.sections import Study, describe_model
from pipeline.training.trainable_part import TrainablePart


def build_and_check(study: Study, name: str, dataset: Dataset) -> Network:
    """A teacher's or student's network with weights of no meaning, on the CPU, and with all that is asked of it.

    Raises:
        InputError: it cannot be built, or lacks a part that a dump, a loss or a phase names.
    """
    section = "students" if name in study.students else "teachers"
    params = study.students[name] if name in study.students else study.teachers[name]
    try:
        network = build_network(describe_model(params), dataset.shape, len(dataset.classes), files=False).eval()
    except InputError as error:
        raise InputError(f"{study.file}: {section}.{name}: {error}") from None
    _refuse_missing_parts(study, name, network, torch.zeros((2, *dataset.shape), dtype=torch.uint8))
    return network


@torch.no_grad()
def _refuse_missing_parts(study: Study, name: str, network: Network, images: torch.Tensor) -> None:
    for key, tap in _taps_asked_for(study, name):
        try:
            network.forward_with_taps(images, [tap])
        except InputError as error:
            raise InputError(f"{study.file}: {key}: {error}") from None
    for key, part in _trainable_parts(study, name):
        try:
            part.parameter_names(network, images)
        except InputError as error:
            raise InputError(f"{study.file}: {key}: {error}") from None


def _trainable_parts(study: Study, name: str) -> Iterator[tuple[str, TrainablePart]]:
    """The parts of a student that its phases train, each with the key that says so."""
    if name in study.students:
        phases, own = study.students[name].phases, f"students.{name}"
        keys = [*(f"{own}.pretrain.{number}" for number in range(len(phases) - 1)), own]
        for key, phase in zip(keys, phases, strict=True):
            if phase.trainable is not None:
                yield f"{key}.trainable", trainable_part(phase.trainable)


def _taps_asked_for(study: Study, name: str) -> Iterator[tuple[str, str]]:
    """The taps that dumps and losses ask of a network, each with the key that says so."""
    for dump, spec in study.dumps.items():
        if spec.of == name:
            yield from ((f"dumps.{dump}", tap) for tap in taps_of_dump(spec.field, spec.options))
    if name in study.students:
        for term in study.students[name].terms():
            yield from ((f"students.{name}: loss {term.loss}", tap) for tap in term_taps(term.loss, term.options))
