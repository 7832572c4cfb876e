"""A trained network -> data/cache/<dump>: one dump, or all of a network's in one pass."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch

from pipeline.base.device import collect_nondeterministic, describe_device, refuse_tf32, resolve_device
from pipeline.base.errors import InputError
from pipeline.base.ranks import find_ranks
from pipeline.base.registry import describe_unknown
from pipeline.cache import Format
from pipeline.cache.manifest import ComputedInfo, Manifest, SharingInfo
from pipeline.datasets.dataset import Dataset, load_dataset
from pipeline.dumps import FIELDS
from pipeline.dumps.dump_fields import DumpRequest, Scope, dump_fields, dump_part, make_field, select_samples
from pipeline.dumps.field import Field
from pipeline.dumps.parts import Part
from pipeline.runs.networks import find_network
from pipeline.runs.result import Result
from pipeline.runs.stage_work import find_entry, in_study_folder, record_seconds
from pipeline.study.dump_stages import find_dump_stage, group_dumps, name_dump_work
from pipeline.study.layout import Layout
from pipeline.study.part_sections import DumpParams
from pipeline.study.sections import Study
from pipeline.teacher import Samples, Teacher, TeacherLike, load_teacher

LOG = logging.getLogger(__name__)


@in_study_folder
def make_dump(study: Study, name: str, field: str | None = None, device: str = "auto") -> Result:
    """Compute one configured dump.

    Args:
        study: with the dump.
        name: its name.
        field: that it is expected to be of; None for any.
        device: where the network runs.

    Raises:
        InputError: no such dump, one of another field, or whatever the library refuses.
    """
    if field is not None and field not in FIELDS.entries:
        raise InputError(describe_unknown("field", field, FIELDS.entries))
    spec = find_entry(study.dumps, "dumps", name, study.file)
    if field not in (None, spec.field):
        raise InputError(
            f"dump {name!r}",
            expected=f"field {field}",
            found=spec.field,
            fix=f"run `teachercache dump-{spec.field} {name}`",
        )
    where = resolve_device(device)
    with record_seconds(name_dump_work(study, name), describe_device(where)):
        return _dump_together(study, [name], where)


@in_study_folder
def make_dumps(
    study: Study,
    network: str,
    device: str = "auto",
    *,
    dumps: Sequence[str] = (),
    part: Part | None = None,
    show: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Compute configured dumps of a network in a single forward pass, the same bytes as one by one.

    Args:
        study: with the dumps.
        network: a teacher's or a student's name.
        device: where it runs.
        dumps: which of its dumps; all unless given.
        part: of each, as a folder beside its cache that `merge_parts` takes; None: the whole.
        show: is given each pass's result as it is there, and at last what DVC is to be told of them.

    Raises:
        InputError: no such network, none of its dumps is configured, or one that is named is not its.
    """
    wanted, done, made = _select_dumps(study, network, dumps), list[str](), list[Result]()
    passes, where = group_dumps(study, wanted), resolve_device(device)
    try:
        stage = find_dump_stage(study, wanted[0]).name if dumps else f"dump-{network}"
        with record_seconds(stage, describe_device(where)):
            for names in passes:
                made.append(_dump_together(study, names, where, part))
                show(made[-1])
                done += names if part is None else ()
    finally:
        if done and Layout(Path()).is_under_dvc and "DVC_STAGE" not in os.environ:
            stages = " ".join(dict.fromkeys(find_dump_stage(study, name).name for name in done))
            show(Result(text=("DVC takes these for its own once you run:", f"dvc commit -f {stages}")))
    return made


def _select_dumps(study: Study, network: str, dumps: Sequence[str]) -> list[str]:
    """The network's dumps, or those of them that are named; at least one."""
    find_entry({**study.teachers, **study.students}, "teachers and students", network, study.file)
    its = [name for name, spec in study.dumps.items() if spec.of == network]
    for name in dumps:
        if find_entry(study.dumps, "dumps", name, study.file).of != network:
            raise InputError(f"dump {name!r}", expected=f"one of {network!r}", found=f"one of {study.dumps[name].of!r}")
    if not its:
        raise InputError(
            f"{study.file}: dumps: of {network!r}",
            expected="at least one",
            found="none",
            fix=f"add one, such as {network}-logits: {{field: logits, of: {network}}}",
        )
    return list(dict.fromkeys(dumps)) or its


def _dump_together(study: Study, names: Sequence[str], device: torch.device, part: Part | None = None) -> Result:
    """Compute dumps of one network on the same samples in one pass, or one part of each."""
    spec = study.dumps[names[0]]
    teacher, dataset = load_teacher_and_data(study, spec, device)
    if "doubt" in teacher.card:  # before hours are spent on it
        LOG.warning("%r, dumped as %s, %s", spec.of, ", ".join(names), teacher.card["doubt"])
    wanted = [wanted_cache(study, name) for name in names]
    computed = ComputedInfo(device=describe_device(teacher.device), **spec.forward.model_dump())
    scope: Scope = {
        "batch": spec.batch,
        "samples": spec.samples,
        "views": study.views.views(),
        "computed": computed,
        "sharing": SharingInfo.from_terms(study.sharing.model_dump()),
    }
    with collect_nondeterministic():
        if part is not None:
            if find_ranks().are_several:
                raise InputError("--part", expected="one process", found="several", fix="leave it out under torchrun")
            places = [Layout(Path()).part(name, str(part)) for name in names]
            folders = dump_part(teacher, dataset, wanted, part, places, **scope)
            return Result(text=tuple(f"{folder}: part {part.number} of {part.count}" for folder in folders))
        made = dump_fields(teacher, dataset, wanted, ranks=find_ranks(), **scope)
    return Result(
        {name: manifest.root for name, manifest in zip(names, made, strict=True)},
        text=tuple(_summary(name, manifest) for name, manifest in zip(names, made, strict=True)),
    )


def _summary(name: str, manifest: Manifest) -> str:
    size = sum(info.bytes for info in manifest.files.values())
    rows = f"{manifest.rows} {'samples' if manifest.unit == 'sample' else 'batches'}"
    return f"{name}: {rows}, {len(manifest.files)} files, {size:,} bytes, root {manifest.root[:12]}"


def wanted_cache(study: Study, name: str) -> DumpRequest:
    """The cache that a configured dump is to make."""
    spec, layout = study.dumps[name], Layout(Path())
    work = layout.work(name_dump_work(study, name))
    store = cast("Format", spec.format)
    return DumpRequest(layout.cache(name), work, spec.field, spec.options, store, spec.chunk_kib)


def plan_dump(spec: DumpParams, study: Study, teacher: TeacherLike, dataset: Dataset) -> tuple[Field, Samples]:
    """A configured dump, ready to be computed, and what it is of."""
    seen = select_samples(dataset, batch=spec.batch, samples=spec.samples, views=study.views.views())
    return make_field(teacher, seen, spec.field, spec.options), seen


def load_teacher_and_data(study: Study, spec: DumpParams, device: torch.device) -> tuple[Teacher, Dataset]:
    """The trained network that a dump asks, and the data set that it asks about."""
    dataset = load_dataset(Layout(Path()).prepared(str(spec.dataset)), resident=False)
    folder, fix = find_network(study, spec.of, spec.of_seed)
    teacher = load_teacher(folder, device, fix)
    refuse_tf32(spec.forward.precision, device, f"dump of {spec.of!r}")
    teacher.network.compute_in(**spec.forward.model_dump())
    return teacher, dataset
