"""What the dump commands share: from a configured dump to a sealed cache."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pipeline.cache import Format
from pipeline.datasets.record import load
from pipeline.device import resolve
from pipeline.dumps.run import dump as compute
from pipeline.errors import InputError
from pipeline.layout import Layout
from pipeline.sections import Study
from pipeline.teacher import load_teacher
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
    dataset = load(layout.prepared(str(spec.dataset)))
    folder, fix = network_folder(layout, study, spec.of, spec.of_seed)
    manifest = compute(
        load_teacher(folder, resolve(device), fix),
        dataset,
        layout.cache(dump),
        layout.work(stage),
        field=field,
        options=spec.options,
        store=cast("Format", spec.format),
        batch=spec.batch,
        samples=spec.samples,
    )
    size = sum(info.bytes for info in manifest.files.values())
    return f"{dump}: {manifest.rows} samples, {len(manifest.files)} files, {size:,} bytes, root {manifest.root[:12]}"


def network_folder(layout: Layout, study: Study, name: str, seed: int = 0) -> tuple[Path, str]:
    """Where a teacher or a student (of one seed) lies, and the command that makes it."""
    if name in study.teachers:
        return layout.teacher(name), f"run `teachercache train-teacher {name}`"
    return layout.student(name) / f"seed-{seed}", f"run `teachercache train-student {name}`"
