"""Whether a network has what the study asks of it, known before any time is spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from pipeline.base.errors import InputError
from pipeline.cache import Cache
from pipeline.datasets.record import Dataset
from pipeline.dumps import needs_head, taps_of
from pipeline.losses import term_taps
from pipeline.models.build import build_network
from pipeline.models.heads import CHANNELS
from pipeline.models.network import Network
from pipeline.study.sections import Study, describe_model
from pipeline.training.trainable import TrainablePart
from stages.run import trainable_part


def built(study: Study, name: str, dataset: Dataset) -> Network:
    """A teacher's or student's network with weights of no meaning, on the CPU."""
    section, params = (
        ("students", study.students[name]) if name in study.students else ("teachers", study.teachers[name])
    )
    try:
        return build_network(describe_model(params), dataset.shape, len(dataset.classes), files=False).eval()
    except InputError as error:
        raise InputError(f"{study.file}: {section}.{name}: {error}") from None


@torch.no_grad()
def refuse_missing_taps(study: Study, name: str, network: Network, dataset: Dataset) -> None:
    """Raise InputError where a dump, a loss or a phase names a part that a teacher or student does not have."""
    for key, tap in _required_taps(study, name):
        try:
            network.tapped(torch.zeros((2, *dataset.shape), dtype=torch.uint8), [tap])
        except InputError as error:
            raise InputError(f"{study.file}: {key}: {error}") from None
    for key, part in _trainable_parts(study, name):
        try:
            part.parameter_names(network, torch.zeros((2, *dataset.shape), dtype=torch.uint8))
        except InputError as error:
            raise InputError(f"{study.file}: {key}: {error}") from None


def _trainable_parts(study: Study, name: str) -> Iterator[tuple[str, TrainablePart]]:
    """The parts of a student that its phases train, each with the key that says so."""
    if name in study.students:
        phases, own = study.students[name].phases, f"students.{name}"
        keys = [*(f"{own}.pretrain.{number}" for number in range(len(phases) - 1)), own]
        for key, phase in zip(keys, phases, strict=True):
            if phase.trains is not None:
                yield f"{key}.trains", trainable_part(phase.trains)


def _required_taps(study: Study, name: str) -> Iterator[tuple[str, str]]:
    """The taps that are asked of a network, each with the key that says so."""
    for dump, spec in study.dumps.items():
        if spec.of == name:
            yield from ((f"dumps.{dump}", tap) for tap in taps_of(spec.field, spec.options))
    if name in study.students:
        for term in study.students[name].terms():
            yield from ((f"students.{name}: loss {term.loss}", tap) for tap in term_taps(term.loss, term.options))


@torch.no_grad()
def refuse_other_channels(network: Network, caches: Mapping[str, Cache], dataset: Dataset) -> None:
    """Raise InputError unless a student has as many channels a class as the channel labels that it learns.

    Rows of equally many bytes may hold other numbers of channels, so the bytes alone do not tell.
    """
    learnt = {name: each.manifest.field for name, each in caches.items() if needs_head(each.manifest.field.name)}
    if not learnt:
        return
    scores = network.tapped(torch.zeros((2, *dataset.shape), dtype=torch.uint8), [CHANNELS])[1][CHANNELS]
    for name, field in learnt.items():
        if field.parameters["channels"] != scores.shape[2]:
            raise InputError(
                f"dump {name!r}",
                expected=f"{scores.shape[2]} channels a class, as the student has",
                found=str(field.parameters["channels"]),
                fix="give both as many: `head: {channel_outputs: {channels: K}}`",
            )
