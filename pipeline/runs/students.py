"""Prepared data and caches -> data/students/<student>."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline import __version__
from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.base.expected_values import differences
from pipeline.base.files import write_json
from pipeline.cache import Cache
from pipeline.datasets.dataset import Dataset, load_dataset
from pipeline.models.cost import ImageCost, measure_image_cost
from pipeline.models.network_files import load_network
from pipeline.runs.caches import open_dump, refuse_other_channels
from pipeline.runs.checks import build_and_check
from pipeline.runs.networks import describe_network, find_network, recorded_weights, weight_digests
from pipeline.runs.recipes import list_loss_taps, list_trainable_parts, write_losses
from pipeline.runs.result import Result
from pipeline.runs.seeds import doubtful_networks, phase_epochs, save_seed, train_seeds
from pipeline.runs.stage_work import StageWork, find_entry, in_study_folder, open_stage_work, record_seconds
from pipeline.runs.training_data import load_training_data
from pipeline.student_phase import CachedField
from pipeline.study.layout import Layout
from pipeline.study.sections import StudentParams, Study, describe_computation
from pipeline.training.chance_level import ADVICE, join_doubts
from pipeline.training.result import TrainedStudent, student_metrics
from pipeline.training.rows import Splits


@in_study_folder
def train_student(study: Study, name: str, device: str = "auto", *, memory: str | int | None = None) -> Result:
    """Train a student, once for each of its seeds, from the cache alone: no teacher is loaded.

    Args:
        study: with the student.
        name: its name.
        device: where it is trained.
        memory: how much of its data may lie there, as `--memory`; no result depends on it.
    """
    spec = find_entry(study.students, "students", name, study.file)
    layout, stage, where = Layout(Path()), f"train-student-{name}", resolve_device(device)
    with record_seconds(stage):
        inputs = _read_inputs(study, name, where, memory)
        with open_stage_work(layout, stage, layout.student(name), *inputs.decisive(study, spec, where)) as work:
            seeds = _train_seeds(study, name, inputs, work)
        metrics = _metrics(study, spec, inputs, seeds)
        write_json(layout.metrics("students", name), metrics)
    doubts = (f"student {name!r} {join_doubts(seeds.doubts)}; {ADVICE}",) if seeds.doubts else ()
    return Result(metrics, text=(_summary(name, metrics),), warnings=doubts)


@dataclass(frozen=True)
class _Inputs:
    """What a student is trained on.

    Attributes:
        targets: by dump, its cached rows or batches.
        initial: the weights that it starts from; None where its seed draws them.
        cost: of an image.
        origin: what its metrics and cards say of all that.
    """

    dataset: Dataset
    splits: Splits
    caches: Mapping[str, Cache]
    targets: Mapping[str, CachedField]
    initial: Mapping[str, Tensor] | None
    cost: ImageCost
    origin: Mapping[str, Any]

    def decisive(self, study: Study, spec: StudentParams, device: torch.device) -> tuple[Any, ...]:
        """JSON values that decide the result."""
        options = spec.model_dump(mode="json"), study.views.model_dump(mode="json"), study.seed, device.type
        return *options, self.dataset.fingerprint, weight_digests(spec), self.origin


@dataclass
class _Seeds:
    """The trained seeds, the weights' digests of each (its own, then its peers'), and those at chance."""

    runs: list[list[TrainedStudent]] = field(default_factory=list)
    digests: list[list[str]] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)


def _read_inputs(study: Study, name: str, device: torch.device, memory: str | int | None) -> _Inputs:
    spec = study.students[name]
    dataset = load_dataset(Layout(Path()).prepared(str(spec.dataset)), resident=False)
    parts = list_trainable_parts(study, name)
    network = build_and_check(study, name, dataset, list_loss_taps(study, name), parts)
    caches = {dump: open_dump(study, dump, dataset) for dump in spec.list_all_dumps()}
    refuse_other_channels(network, caches, dataset)
    splits, targets = load_training_data(dataset, caches, spec.phases, device, memory=memory, views=study.views.views())
    initial, init = _load_initial(study, spec)
    origin = {"consumed": {dump: cache.manifest.root for dump, cache in caches.items()}, "init": init}
    cost = measure_image_cost(network, dataset.shape)
    return _Inputs(dataset, splits, caches, targets, initial, cost, origin)


def _load_initial(study: Study, spec: StudentParams) -> tuple[dict[str, Tensor] | None, dict[str, Any] | None]:
    """The weights that a student starts from, and which they are; None and None where its seed draws them.

    Raises:
        InputError: no such student is trained, or not by the run that its metrics tell of.
    """
    if spec.init is None:
        return None, None
    name, seed = spec.init.student, spec.init.seed
    folder, fix = find_network(study, name, seed)
    network, card = load_network(folder, torch.device("cpu"), fix)
    made, expected = card["weights_sha256"], recorded_weights("student", name, seed)
    if list(differences(expected, made)):
        found = f"{made[:12]}..."
        raise InputError(f"student {name!r}, seed {seed}", expected=f"weights {expected}", found=found, fix=fix)
    return network.state_dict(), {"student": name, "seed": seed, "weights_sha256": made}


def _train_seeds(study: Study, name: str, inputs: _Inputs, work: StageWork) -> _Seeds:
    spec, test, classes = study.students[name], inputs.splits.test, inputs.dataset.classes
    known = {key: value for key, value in inputs.origin.items() if value is not None} | asdict(inputs.cost)
    done = _Seeds()
    trained = train_seeds(study, name, splits=inputs.splits, targets=inputs.targets, initial=inputs.initial, work=work)
    for seed, cohort in enumerate(trained):
        about = {**describe_network(name, spec, inputs.dataset), "seed_number": seed, **known}
        done.digests.append(save_seed(cohort, about, spec.select, test, work.out))
        done.doubts |= doubtful_networks(cohort, seed, spec, test, classes)
        done.runs.append(cohort)
    return done


def _metrics(study: Study, spec: StudentParams, inputs: _Inputs, seeds: _Seeds) -> dict[str, Any]:
    return {
        **student_metrics(seeds.runs, spec.select),
        **asdict(inputs.cost),
        **describe_computation(spec),
        "losses": write_losses(spec.losses),
        "pretrain": [write_losses(phase.losses) for phase in spec.pretrain],
        "phase_epochs": phase_epochs(spec, inputs.splits, inputs.targets),
        **inputs.origin,
        "taught_by": sorted({cache.manifest.teacher.name for cache in inputs.caches.values()}),
        "weights_sha256": [own for own, *_ in seeds.digests],
        "peers_sha256": [peers for _, *peers in seeds.digests],
        "dataset": inputs.dataset.fingerprint,
        "seed": study.seed,
        "package": __version__,
        **({"doubts": seeds.doubts} if seeds.doubts else {}),
    }


def _summary(name: str, metrics: Mapping[str, Any]) -> str:
    accuracy, restores = metrics["test_accuracy"], metrics["restores"]
    spread = f", std {accuracy['std']:.4f}" if accuracy["std"] is not None else ""
    back = f"; NaN or inf took {sum(restores)} epochs back" if any(restores) else ""
    size = f"{metrics['parameters']:,} parameters"
    seeds = len(metrics["weights_sha256"])
    return f"student {name}: test accuracy {accuracy['mean']:.4f}{spread} (n = {seeds}), {size}{back}"
