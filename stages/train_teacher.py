"""Prepared data -> data/teachers/<teacher>."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import cli

if TYPE_CHECKING:
    from torch import nn

    from pipeline.datasets.record import Dataset
    from pipeline.study.sections import Study
    from pipeline.training.rows import Splits
    from stages.run import Workshop


def train_teacher(
    teacher: Annotated[str, typer.Argument(help="A name under teachers: in params.yaml.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Train a teacher (or take one from a file, or join members) and measure it on the test part."""
    study = cli.open_study(params)
    from pipeline.base.device import resolve_device
    from pipeline.base.files import write_json
    from pipeline.datasets.record import load
    from pipeline.models.saved import save_network
    from pipeline.models.size import count_bits
    from pipeline.study.layout import Layout
    from pipeline.training.chance import ADVICE, FROM_A_FILE, find_doubt
    from pipeline.training.rows import Splits, evaluate, per_class_accuracy
    from stages.fit import built, refuse_missing_taps
    from stages.run import card as common_card
    from stages.run import file_digests, workshop

    spec = cli.named(study.teachers, "teachers", teacher, study.file)
    layout, stage, where = Layout(Path()), f"train-teacher-{teacher}", resolve_device(device)
    with cli.timed(stage):
        dataset = load(layout.prepared(str(spec.dataset)))
        if spec.model is not None:
            refuse_missing_taps(study, teacher, built(study, teacher, dataset), dataset)
        splits = Splits.from_dataset(dataset, where)
        shown = study.views.model_dump(mode="json")
        decides = spec.model_dump(mode="json"), shown, study.seed, dataset.fingerprint, where.type, file_digests(spec)
        with workshop(layout, stage, layout.teacher(teacher), *decides) as work:
            network, entries = _make(teacher, study, dataset=dataset, splits=splits, work=work)
            right = evaluate(network, splits.test)[0]
            reason = find_doubt(right, splits.test.labels, dataset.classes)
            card = {
                **common_card(teacher, spec, dataset),
                "parameters": sum(p.numel() for p in network.parameters()),
                "bytes": sum(p.nbytes for p in network.state_dict().values()),
                "bits": count_bits(network),
                **per_class_accuracy(right, splits.test),
                **({"doubt": reason} if reason else {}),
                **entries,
            }
            if "members" in entries:
                write_json(work.out / "card.json", card)
            else:
                card["weights_sha256"] = save_network(work.out, network.state_dict(), card)
        kept = (
            "test_accuracy",
            "test_accuracy_per_class",
            "parameters",
            "bytes",
            "bits",
            "restores",
            "weights_sha256",
            "best_epoch",
            "epochs",
            "doubt",
        )
        write_json(layout.metrics("teachers", teacher), {key: card[key] for key in kept if key in card})
    if "doubt" in card:
        advice = FROM_A_FILE if spec.weights else "train its members again" if spec.members else ADVICE
        cli.warn(f"teacher {teacher!r} {card['doubt']}; {advice}")
    typer.echo(f"teacher {teacher}: test accuracy {card['test_accuracy']:.4f}, {card['parameters']:,} parameters")


def _make(
    teacher: str, study: Study, *, dataset: Dataset, splits: Splits, work: Workshop
) -> tuple[nn.Module, dict[str, Any]]:
    """The teacher's network on its device, and what its card says beyond the common entries."""
    from pipeline import teacher as room
    from pipeline.base.errors import InputError
    from pipeline.base.seeds import derive_seed
    from pipeline.study.layout import Layout
    from pipeline.study.sections import describe_model
    from pipeline.training.curves import Curves
    from stages.run import architecture, progress, training_options

    spec, device = study.teachers[teacher], splits.train.labels.device
    if spec.external:
        raise InputError(f"teacher {teacher!r}", expected="one that is trained here", found="an external one")
    if spec.members:
        return room.join_teachers(
            {name: Layout(Path()).teacher(name) for name in spec.members}, spec.average, device, dataset
        )
    if spec.weights:
        network = room.teacher_from_file(
            spec.weights, model=architecture(spec), shape=splits.shape, classes=splits.classes
        )
        return network.to(device), {"weights_file": spec.weights.name}
    how = training_options(spec)
    epochs = how.epochs_for(len(splits.train))
    with progress(f"teacher {teacher}", (epochs, [Curves(work.out / "curves")])) as ((on_epoch,),):
        network, fitted = room.train_teacher(
            splits,
            model=describe_model(spec),
            options=how,
            seed=derive_seed(study.seed, "teacher", teacher),
            views=study.views.views(),
            what=f"teacher {teacher!r}",
            checkpoint=work.checkpoint(),
            on_epoch=on_epoch,
        )
    entries = {"epochs": len(fitted.history), "best_epoch": fitted.best_epoch, "restores": fitted.restores}
    return network, {"seed": study.seed, **entries}


if __name__ == "__main__":
    cli.main(train_teacher)
