"""Prepared data -> data/teachers/<teacher>."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.base.device import collect_nondeterministic, describe_device, describe_execution, resolve_device
from pipeline.base.errors import InputError
from pipeline.base.files import write_json
from pipeline.base.ranks import find_ranks
from pipeline.base.seeds import derive_seed
from pipeline.datasets.dataset import Dataset, load_dataset
from pipeline.models.cost import measure_image_cost
from pipeline.models.network_files import save_network
from pipeline.models.size import count_bits
from pipeline.runs.checks import build_and_check
from pipeline.runs.networks import describe_architecture, describe_network, weight_digests
from pipeline.runs.result import Result
from pipeline.runs.stage_work import StageWork, find_entry, in_study_folder, open_stage_work, record_seconds
from pipeline.runs.training import ignore_history, show_epochs, training_options
from pipeline.study.layout import Layout
from pipeline.study.sections import Study, TeacherParams, describe_model
from pipeline.teacher import join_teachers, load_foreign_teacher
from pipeline.teacher import train_teacher as train_network
from pipeline.training.chance_level import ADVICE, FROM_A_FILE, find_doubt
from pipeline.training.curves import Curves
from pipeline.training.rows import Rows, Splits, evaluate, load_splits, per_class_accuracy

# What the metrics take from the card.
METRICS = (
    *("test_accuracy", "test_accuracy_per_class", "parameters", "bytes", "bits"),
    *("precision", "layout", "compile", "device"),
    *("multiply_adds", "activation_bytes"),
    *("restores", "weights_sha256", "best_epoch", "epochs", "doubt"),
)


@in_study_folder
def train_teacher(study: Study, name: str, device: str = "auto", *, memory: str | int | None = None) -> Result:
    """Train a teacher (or take one from a file, or join members) and measure it on the test part.

    Args:
        study: with the teacher.
        name: its name.
        device: where it is trained.
        memory: how much of its images may lie there, as `--memory`; no result depends on it.
    """
    spec = find_entry(study.teachers, "teachers", name, study.file)
    layout, stage, where = Layout(Path()), f"train-teacher-{name}", resolve_device(device)
    with record_seconds(stage, describe_device(where)):
        dataset = load_dataset(layout.prepared(str(spec.dataset)), resident=False)
        cost = None if spec.model is None else measure_image_cost(build_and_check(study, name, dataset), dataset.shape)
        splits = load_splits(dataset, spec.batch_size, where, memory)
        views = study.views.model_dump(mode="json")
        options = spec.model_dump(mode="json"), views, study.seed
        inputs = *options, dataset.fingerprint, weight_digests(spec)
        with open_stage_work(layout, stage, layout.teacher(name), *inputs, device=where.type, shared=True) as work:
            with collect_nondeterministic() as kernels:
                network, entries = _make_network(study, name, dataset, splits, work)
            if not find_ranks().is_first:
                return Result({})
            entries |= describe_execution(where, kernels)
            measured = _measure(network, splits.test, dataset.classes)
            measured |= asdict(cost or measure_image_cost(network, dataset.shape))
            card = _save(network, {**describe_network(name, spec, dataset), **measured, **entries}, work.out)
        metrics = {key: card[key] for key in METRICS if key in card}
        write_json(layout.metrics("teachers", name), metrics)
    line = f"teacher {name}: test accuracy {card['test_accuracy']:.4f}, {card['parameters']:,} parameters"
    return Result(metrics, text=(line,), warnings=_doubts(name, spec, card))


def _make_network(
    study: Study, name: str, dataset: Dataset, splits: Splits, work: StageWork
) -> tuple[nn.Module, dict[str, Any]]:
    """The teacher's network on its device, and what its card says beyond the common entries."""
    spec, device = study.teachers[name], splits.train.labels.device
    if spec.external:
        raise InputError(f"teacher {name!r}", expected="one that is trained here", found="an external one")
    if spec.members:
        return join_teachers(
            {name: Layout(Path()).teacher(name) for name in spec.members}, spec.average, device, dataset
        )
    if spec.weights:
        model = describe_architecture(spec)
        network = load_foreign_teacher(spec.weights, model=model, shape=splits.shape, classes=splits.classes)
        return network.to(device), {"weights_file": spec.weights.name}
    return _train(study, name, splits, work)


def _train(study: Study, name: str, splits: Splits, work: StageWork) -> tuple[nn.Module, dict[str, Any]]:
    spec = study.teachers[name]
    options = training_options(spec)
    epochs = options.count_epochs(len(splits.train))
    ranks = find_ranks()
    log = Curves(work.out / "curves") if ranks.is_first else ignore_history
    with show_epochs(f"teacher {name}", [[epochs]], [[[log]]]) as (((on_epoch,),),):
        network, fitted = train_network(
            splits,
            model=describe_model(spec),
            options=options,
            seed=derive_seed(study.seed, "teacher", name),
            views=study.views.views(),
            what=f"teacher {name!r}",
            checkpoint=work.checkpoint(),
            on_epoch=on_epoch,
            ranks=ranks,
        )
    entries = {"epochs": len(fitted.history), "best_epoch": fitted.best_epoch, "restores": fitted.restores}
    return network, {"seed": study.seed, **entries}


def _measure(network: nn.Module, test: Rows, classes: tuple[str, ...]) -> dict[str, Any]:
    """Size and test accuracy, with the reason where it is hardly more than chance."""
    right = evaluate(network, test)[0]
    reason = find_doubt(right, test.labels, classes)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": sum(p.nbytes for p in network.state_dict().values()),
        "bits": count_bits(network),
        **per_class_accuracy(right, test),
        **({"doubt": reason} if reason else {}),
    }


def _save(network: nn.Module, card: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the weights, of which an ensemble has none of its own, and the card; the whole card."""
    if "members" in card:
        write_json(out / "card.json", card)
        return card
    return {**card, "weights_sha256": save_network(out, network.state_dict(), card)}


def _doubts(name: str, spec: TeacherParams, card: Mapping[str, Any]) -> tuple[str, ...]:
    if "doubt" not in card:
        return ()
    advice = FROM_A_FILE if spec.weights else "train its members again" if spec.members else ADVICE
    return (f"teacher {name!r} {card['doubt']}; {advice}",)
