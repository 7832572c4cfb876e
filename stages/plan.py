"""params.yaml -> what its dumps will cost, before anything is spent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.datasets.dataset import Dataset
    from pipeline.dumps.cost import DiskSpeed, DumpCost
    from pipeline.study.parts import DumpParams
    from pipeline.study.sections import PhaseParams, Study


def plan(params: cli.ParamsFile = cli.DEFAULT_PARAMS, device: cli.Device = "auto", as_json: cli.AsJson = False) -> None:
    """Predict each dump's bytes, files and seconds, and from how many students on it pays."""
    study = cli.open_study(params)
    from pipeline.dumps.cost import measure_disk_speed

    disk = measure_disk_speed(Path())
    datasets: dict[str, Dataset] = {}
    made = {
        name: _predict(study, name, spec, datasets, disk=disk, device=device)
        for name, spec in study.dumps.items()
        if spec.of in study.students or study.teachers[spec.of].external is None
    }
    if as_json:
        facts = {name: {**asdict(p), "pays_from": p.pays_from, "students": n} for name, (p, n) in made.items()}
        typer.echo(json.dumps(facts, indent=2))
        return
    if not made:
        typer.echo(f"nothing to plan: {study.file} has no dump of a teacher or student that is run here")
        return
    columns = (
        "dump",
        "field",
        "bytes of rows",
        "files",
        "dump (s)",
        "live teacher (s a student)",
        "pays from",
        "students here",
    )
    cli.table("predicted", columns, [_row(name, study.dumps[name].field, *made[name]) for name in made])
    typer.echo(
        "measured with a few batches; a student is one seed's run; "
        "`pays from`: students until dumping once is cheaper than asking a live teacher"
    )


def _row(name: str, field: str, made: DumpCost, students: int) -> tuple[object, ...]:
    pays = "never" if made.pays_from is None else made.pays_from
    return (
        *(name, field, f"{made.bytes:,}", f"{made.files:,}"),
        *(f"{made.dump_seconds:.2g}", f"{made.live_seconds:.2g}", pays, students),
    )


def _predict(
    study: Study, name: str, spec: DumpParams, datasets: dict[str, Dataset], *, disk: DiskSpeed, device: str
) -> tuple[DumpCost, int]:
    """The prediction, and how many students of this study read the dump."""
    from pipeline.base.device import resolve_device
    from pipeline.base.errors import InputError
    from pipeline.cache import Format
    from pipeline.dumps.cost import predict_cost
    from pipeline.dumps.dump_fields import refuse_unreadable
    from pipeline.runs.datasets import load_or_read
    from pipeline.runs.dumps import plan_dump, wanted_cache
    from pipeline.runs.training import training_options

    if spec.dataset not in datasets:
        datasets[str(spec.dataset)] = load_or_read(study, str(spec.dataset))
    dataset = datasets[str(spec.dataset)]
    teacher = _untrained(study, spec.of, dataset, resolve_device(device))
    field, seen = plan_dump(spec, study, teacher, dataset)
    try:
        refuse_unreadable(teacher.card, dataset, wanted_cache(study, name), field, seen)
    except InputError as error:
        cli.warn(f"dump {name!r} would be refused: {error}")
    readers = [s for s in study.students.values() if name in s.all_reads()]
    epochs = [
        sum(_askings(phase, name, training_options(phase).count_epochs(dataset.bounds[0])) for phase in s.phases)
        for s in readers
        for _ in range(s.seeds)
    ]
    mean = round(sum(epochs) / len(epochs)) if epochs else study.views.count
    made = predict_cost(teacher, field, seen, store=cast("Format", spec.format), epochs=mean, disk=disk)
    return made, len(epochs)


def _askings(phase: PhaseParams, dump: str, epochs: int) -> int:
    """How often a live teacher would be asked for a dump's answers: once where they are only read before the phase."""
    from pipeline.losses import prepared_factory

    asked = [1 if prepared_factory(term.loss) else epochs for term in phase.losses.values() if dump in term.dumps]
    return max(asked, default=0)


def _untrained(study: Study, name: str, dataset: Dataset, device: Any) -> Any:
    """A teacher of the right architecture: what it costs does not depend on its weights.

    Its card has the entries, as long as they will be, that a dump's manifest takes from it.
    """
    from pipeline.models.build import build_network
    from pipeline.runs.networks import describe_network
    from pipeline.study.sections import describe_model
    from pipeline.teacher import Ensemble, Teacher

    source = study.teachers.get(name) or study.students[name]
    names = getattr(source, "members", None) or ()
    members = [study.teachers[member] for member in names] if names else [source]
    models = [describe_model(member) for member in members if member.model is not None]
    networks = [build_network(model, dataset.shape, len(dataset.classes), files=False).to(device) for model in models]
    some = 1 / 3
    measured = {"test_accuracy": some, "test_accuracy_per_class": [some] * len(dataset.classes)}
    entries = {**describe_network(name, source, dataset), **measured, "weights_sha256": "f" * 64}
    return Teacher(Ensemble(networks), entries, device)


if __name__ == "__main__":
    cli.main(plan)
