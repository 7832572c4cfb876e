"""From a study's sections to the plain values that the library takes, and back to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline import cache
from pipeline.base.expectations import ANYTHING, AtLeast
from pipeline.base.files import hash_file, hash_json, hold_lock, publish_output, read_json, recover_output, remove_path
from pipeline.base.progress import progress_bar
from pipeline.base.provenance import hash_code
from pipeline.cache import Cache
from pipeline.datasets.record import Dataset
from pipeline.dumps import derived_parameters, plan_of, planned_arrays, planned_rows
from pipeline.dumps.field import EXTERNAL, decisive
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import build_schedule
from pipeline.study.layout import Layout
from pipeline.study.parts import ModelParams
from pipeline.study.sections import (
    PhaseParams,
    StudentParams,
    Study,
    TeacherParams,
    TrainingParams,
    TrainsParams,
    describe_model,
)
from pipeline.training.curves import Curves
from pipeline.training.optimizers import LR_SCHEDULES, OPTIMIZERS
from pipeline.training.options import Restore, TrainingOptions
from pipeline.training.trainable import TrainablePart
from pipeline.training.trainee import History


def training_options(params: TrainingParams) -> TrainingOptions:
    """The optimiser, schedule and length of a teacher or student."""
    return TrainingOptions(
        optimizer=partial(OPTIMIZERS.function(params.optimizer.name), **params.optimizer.options),
        scheduler=partial(LR_SCHEDULES.function(params.schedule.name), **params.schedule.options),
        epochs=params.epochs,
        steps=params.steps,
        batch_size=params.batch_size,
        drop_last=params.drop_last,
        l1=params.l1,
        on_nan=None if params.on_nan is None else Restore(params.on_nan.divide, params.on_nan.at_most),
    )


def architecture(params: TeacherParams | StudentParams) -> dict[str, Any]:
    """A network's architecture as its card and its caches' manifests state it."""
    if params.model is not None:
        # Where initial weights lay says nothing about the network, and differs between machines.
        made = describe_model(params, "json", without={"weights", "new_head"})
        # Where its code is not here, nobody knows the options that params.yaml leaves out.
        return AtLeast(made) if params.model.unchecked else made
    assert isinstance(params, TeacherParams)
    if params.external is not None:
        return dict(EXTERNAL)
    return {"name": "ensemble", "members": list(params.members or ()), "average": params.average}


def file_digests(params: TeacherParams | StudentParams) -> list[str]:
    """SHA-256 of the weight files that a teacher or a model names: their bytes decide, not their names."""
    named = [params.weights] if isinstance(params, TeacherParams) else []
    named += list(params.model.options_beyond(ModelParams).values()) if params.model else []
    return [hash_file(path) for path in named if isinstance(path, Path) and path.is_file()]


def card(name: str, params: TeacherParams | StudentParams, dataset: Dataset) -> dict[str, Any]:
    """What every network's card says: enough to build it again and to know what it was trained on."""
    return {
        "name": name,
        "model": architecture(params),
        "shape": dataset.shape,
        "classes": dataset.classes,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
    }


@dataclass(frozen=True)
class Workshop:
    """A stage's folder of unfinished work.

    Attributes:
        folder: checkpoints live here; another fingerprint's are never taken up.
        out: becomes the output when the stage is done.
    """

    folder: Path
    out: Path

    def checkpoint(self, number: int = 0) -> Path:
        """Where run `number` of the stage keeps its unfinished training."""
        return self.folder / f"checkpoint-{number}.pt"


@contextmanager
def workshop(layout: Layout, stage: str, target: Path, *decides: Any) -> Iterator[Workshop]:
    """Hold the stage's lock, hand out its work folder, publish `out` as `target` at the end.

    Args:
        layout: of the study.
        stage: its name.
        target: the output.
        decides: JSON values that decide the result: unfinished work of others is thrown away.
    """
    work = layout.work(stage)
    folder = work / hash_json([hash_code(), *decides])[:16]
    with hold_lock(layout.work(f"{stage}.lock")):
        recover_output(work / "out", target)
        for stale in work.glob("*"):
            if stale != folder:
                remove_path(stale)
        (work / "out").mkdir(parents=True)
        yield Workshop(folder, work / "out")
        publish_output(work / "out", target)
        remove_path(work)


@contextmanager
def progress(title: str, *phases: tuple[int, Sequence[Curves]]) -> Iterator[list[list[Callable[[History], None]]]]:
    """For each phase (its epochs, the curves of each network) an `on_epoch` a network that logs the curves.

    All phases move one bar, by what their first network does.
    """
    with progress_bar(title, sum(epochs for epochs, _ in phases)) as bar:

        def watch(before: int, first: Curves) -> Callable[[History], None]:
            def on_epoch(history: History) -> None:
                first(history)
                accuracy = history[-1].get("validation/accuracy") if history else None
                bar(before + len(history), f"validation {accuracy:.4f}" if accuracy is not None else "")

            return on_epoch

        done = accumulate((epochs for epochs, _ in phases), initial=0)
        yield [[watch(before, first), *others] for before, (_, (first, *others)) in zip(done, phases, strict=False)]


def trainable_part(params: TrainsParams) -> TrainablePart:
    """The part that a phase trains."""
    return TrainablePart(params.up_to, params.only)


def recipe(params: PhaseParams, epochs: int) -> Recipe:
    """A phase's weighted loss terms, their schedules spread over its epochs."""
    return Recipe(
        tuple(
            Term(term.loss, build_schedule(term.weight, epochs), term.options, term.reads, label=name)
            for name, term in params.losses.items()
        )
    )


def open_dump(study: Study, dump: str, dataset: Dataset) -> Cache:
    """The cache of a configured dump, refused unless it is exactly what params.yaml describes.

    The teacher itself is not looked at: it need not be there. Where its metrics file is (git
    keeps it), the weights it names must be those that made the cache.
    """
    spec, layout = study.dumps[dump], Layout(Path())
    source = study.teachers.get(spec.of) or study.students[spec.of]
    samples = dataset.bounds[0] if spec.samples == "train" else len(dataset)
    expect = {
        "field.name": spec.field,
        "field.parameters": {**decisive(spec.options), **dict.fromkeys(derived_parameters(spec.field), ANYTHING)},
        "teacher.name": spec.of,
        "teacher.architecture": architecture(source),
        "dataset.fingerprint": dataset.fingerprint,
        "dataset.classes": list(dataset.classes),
        "dataset.samples": len(dataset),
        "dataset.bounds": list(dataset.bounds),
        "axes": "plan, batch" if plan_of(spec.field, spec.options) else "view, sample",
        "teacher.seed": spec.of_seed if spec.of in study.students else None,
        "views": study.views.views().parameters,
        "rows": planned_rows(spec.field, spec.options, samples),
        "batch": spec.batch,
        "store": spec.format,
    }
    kind = "teachers" if spec.of in study.teachers else "students"
    metrics = layout.metrics(kind, spec.of)
    if metrics.exists():
        make = f"train-{kind.removesuffix('s')}"
        made = layout.how_to_make(f"{make}-{spec.of}", f"{make} {spec.of}")
        weights = read_json(metrics, made, keys=("weights_sha256",))["weights_sha256"]
        expect["teacher.weights_sha256"] = weights if kind == "teachers" else dict(enumerate(weights)).get(spec.of_seed)
    fix = layout.how_to_make(f"dump-{spec.field}-{dump}", f"dump-{spec.field} {dump}")
    if isinstance(source, TeacherParams) and source.external is not None:
        expect["teacher.weights_sha256"] = source.external
        fix = f"make it with `teachercache cache create {layout.cache(dump)}`"
    opened = cache.open(layout.cache(dump), expect, fix=fix)
    parameters = opened.manifest.field.parameters
    opened.refuse_other_arrays(planned_arrays(spec.field, parameters, len(dataset.classes)))
    return opened
