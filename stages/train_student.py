"""Prepared data and caches -> data/students/<student>."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import cli


def train_student(
    student: Annotated[str, typer.Argument(help="A name under students: in params.yaml.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Train a student, once for each of its seeds, from the cache alone: no teacher is loaded."""
    study = cli.open_study(params)
    from pipeline import __version__
    from pipeline.base.device import resolve_device
    from pipeline.base.files import write_json
    from pipeline.datasets.record import load
    from pipeline.fields.batches import on_device
    from pipeline.study.layout import Layout
    from pipeline.training.chance import ADVICE, join_doubts
    from pipeline.training.result import student_metrics
    from pipeline.training.rows import Splits
    from stages import cohort
    from stages.fit import built, refuse_missing_taps, refuse_other_channels
    from stages.run import card, file_digests, open_dump, workshop

    spec = cli.named(study.students, "students", student, study.file)
    layout, stage, where = Layout(Path()), f"train-student-{student}", resolve_device(device)
    with cli.timed(stage):
        dataset = load(layout.prepared(str(spec.dataset)))
        splits = Splits.from_dataset(dataset, where)
        network = built(study, student, dataset)
        refuse_missing_taps(study, student, network, dataset)
        caches = {dump: open_dump(study, dump, dataset) for dump in spec.all_reads()}
        refuse_other_channels(network, caches, dataset)
        targets = {dump: on_device(cache, where) for dump, cache in caches.items()}
        initial, init = cohort.start_of(spec)
        origin = {"consumed": {dump: cache.manifest.root for dump, cache in caches.items()}, "init": init}
        known = {key: value for key, value in origin.items() if value is not None}
        inputs = dataset.fingerprint, file_digests(spec), origin
        decides = spec.model_dump(mode="json"), study.views.model_dump(mode="json"), study.seed, where.type, *inputs
        with workshop(layout, stage, layout.student(student), *decides) as work:
            runs, digests = [], []
            doubts: dict[str, str] = {}
            for number in range(spec.seeds):
                run = cohort.trained(student, study, number, splits=splits, targets=targets, initial=initial, work=work)
                about = {**card(student, spec, dataset), "seed_number": number, **known}
                digests.append(cohort.saved(run, about, spec.select, splits.test, work.out))
                doubts |= cohort.doubts(run, number, spec, splits.test, dataset.classes)
                runs.append(run)
        metrics = {
            **student_metrics(runs, spec.select),
            **cohort.described(spec, cohort.phase_epochs(spec, splits, targets)),
            **origin,
            "taught_by": sorted({cache.manifest.teacher.name for cache in caches.values()}),
            "weights_sha256": [own for own, *_ in digests],
            "peers_sha256": [peers for _, *peers in digests],
            "dataset": dataset.fingerprint,
            "seed": study.seed,
            "package": __version__,
            **({"doubts": doubts} if doubts else {}),
        }
        write_json(layout.metrics("students", student), metrics)
    mean, std = metrics["test_accuracy"]["mean"], metrics["test_accuracy"]["std"]
    spread = f", std {std:.4f}" if std is not None else ""
    back = f"; NaN or inf took {sum(metrics['restores'])} epochs back" if any(metrics["restores"]) else ""
    size = f"{metrics['parameters']:,} parameters"
    if doubts:
        cli.warn(f"student {student!r} {join_doubts(doubts)}; {ADVICE}")
    typer.echo(f"student {student}: test accuracy {mean:.4f}{spread} (n = {spec.seeds}), {size}{back}")


if __name__ == "__main__":
    cli.main(train_student)
