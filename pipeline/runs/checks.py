"""Whether a network has what the study asks of it, known before any time is spent on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.hooks import list_taps
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.study.sections import Study, describe_model
from pipeline.training.trainable_part import TrainablePart


def build_and_check(
    study: Study,
    name: str,
    dataset: Dataset,
    taps: Iterable[tuple[str, str]] = (),
    parts: Iterable[tuple[str, TrainablePart]] = (),
) -> Network:
    """A teacher's or student's network with weights of no meaning, on the CPU, and with all that is asked of it.

    Args:
        study: with the network.
        name: of the teacher or student.
        dataset: whose images it takes.
        taps: that it must have beside those which dumps read, each with the key of params.yaml that asks.
        parts: that it must have, likewise.

    Raises:
        InputError: it cannot be built, or lacks a part that a dump, a loss or a phase names.
    """
    section = "students" if name in study.students else "teachers"
    params = study.students[name] if name in study.students else study.teachers[name]
    try:
        network = build_network(describe_model(params), dataset.shape, len(dataset.classes), files=False).eval()
    except InputError as error:
        raise InputError(f"{study.file}: {section}.{name}: {error}") from None
    images = torch.zeros((2, *dataset.shape), dtype=torch.uint8)
    _refuse_missing_taps(study, network, images, [*_dumped_taps(study, name), *taps])
    _refuse_missing_parts(study, network, images, parts)
    return network


@torch.no_grad()
def _refuse_missing_taps(study: Study, network: Network, images: torch.Tensor, taps: Iterable[tuple[str, str]]) -> None:
    for key, tap in taps:
        try:
            network.forward_with_taps(images, [tap])
        except InputError as error:
            raise InputError(f"{study.file}: {key}: {error}") from None


@torch.no_grad()
def _refuse_missing_parts(
    study: Study, network: Network, images: torch.Tensor, parts: Iterable[tuple[str, TrainablePart]]
) -> None:
    for key, part in parts:
        try:
            part.parameter_names(network, images)
        except InputError as error:
            raise InputError(f"{study.file}: {key}: {error}") from None


def _dumped_taps(study: Study, name: str) -> Iterator[tuple[str, str]]:
    """The taps that dumps read of a network, each with the key that says so."""
    for dump, spec in study.dumps.items():
        if spec.of == name:
            yield from ((f"dumps.{dump}", tap) for tap in list_taps(spec.field, spec.options))
