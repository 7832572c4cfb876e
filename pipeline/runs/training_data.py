"""What a training reads, on its device or streamed to it: as much on the device as its memory has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from pipeline.base.errors import InputError
from pipeline.base.memory import find_budget, format_size
from pipeline.cache import Cache
from pipeline.datasets.dataset import Dataset
from pipeline.fields import load_field, measure_field
from pipeline.losses.hooks import prepared_factory
from pipeline.student import CachedField
from pipeline.study.sections import PhaseParams
from pipeline.training.memory import plan_memory
from pipeline.training.rows import Splits, measure_images

FLOAT_BYTES = 4


def load_training_data(
    dataset: Dataset,
    caches: Mapping[str, Cache],
    phases: Sequence[PhaseParams],
    device: torch.device,
    memory: str | int | None,
) -> tuple[Splits, dict[str, CachedField]]:
    """The data set's splits, and by dump its cached field; nothing that is trained depends on where they lie.

    Args:
        dataset: opened with `resident=False`.
        caches: by dump.
        phases: of the training.
        device: where it happens.
        memory: see `base.memory.find_budget`.

    Raises:
        InputError: too little memory for one batch, or for what a loss reads whole; or a field's numbers are wrong.
    """
    budget, batch_size = find_budget(memory, device), max(phase.batch_size for phase in phases)
    images = measure_images(dataset, batch_size)
    fields = {dump: measure_field(dump, cache, batch_size) for dump, cache in caches.items()}
    streamed = plan_memory([images, *fields.values()], budget)
    _refuse_whole_reads(phases, {dump: caches[dump] for dump, field in fields.items() if field in streamed}, budget)
    targets: dict[str, CachedField] = {
        dump: load_field(caches[dump], device, streamed=field in streamed) for dump, field in fields.items()
    }
    return Splits.from_dataset(dataset, device, streamed=images in streamed), targets


def _refuse_whole_reads(phases: Sequence[PhaseParams], streamed: Mapping[str, Cache], budget: int) -> None:
    """Raise InputError where a loss reads whole, before the first step, what does not fit."""
    terms = [term for phase in phases for term in phase.losses.values()]
    for term in terms:
        arrays = [info for dump in term.dumps if dump in streamed for info in streamed[dump].manifest.arrays.values()]
        needed = sum(math.prod(info.shape) * FLOAT_BYTES for info in arrays)
        if prepared_factory(term.loss) and needed > budget:
            raise InputError(
                "--memory",
                expected=f"at least {format_size(needed)}: loss {term.loss} reads {', '.join(term.dumps)} whole",
                found=format_size(budget),
                fix="give it more, or dump fewer views or samples",
            )
