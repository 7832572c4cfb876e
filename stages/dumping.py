"""What the dump commands share: from configured dumps to sealed caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.base.expectations import ANYTHING, differences
from pipeline.cache import Format
from pipeline.cache.block_files import Compute
from pipeline.cache.manifest import Manifest
from pipeline.datasets.record import Dataset, load
from pipeline.dumps import derived_parameters
from pipeline.dumps.field import Field, decisive
from pipeline.dumps.one_pass import computing
from pipeline.dumps.run import Wanted, dump, plan_field, seen_samples
from pipeline.study.layout import Layout
from pipeline.study.parts import DumpParams
from pipeline.study.sections import Study
from pipeline.teacher import Samples, Teacher, TeacherLike, load_teacher
from stages.cli import named, warn


def run_dump(study: Study, name: str, field: str, device: str) -> str:
    """Compute one configured dump; returns a line that says what was made.

    Raises:
        InputError: no such dump, one of another field, or whatever the library refuses.
    """
    spec = named(study.dumps, "dumps", name, study.file)
    if spec.field != field:
        raise InputError(
            f"dump {name!r}",
            expected=f"field {field}",
            found=spec.field,
            fix=f"run `teachercache dump-{spec.field} {name}`",
        )
    return run_dumps(study, [name], device)[0]


def run_dumps(study: Study, names: Sequence[str], device: str) -> list[str]:
    """Compute dumps of one network on the same samples in one pass; returns a line for each."""
    spec = study.dumps[names[0]]
    teacher, dataset = teacher_and_data(study, spec, device)
    if "doubt" in teacher.card:
        warn(f"{spec.of!r}, dumped as {', '.join(names)}, {teacher.card['doubt']}")
    asked = [wanted(study, name) for name in names]
    made = dump(teacher, dataset, asked, batch=spec.batch, samples=spec.samples, views=study.views.views())
    return [_line(name, manifest) for name, manifest in zip(names, made, strict=True)]


def wanted(study: Study, name: str) -> Wanted:
    """The cache that a configured dump is to make."""
    spec, layout = study.dumps[name], Layout(Path())
    work = layout.work(stage_of(study, name))
    return Wanted(layout.cache(name), work, spec.field, spec.options, cast("Format", spec.format))


def _line(name: str, manifest: Manifest) -> str:
    size = sum(info.bytes for info in manifest.files.values())
    rows = f"{manifest.rows} {'samples' if manifest.unit == 'sample' else 'batches'}"
    return f"{name}: {rows}, {len(manifest.files)} files, {size:,} bytes, root {manifest.root[:12]}"


def stage_of(study: Study, name: str) -> str:
    """The stage in dvc.yaml that makes a dump."""
    return f"dump-{study.dumps[name].field}-{name}"


def planned(spec: DumpParams, study: Study, teacher: TeacherLike, dataset: Dataset) -> tuple[Field, Samples]:
    """A configured dump, ready to be computed, and what it is of."""
    seen = seen_samples(dataset, batch=spec.batch, samples=spec.samples, views=study.views.views())
    return plan_field(teacher, seen, spec.field, spec.options), seen


def teacher_and_data(study: Study, spec: DumpParams, device: str) -> tuple[Teacher, Dataset]:
    """The trained network that a dump asks, and the data set that it asks about."""
    layout = Layout(Path())
    dataset = load(layout.prepared(str(spec.dataset)), resident=False)
    folder, fix = network_folder(layout, study, spec.of, spec.of_seed)
    return load_teacher(folder, resolve_device(device), fix), dataset


def compute_of_manifest(study: Study, manifest: Manifest, device: str) -> Compute:
    """What computes the blocks of a cache again.

    Raises:
        InputError: the study has no such dump, or its teacher and data have changed since.
    """
    for spec in study.dumps.values():
        if _is_of(study, spec, manifest):
            teacher, dataset = teacher_and_data(study, spec, device)
            fingerprint, weights = dataset.fingerprint, teacher.card["weights_sha256"]
            if (fingerprint, weights) == (manifest.dataset.fingerprint, manifest.teacher.weights_sha256):
                field, seen = planned(spec, study, teacher, dataset)
                return computing(teacher, seen, field)
    raise InputError(
        study.file,
        expected=f"the dump of {manifest.field.name} of {manifest.teacher.name!r} that made this cache",
        found="none with this teacher and these data",
        fix="run it in the study that made it, or dump again",
    )


def _is_of(study: Study, spec: DumpParams, manifest: Manifest) -> bool:
    """Whether a configured dump is the one that made a cache, teacher and data apart."""
    ours = spec.field, spec.of, spec.batch, study.views.views().parameters
    its = manifest.field.name, manifest.teacher.name, manifest.batch, manifest.views.model_dump()
    if ours != its:
        return False
    expected = {**decisive(spec.options), **dict.fromkeys(derived_parameters(spec.field), ANYTHING)}
    return not list(differences(expected, manifest.field.parameters))


def network_folder(layout: Layout, study: Study, name: str, seed: int = 0) -> tuple[Path, str]:
    """Where a teacher or a student (of one seed) lies, and the command that makes it.

    Raises:
        InputError: an external teacher, which lies nowhere.
    """
    if name in study.teachers and study.teachers[name].external is not None:
        raise InputError(
            f"teacher {name!r}",
            expected="one that can be run",
            found="an external one",
            fix="seal its outputs with `teachercache cache create`",
        )
    if name in study.teachers:
        return layout.teacher(name), layout.how_to_make(f"train-teacher-{name}", f"train-teacher {name}")
    return layout.network(name, seed), layout.how_to_make(f"train-student-{name}", f"train-student {name}")
