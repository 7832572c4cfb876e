"""What a training reads, on its device or streamed to it: as much on the device as its memory has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pipeline.base.errors import InputError
from pipeline.base.memory import find_budget
from pipeline.base.sizes import format_size
from pipeline.cache import Cache
from pipeline.cache.manifest import ArrayInfo
from pipeline.datasets.dataset import Dataset
from pipeline.fields import load_field, measure_field
from pipeline.losses.hooks import prepared_factory
from pipeline.runs.training import training_options
from pipeline.student_phase import CachedField
from pipeline.study.sections import PhaseParams
from pipeline.training.memory import count_held, plan_memory
from pipeline.training.rows import Splits, measure_images
from pipeline.training.sample_order import shuffle_samples
from pipeline.views.view import Views

FLOAT_BYTES = 4


def load_training_data(
    dataset: Dataset,
    caches: Mapping[str, Cache],
    phases: Sequence[PhaseParams],
    device: torch.device,
    *,
    memory: str | int | None,
    views: Views,
) -> tuple[Splits, dict[str, CachedField]]:
    """The data set's splits, and by dump its cached field; nothing that is trained depends on where they lie.

    Args:
        dataset: opened with `resident=False`.
        caches: by dump.
        phases: of the training.
        device: where it happens.
        memory: see `base.memory.find_budget`.
        views: that the training shows.

    Raises:
        InputError: too little memory for one batch, for what a loss reads whole, or for the chunks of a compressed
            field that the order of the samples needs at hand; or a field's numbers are wrong.
    """
    budget, batch_size = find_budget(memory, device), max(phase.batch_size for phase in phases)
    images = measure_images(dataset, batch_size)
    fields = {dump: measure_field(dump, cache, batch_size) for dump, cache in caches.items()}
    streamed = plan_memory([images, *fields.values()], budget)
    far = {dump: caches[dump] for dump, field in fields.items() if field in streamed}
    _refuse_whole_reads(phases, far, budget)
    room = budget - count_held([images, *fields.values()], streamed)
    caches = {**caches, **_give_room(dataset, far, phases, views, room)}
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


def _give_room(
    dataset: Dataset, streamed: Mapping[str, Cache], phases: Sequence[PhaseParams], views: Views, room: int
) -> dict[str, Cache]:
    """The streamed caches with compressed arrays, each with room for the decoded chunks that a training needs at hand.

    Raises:
        InputError: there is too little: each batch would decode again what the one before it has.
    """
    given = {}
    for dump, cache in streamed.items():
        packed = [info for info in cache.manifest.arrays.values() if info.codec != "none"]
        if not packed or cache.manifest.unit != "sample":  # the batches of a plan come in its order
            continue
        readers = [phase for phase in phases if dump in phase.list_dumps()]
        needed = max(_count_decoded_bytes(phase, dataset, packed, views) for phase in readers)
        if needed > room:
            whole = format_size(sum(info.bytes for info in packed))
            raise InputError(
                f"dump {dump!r}: compressed, and its samples come in an order that needs much of it at hand",
                expected=f"--memory for {format_size(needed)} of decoded chunks",
                found=f"{format_size(max(0, room))} left for it",
                fix=f"set order: blocks, give it more memory, or dump it with codec: none ({whole})",
            )
        given[dump] = replace(cache, memory=needed, _arrays={})
        room -= needed
    return given


def _count_decoded_bytes(phase: PhaseParams, dataset: Dataset, packed: Sequence[ArrayInfo], views: Views) -> int:
    """Bytes of decoded chunks that a phase needs at hand for none to be decoded twice an epoch: so many that the share
    of each array, which its size decides, is enough.
    """
    samples, make_order = dataset.bounds[0], training_options(phase).order or shuffle_samples
    order = make_order(samples, 0)
    shown = views.count if views.order == "draw" else 1  # of each chunk, at a time
    whole = sum(info.bytes for info in packed)
    needs = (shown * order.count_chunks(each.chunk_rows) * each.chunk_rows * each.row_bytes for each in packed)
    return max(math.ceil(need * whole / info.bytes) for need, info in zip(needs, packed, strict=True))
