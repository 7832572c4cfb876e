"""Prepared data and caches -> data/students/<student>."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline import __version__
from pipeline.base.device import collect_nondeterministic, describe_device, describe_execution, resolve_device
from pipeline.base.errors import InputError
from pipeline.base.expected_values import differences
from pipeline.base.files import write_json
from pipeline.base.ranks import find_ranks
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
        name: its name, or that of a grid, all of whose members are trained.
        device: where it is trained.
        memory: how much of its data may lie there, as `--memory`; no result depends on it.

    Returns:
        The student's metrics; of a grid, those of each member by name.
    """
    names = find_students(study, name)
    layout, stage, where = Layout(Path()), f"train-student-{name}", resolve_device(device)
    with record_seconds(stage, describe_device(where)):
        inputs = read_inputs(study, names, where, memory)
        with ExitStack() as stack:
            decisive = inputs.decisive(study, names)
            works = [
                stack.enter_context(
                    open_stage_work(
                        layout, f"train-student-{each}", layout.student(each), *decisive, device=where.type, shared=True
                    )
                )
                for each in names
            ]
            made = _train_students(study, names, inputs, works)
        if not made:  # another process has written all that there is to write
            return Result({})
        metrics = {each: _metrics(study, each, inputs, made[each]) for each in names}
        for each in names:
            write_json(layout.metrics("students", each), metrics[each])
    doubts = [f"student {each!r} {join_doubts(made[each].doubts)}; {ADVICE}" for each in names if made[each].doubts]
    texts = tuple(_summary(each, metrics[each]) for each in names)
    return Result(metrics if name in study.grids else metrics[name], text=texts, warnings=tuple(doubts))


def find_students(
    study: Study, name: str, fix: str = "train them all: `teachercache train-student {grid}`"
) -> list[str]:
    """The students that a name stands for.

    Args:
        study: with the students.
        name: a student's, or a grid's.
        fix: what to do instead where it is a member's of a `{grid}`.

    Raises:
        InputError: it is neither a student's nor a grid's.
    """
    grid = study.find_stage_name(name)
    if grid != name:
        found, fix = f"one member of grid {grid!r}", fix.format(grid=grid)
        raise InputError(f"students: {name}", expected="a student or a grid", found=found, fix=fix)
    find_entry({study.find_stage_name(each): each for each in study.students}, "students", name, study.file)
    return study.list_trained_with(name)


@dataclass(frozen=True)
class StudentInputs:
    """What students are trained on.

    Attributes:
        targets: by dump, its cached rows or batches.
        initial: the weights that it starts from; None where its seed draws them.
        costs: by student, that of an image.
        origin: what metrics and cards say of all that.
    """

    dataset: Dataset
    splits: Splits
    caches: Mapping[str, Cache]
    targets: Mapping[str, CachedField]
    initial: Mapping[str, Tensor] | None
    costs: Mapping[str, ImageCost]
    origin: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.splits.train.labels.device

    def origin_of(self, spec: StudentParams) -> dict[str, Any]:
        """What the metrics and cards of one student say: of the caches, those that it reads."""
        return {**self.origin, "consumed": {dump: self.origin["consumed"][dump] for dump in spec.list_all_dumps()}}

    def decisive(self, study: Study, names: Sequence[str]) -> tuple[Any, ...]:
        """JSON values that decide the result."""
        specs = [study.students[name] for name in names]
        options = [spec.model_dump(mode="json") for spec in specs]
        views, weights = study.views.model_dump(mode="json"), [weight_digests(spec) for spec in specs]
        return options, views, study.seed, self.dataset.fingerprint, weights, self.origin


@dataclass
class _Seeds:
    """The trained seeds, the weights' digests of each (its own, then its peers'), and those at chance."""

    runs: list[list[TrainedStudent]] = field(default_factory=list)
    digests: list[list[str]] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)


def read_inputs(study: Study, names: Sequence[str], device: torch.device, memory: str | int | None) -> StudentInputs:
    """What students that are trained by one command read, checked against what params.yaml says.

    Raises:
        InputError: data or a cache is missing, damaged, or does not suit a network or its losses.
    """
    specs = [study.students[name] for name in names]
    dataset = load_dataset(Layout(Path()).prepared(str(specs[0].dataset)), resident=False)
    networks = {
        name: build_and_check(study, name, dataset, list_loss_taps(study, name), list_trainable_parts(study, name))
        for name in names
    }
    dumps = dict.fromkeys(dump for spec in specs for dump in spec.list_all_dumps())
    caches = {dump: open_dump(study, dump, dataset) for dump in dumps}
    for name, network in networks.items():
        own = study.students[name].list_all_dumps()
        refuse_other_channels(network, {dump: caches[dump] for dump in own}, dataset)
    costs = {name: measure_image_cost(network, dataset.shape) for name, network in networks.items()}
    phases, views = [phase for spec in specs for phase in spec.phases], study.views.views()
    splits, targets = load_training_data(dataset, caches, phases, device, memory=memory, views=views)
    initial, init = _load_initial(study, specs[0])
    origin = {"consumed": {dump: cache.manifest.root for dump, cache in caches.items()}, "init": init}
    return StudentInputs(dataset, splits, caches, targets, initial, costs, origin)


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
    made, expected = card["weights_sha256"], recorded_weights(study, "student", name, seed)
    if list(differences(expected, made)):
        found = f"{made[:12]}..."
        raise InputError(f"student {name!r}, seed {seed}", expected=f"weights {expected}", found=found, fix=fix)
    return network.state_dict(), {"student": name, "seed": seed, "weights_sha256": made}


def _train_students(
    study: Study, names: Sequence[str], inputs: StudentInputs, works: Sequence[StageWork]
) -> dict[str, _Seeds]:
    """Train students together; what became of each; of several processes the first one knows."""
    with collect_nondeterministic() as kernels:
        trained = train_seeds(
            *(study, names),
            splits=inputs.splits,
            targets=inputs.targets,
            initial=inputs.initial,
            works=works,
            ranks=find_ranks(),
        )
    if not trained:
        return {}
    return {
        name: _save_student(study, name, inputs, cohorts, work, execution=describe_execution(inputs.device, kernels))
        for name, cohorts, work in zip(names, trained, works, strict=True)
    }


def _save_student(
    study: Study,
    name: str,
    inputs: StudentInputs,
    cohorts: Sequence[list[TrainedStudent]],
    work: StageWork,
    *,
    execution: Mapping[str, Any],
) -> _Seeds:
    spec, test, classes = study.students[name], inputs.splits.test, inputs.dataset.classes
    known = {key: value for key, value in inputs.origin_of(spec).items() if value is not None}
    done = _Seeds()
    for seed, cohort in enumerate(cohorts):
        about = {
            **describe_network(name, spec, inputs.dataset),
            "seed_number": seed,
            **known,
            **asdict(inputs.costs[name]),
            **execution,
        }
        done.digests.append(save_seed(cohort, about, spec.select, test, work.out))
        done.doubts |= doubtful_networks(cohort, seed, spec, test, classes)
        done.runs.append(cohort)
    return done


def _metrics(study: Study, name: str, inputs: StudentInputs, seeds: _Seeds) -> dict[str, Any]:
    spec = study.students[name]
    origin = inputs.origin_of(spec)
    return {
        **student_metrics(seeds.runs, spec.select),
        **asdict(inputs.costs[name]),
        **describe_computation(spec),
        "device": describe_device(inputs.device),
        "losses": write_losses(spec.losses),
        "pretrain": [write_losses(phase.losses) for phase in spec.pretrain],
        "phase_epochs": phase_epochs(spec, inputs.splits, inputs.targets),
        **origin,
        "taught_by": sorted({inputs.caches[dump].manifest.teacher.name for dump in origin["consumed"]}),
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
