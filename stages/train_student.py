"""Prepared data and caches -> data/students/<student>."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.parts import TermParams
    from pipeline.rows import Splits
    from pipeline.sections import Study
    from pipeline.student import Field, Trained
    from stages.run import Workshop


def train_student(
    student: Annotated[str, typer.Argument(help="A name under students: in params.yaml.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Train a student, once for each of its seeds, from the cache alone: no teacher is loaded."""
    study = cli.open_study(params)
    from pipeline import __version__
    from pipeline.cached_batches import on_device
    from pipeline.datasets.record import load
    from pipeline.device import resolve
    from pipeline.files import write_json
    from pipeline.layout import Layout
    from pipeline.models.saved import save_network
    from pipeline.rows import Splits
    from pipeline.student import results
    from stages.fit import built, refuse_missing_taps, refuse_other_channels
    from stages.run import card, file_digests, open_dump, workshop

    spec = cli.named(study.students, "students", student)
    layout, stage, where = Layout(Path()), f"train-student-{student}", resolve(device)
    with cli.timed(stage):
        dataset = load(layout.prepared(str(spec.dataset)))
        splits = Splits.of(dataset, where)
        network = built(spec, dataset)
        refuse_missing_taps(study, student, network, dataset)
        caches = {dump: open_dump(study, dump, dataset) for dump in spec.all_reads()}
        refuse_other_channels(network, caches, dataset)
        consumed = {dump: cache.manifest.root for dump, cache in caches.items()}
        targets = {dump: on_device(cache, where) for dump, cache in caches.items()}
        inputs = dataset.fingerprint, consumed, file_digests(spec)
        decides = spec.model_dump(mode="json"), study.views.model_dump(mode="json"), study.seed, where.type, *inputs
        with workshop(layout, stage, layout.student(student), *decides) as work:
            runs, digests = [], []
            for number in range(spec.seeds):
                run = _run(student, study, number, splits=splits, targets=targets, work=work)
                runs.append(run)
                entries = {"seed_number": number, "consumed": consumed, **run.scores(spec.select, splits.test)}
                state = run.state(spec.select)
                whole = {**card(student, spec, dataset), **entries}
                digests.append(save_network(work.out / f"seed-{number}", state, whole))
        metrics = {
            **results(runs, spec.select),
            "losses": _written(spec.losses),
            "pretrain": [_written(phase.losses) for phase in spec.pretrain],
            "taught_by": sorted({cache.manifest.teacher.name for cache in caches.values()}),
            "consumed": consumed,
            "weights_sha256": digests,
            "dataset": dataset.fingerprint,
            "seed": study.seed,
            "package": __version__,
        }
        write_json(layout.metrics("students", student), metrics)
    mean, std = metrics["test_accuracy"]["mean"], metrics["test_accuracy"]["std"]
    spread = f" +- {std:.4f}" if std is not None else ""
    typer.echo(
        f"student {student}: test accuracy {mean:.4f}{spread} (n = {spec.seeds}), {metrics['parameters']:,} parameters"
    )


def _written(losses: Mapping[str, TermParams]) -> dict[str, Any]:
    """The loss terms as the user has written them."""
    return {name: {"weight": term.weight, "options": term.chosen()} for name, term in losses.items()}


def _run(
    student: str, study: Study, number: int, *, splits: Splits, targets: Mapping[str, Field], work: Workshop
) -> Trained:
    """Train the student of one seed and write its curves."""
    from pipeline.curves import Curves
    from pipeline.sections import model_of
    from pipeline.seeds import derive
    from pipeline.student import Phase, samples_of
    from pipeline.student import train_student as train
    from stages.run import progress, recipe, regime

    spec, folder = study.students[student], work.out / f"seed-{number}"
    names = [*(f"pretrain-{place}/curves" for place in range(1, len(spec.pretrain) + 1)), "curves"]
    epochs = [regime(each).epochs_for(samples_of(splits, targets, each.reads())) for each in spec.phases]
    curves = [(count, Curves(folder / name)) for count, name in zip(epochs, names, strict=True)]
    with progress(f"student {student} {number + 1}/{spec.seeds}", *curves) as watch:
        *pretrain, main = (
            Phase(recipe(each, count), regime(each), on_epoch)
            for each, count, on_epoch in zip(spec.phases, epochs, watch, strict=True)
        )
        return train(
            splits,
            targets,
            main.recipe,
            model=model_of(spec),
            regime=main.regime,
            pretrain=pretrain,
            seed=derive(study.seed, "student", number),
            views=study.views.views(),
            what=f"student {student!r}, seed {number}",
            checkpoint=work.checkpoint(number),
            on_epoch=main.on_epoch,
        )


if __name__ == "__main__":
    cli.main(train_student)
