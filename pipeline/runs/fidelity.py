"""A student and its teacher -> what each compact form of the logits costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes, write_json
from pipeline.base.progress import track
from pipeline.base.seeds import derive_seed
from pipeline.cache.blocks import Block
from pipeline.datasets.dataset import load_dataset
from pipeline.dumps.dump_fields import make_field, select_samples
from pipeline.dumps.logits import refuse_all_classes
from pipeline.dumps.one_pass import make_block_function
from pipeline.fields.rows import CachedRows
from pipeline.report.fidelity import Encoding, SeedAccuracies, describe_doubts, format_comparison
from pipeline.report.fidelity import compare_encodings as compare_in_turn
from pipeline.runs.dumps import load_teacher_and_data
from pipeline.runs.recipes import build_recipe
from pipeline.runs.result import Result
from pipeline.runs.seeds import doubtful_networks
from pipeline.runs.stage_work import find_entry, in_study_folder
from pipeline.runs.training import show_epochs, training_options
from pipeline.student import train_cohort
from pipeline.student_phase import Phase, StudentRun
from pipeline.study.layout import Layout
from pipeline.study.part_sections import TermParams
from pipeline.study.sections import StudentParams, Study, describe_model
from pipeline.training.network_trainer import History
from pipeline.training.rows import load_splits


@in_study_folder
def compare_encodings(
    study: Study,
    student: str,
    top_k: Sequence[int] = (),
    device: str = "auto",
    *,
    memory: str | int | None = None,
) -> Result:
    """Train a student from float32, float16, bfloat16 and top-k logits, and compare bytes, KL and accuracy.

    Args:
        study: with the student.
        student: whose one loss that reads a dump is soft_targets.
        top_k: numbers of classes to keep.
        device: where networks run.
        memory: how much of the images may lie there, as `--memory`; no result depends on it.

    Raises:
        InputError: another student, or a `top_k` that is not below the number of classes.
    """
    spec, where = find_entry(study.students, "students", student, study.file), resolve_device(device)
    term = _find_soft_targets(student, spec)
    (dump,) = term.dumps
    exact, teacher, doubts = _compute_exact(study, dump, where)
    for k in top_k:
        refuse_all_classes(k, exact.shape[2], teacher)
    rows = compare_in_turn(
        exact,
        [Encoding("float16"), Encoding("bfloat16"), *(Encoding("float16", k) for k in top_k)],
        temperature=term.options["temperature"],
        teacher=teacher,
        train=partial(_train, study, student, device=where, memory=memory),
    )
    of_student = describe_doubts(rows)
    doubts += [f"student {student!r} {of_student}"] if of_student else []
    values, page = {"student": student, "dump": dump, "rows": rows}, format_comparison(rows, doubts)
    folder = Layout(Path()).fidelity(student)
    write_json(folder / "fidelity.json", values)
    write_bytes(folder / "fidelity.md", page.encode())
    return Result(
        values,
        text=(*page.splitlines(), "", f"{folder / 'fidelity.md'}"),
        warnings=tuple(f"{doubt}; what the table compares means little" for doubt in doubts),
    )


def _find_soft_targets(student: str, spec: StudentParams) -> TermParams:
    """The student's only term that reads a dump, of loss soft_targets."""
    for key in ("pretrain", "init", "trainable"):
        if getattr(spec, key):
            raise _refuse(student, "one phase, all of it, from fresh weights", key)
    reading = [term for term in spec.terms() if term.dumps]
    losses = [term.loss for term in reading]
    if losses != ["soft_targets"]:
        raise _refuse(student, "soft_targets as the only loss that reads a dump", ", ".join(losses) or "none")
    if spec.peers > 1:
        raise InputError(f"student {student!r}", expected="one without peers", found=f"{spec.peers} peers")
    return reading[0]


def _refuse(student: str, expected: str, found: str) -> InputError:
    return InputError(f"student {student!r}", expected=expected, found=found, fix="name another student")


def _compute_exact(study: Study, dump: str, device: torch.device) -> tuple[NDArray[np.float32], str, list[str]]:
    """A teacher's float32 logits (views, samples, classes), whatever the configured dump keeps; its name; any doubt."""
    spec = study.dumps[dump]
    teacher, dataset = load_teacher_and_data(study, spec, device)
    options = {**spec.options, "dtype": "float32", "top_k": None, "temperature": None}
    seen = select_samples(dataset, batch=spec.batch, samples=spec.samples, views=study.views.views())
    compute = make_block_function(teacher, seen, make_field(teacher, seen, spec.field, options))
    doubts = [f"teacher {spec.of!r} {teacher.card['doubt']}"] if "doubt" in teacher.card else []
    views = track(range(study.views.count), f"logits of {spec.of}", study.views.count)
    return np.stack([compute(Block(view, 0, 0, seen.rows))["logits"] for view in views]), spec.of, doubts


def _train(
    study: Study, student: str, targets: Mapping[str, Tensor], *, device: torch.device, memory: str | int | None
) -> SeedAccuracies:
    """What each seed of a student reaches that is taught by these arrays."""
    spec = study.students[student]
    dataset = load_dataset(Layout(Path()).prepared(str(spec.dataset)), resident=False)
    splits = load_splits(dataset, spec.batch_size, device, memory)
    options = training_options(spec)
    recipe = build_recipe(spec, options.count_epochs(len(splits.train)))
    rows = CachedRows({name: values.to(device) for name, values in targets.items()})
    epochs = [[options.count_epochs(len(splits.train))]] * spec.seeds
    with show_epochs(f"student {student}", epochs, [[[_ignore_history]]] * spec.seeds) as watches:
        runs = [
            StudentRun(
                describe_model(spec),
                [Phase(recipe, options, watch)],
                derive_seed(study.seed, "student", seed),
                f"student {student!r}, seed {seed}",
            )
            for seed, (watch,) in enumerate(watches)
        ]
        trained = train_cohort(splits, dict.fromkeys(recipe.dumps, rows), runs, views=study.views.views())
    made = SeedAccuracies([run.accuracy(spec.select) for (run,) in trained])
    for seed, run in enumerate(trained):
        made.doubts.update(doubtful_networks(run, seed, spec, splits.test, dataset.classes))
    return made


def _ignore_history(history: History) -> None:
    """Do nothing: what an encoding costs is told by accuracies alone."""
