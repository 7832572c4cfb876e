"""A student and its teacher -> what each compact form of the logits costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import cli

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.report.fidelity import SeedAccuracies
    from pipeline.study.parts import TermParams
    from pipeline.study.sections import StudentParams, Study


def fidelity(
    student: Annotated[str, typer.Argument(help="A student whose loss is soft_targets, alone or with others.")],
    top_k: Annotated[
        list[int] | None, typer.Option("--top-k", min=1, help="Also keep only k classes; repeatable.")
    ] = None,
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Train a student from float32, float16, bfloat16 and top-k logits, and compare bytes, KL and accuracy."""
    study = cli.open_study(params)
    from pipeline.base.device import resolve_device
    from pipeline.base.files import write_bytes, write_json
    from pipeline.dumps.logits import refuse_all_classes
    from pipeline.report import fidelity as room
    from pipeline.runs.stage import find_entry
    from pipeline.study.layout import Layout

    spec, where = find_entry(study.students, "students", student, study.file), resolve_device(device)
    term = _soft_targets(student, spec)
    (dump,) = term.dumps
    exact, teacher, doubts = _exact(study, dump, device)
    for k in top_k or ():
        refuse_all_classes(k, exact.shape[2], teacher)
    encodings = [
        room.Encoding("float16"),
        room.Encoding("bfloat16"),
        *(room.Encoding("float16", k) for k in top_k or ()),
    ]
    rows = room.compare_encodings(
        exact,
        encodings,
        temperature=term.options["temperature"],
        teacher=teacher,
        train=lambda targets: _reached(study, student, targets, where),
    )
    of_student = room.describe_doubts(rows)
    doubts += [f"student {student!r} {of_student}"] if of_student else []
    folder = Layout(Path()).fidelity(student)
    write_json(folder / "fidelity.json", {"student": student, "dump": dump, "rows": rows})
    page = room.format_comparison(rows, doubts)
    write_bytes(folder / "fidelity.md", page.encode())
    for doubt in doubts:
        cli.warn(f"{doubt}; what the table compares means little")
    typer.echo(page + f"\n{folder / 'fidelity.md'}")


def _soft_targets(student: str, spec: StudentParams) -> TermParams:
    from pipeline.base.errors import InputError

    for key in ("pretrain", "init", "trainable"):
        if getattr(spec, key):
            raise InputError(
                f"student {student!r}",
                expected="one phase, all of it, from fresh weights",
                found=key,
                fix="name another student",
            )
    reading = [term for term in spec.terms() if term.dumps]
    losses = [term.loss for term in reading]
    if losses != ["soft_targets"]:
        raise InputError(
            f"student {student!r}",
            expected="soft_targets as the only loss that reads a dump",
            found=", ".join(losses) or "none",
            fix="name another student",
        )
    if spec.peers > 1:
        raise InputError(f"student {student!r}", expected="one without peers", found=f"{spec.peers} peers")
    return reading[0]


def _exact(study: Study, dump: str, device: str) -> tuple[Any, str, list[str]]:
    """A teacher's float32 logits (views, samples, classes), whatever the configured dump keeps; its name; any doubt."""
    import numpy as np

    from pipeline.base.progress import track
    from pipeline.cache.blocks import Block
    from pipeline.dumps.dump_fields import make_field, select_samples
    from pipeline.dumps.one_pass import make_block_function
    from pipeline.runs.dumps import load_teacher_and_data

    spec = study.dumps[dump]
    teacher, dataset = load_teacher_and_data(study, spec, device)
    options = {**spec.options, "dtype": "float32", "top_k": None, "temperature": None}
    seen = select_samples(dataset, batch=spec.batch, samples=spec.samples, views=study.views.views())
    compute = make_block_function(teacher, seen, make_field(teacher, seen, spec.field, options))
    doubts = [f"teacher {spec.of!r} {teacher.card['doubt']}"] if "doubt" in teacher.card else []
    views = track(range(study.views.count), f"logits of {spec.of}", study.views.count)
    return np.stack([compute(Block(view, 0, 0, seen.rows))["logits"] for view in views]), spec.of, doubts


def _reached(study: Study, student: str, targets: Mapping[str, Tensor], device: torch.device) -> SeedAccuracies:
    """What each seed of a student reaches that is taught by these arrays."""
    from pipeline.base.progress import track
    from pipeline.base.seeds import derive_seed
    from pipeline.datasets.dataset import load_dataset
    from pipeline.fields.rows import CachedRows
    from pipeline.report.fidelity import SeedAccuracies
    from pipeline.runs.recipes import build_recipe
    from pipeline.runs.seeds import doubtful_networks
    from pipeline.runs.training import training_options
    from pipeline.student import train_student
    from pipeline.study.layout import Layout
    from pipeline.study.sections import describe_model
    from pipeline.training.rows import Splits

    spec = study.students[student]
    dataset, how = load_dataset(Layout(Path()).prepared(str(spec.dataset))), training_options(spec)
    splits = Splits.from_dataset(dataset, device)
    loss = build_recipe(spec, how.count_epochs(len(splits.train)))
    rows = CachedRows({name: values.to(device) for name, values in targets.items()})
    runs = (
        train_student(
            splits,
            dict.fromkeys(loss.dumps, rows),
            loss,
            model=describe_model(spec),
            options=how,
            seed=derive_seed(study.seed, "student", number),
            what=f"student {student!r}, seed {number}",
            views=study.views.views(),
        )
        for number in range(spec.seeds)
    )
    made = SeedAccuracies([])
    for number, run in enumerate(track(runs, f"student {student}", spec.seeds)):
        made.accuracies.append(run.accuracy(spec.select))
        made.doubts.update(doubtful_networks([run], number, spec, splits.test, dataset.classes))
    return made


if __name__ == "__main__":
    cli.main(fidelity)
