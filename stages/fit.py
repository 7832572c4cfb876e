"""Whether a network has what the study asks of it, known before any time is spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.cache import Cache
from pipeline.datasets.record import Dataset
from pipeline.dumps import needs_head, taps_of
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.heads import CHANNELS
from pipeline.layout import Layout
from pipeline.losses import taps_of as taps_of_loss
from pipeline.models.build import build
from pipeline.models.network import Network
from pipeline.models.saved import load_network
from pipeline.sections import StudentParams, Study, TeacherParams, model_of


def built(params: TeacherParams | StudentParams, dataset: Dataset) -> Network:
    """The network with weights of no meaning, on the CPU."""
    return build(model_of(params), dataset.shape, len(dataset.classes), files=False).eval()


@torch.no_grad()
def refuse_missing_taps(study: Study, name: str, network: Network, dataset: Dataset) -> None:
    """Raise InputError where a dump or a loss names a tap that a teacher or student does not have."""
    for key, tap in _asked(study, name):
        try:
            network.tapped(torch.zeros((2, *dataset.shape), dtype=torch.uint8), [tap])
        except InputError as error:
            raise InputError(f"params.yaml: {key}: {error}") from None


def _asked(study: Study, name: str) -> Iterator[tuple[str, str]]:
    """The taps that are asked of a network, each with the key that says so."""
    for dump, spec in study.dumps.items():
        if spec.of == name:
            yield from ((f"dumps.{dump}", tap) for tap in taps_of(spec.field, spec.options))
    if name in study.students:
        for term in study.students[name].terms():
            yield from ((f"students.{name}: loss {term.loss}", tap) for tap in taps_of_loss(term.loss, term.options))


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


def start_of(params: StudentParams) -> tuple[dict[str, Tensor] | None, dict[str, Any] | None]:
    """The weights that a student starts from, and which they are; None and None where its seed draws them.

    Raises:
        InputError: no such student is trained, or not by the run that its metrics tell of.
    """
    if params.init is None:
        return None, None
    layout, (name, seed) = Layout(Path()), (params.init.student, params.init.seed)
    fix = f"run `dvc repro train-student-{name}`"
    network, card = load_network(layout.student(name) / f"seed-{seed}", torch.device("cpu"), fix)
    metrics = layout.metrics("students", name)
    if metrics.exists():
        expected = dict(enumerate(read_json(metrics, fix, keys=("weights_sha256",))["weights_sha256"])).get(seed)
        if expected != card["weights_sha256"]:
            found = f"{card['weights_sha256'][:12]}..."
            raise InputError(f"student {name!r}, seed {seed}", expected=f"weights {expected}", found=found, fix=fix)
    return network.state_dict(), {"student": name, "seed": seed, "weights_sha256": card["weights_sha256"]}
