"""What the dump commands share: from a configured dump to a sealed cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pipeline.cache import Format
from pipeline.cache.manifest import Manifest
from pipeline.datasets.record import Dataset, load
from pipeline.device import resolve
from pipeline.dumps.field import Field, decisive
from pipeline.dumps.run import dump as compute
from pipeline.dumps.run import plan_field
from pipeline.errors import InputError
from pipeline.layout import Layout
from pipeline.sections import DumpParams, Study
from pipeline.teacher import Teacher, load_teacher
from stages.cli import named


def run_dump(study: Study, dump: str, field: str, device: str) -> str:
    """Compute one configured dump; returns a line that says what was made.

    Raises:
        InputError: no such dump, one of another field, or whatever the library refuses.
    """
    spec = named(study.dumps, "dumps", dump)
    if spec.field != field:
        raise InputError(
            f"dump {dump!r}",
            expected=f"field {field}",
            found=spec.field,
            fix=f"run `teachercache dump-{spec.field} {dump}`",
        )
    layout, stage = Layout(Path()), f"dump-{field}-{dump}"
    teacher, dataset = teacher_and_data(study, spec, device)
    manifest = compute(
        teacher,
        dataset,
        layout.cache(dump),
        layout.work(stage),
        store=cast("Format", spec.format),
        **what(study, spec),
    )
    size = sum(info.bytes for info in manifest.files.values())
    return f"{dump}: {manifest.rows} samples, {len(manifest.files)} files, {size:,} bytes, root {manifest.root[:12]}"


def what(study: Study, spec: DumpParams) -> dict[str, Any]:
    """What a configured dump computes, as the library takes it."""
    return {
        "field": spec.field,
        "options": spec.options,
        "batch": spec.batch,
        "samples": spec.samples,
        "views": study.views.views(),
    }


def teacher_and_data(study: Study, spec: DumpParams, device: str) -> tuple[Teacher, Dataset]:
    """The trained network that a dump asks, and the data set that it asks about."""
    layout = Layout(Path())
    dataset = load(layout.prepared(str(spec.dataset)), resident=False)
    folder, fix = network_folder(layout, study, spec.of, spec.of_seed)
    return load_teacher(folder, resolve(device), fix), dataset


def field_of_manifest(study: Study, manifest: Manifest, device: str) -> Field:
    """The field whose dump a cache is, ready to compute its blocks again.

    Raises:
        InputError: the study has no such dump, or its teacher and data have changed since.
    """
    for name, spec in study.dumps.items():
        ours = spec.field, spec.of, decisive(spec.options), spec.batch, study.views.views().parameters
        its = manifest.field.name, manifest.teacher.name, manifest.field.parameters, manifest.batch
        if ours == (*its, manifest.views.model_dump()):
            teacher, dataset = teacher_and_data(study, spec, device)
            fingerprint, weights = dataset.fingerprint, teacher.card["weights_sha256"]
            if (fingerprint, weights) == (manifest.dataset.fingerprint, manifest.teacher.weights_sha256):
                return plan_field(teacher, dataset, name, **what(study, spec))
    raise InputError(
        "params.yaml",
        expected=f"the dump of {manifest.field.name} of {manifest.teacher.name!r} that made this cache",
        found="none with this teacher and these data",
        fix="run it in the study that made it, or dump again",
    )


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
        return layout.teacher(name), f"run `teachercache train-teacher {name}`"
    return layout.student(name) / f"seed-{seed}", f"run `teachercache train-student {name}`"
