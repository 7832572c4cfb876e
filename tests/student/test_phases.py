"""Phases before a student's own: hints first, then anything."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam

from pipeline.base.errors import InputError
from pipeline.base.files import read_json
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.datasets.dataset import Dataset
from pipeline.fields.rows import CachedRows
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.student import Checkpoints, train_student
from pipeline.student_phase import Phase, Scene, Started, StudentRun
from pipeline.student_phase import fit_phase as fit_phase_of
from pipeline.training.curves import read_curve
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.training.rows import Rows, Splits
from pipeline.training.trainable_part import TrainablePart
from tests.conftest import Capture, Run, refused, write_study
from tests.scenes import CNN, CPU, digits, made, stopped_at_save, teacher_of, wanted

MODEL = {"name": "mlp", "widths": [12, 9], "dropout": 0.2}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def hints(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CachedRows:
    teacher = teacher_of(dataset, CNN)
    opened = made(teacher, dataset, wanted(tmp_path_factory.mktemp("hints"), "h", "hints", {"dtype": "float32"}))
    return CachedRows.from_cache(opened, CPU)


def training_options(epochs: int, lr: float = 0.01) -> TrainingOptions:
    return TrainingOptions(partial(Adam, lr=lr), constant, epochs=epochs, batch_size=64)


def fit_phase(network: Network, splits: Splits, fields: Any, phase: Phase) -> None:
    started = Started(StudentRun({}, [phase], 1, "s"), [network])
    fit_phase_of([started], Scene(splits, fields), 0)


CE = Recipe((Term("ce", steady(1, value=1.0), {}),))


def hint(tap: str) -> Recipe:
    return Recipe((Term("hint_mse", steady(1, value=1.0), {"tap": tap, "hint": None}, "h"),))


def run(
    dataset: Dataset, hints: CachedRows, *phases: Phase, checkpoint: Path | None = None, epochs: int = 2
) -> TrainedStudent:
    return train_student(
        Splits.from_dataset(dataset, CPU), {"h": hints}, CE, model=MODEL, options=training_options(epochs), seed=3, what="s",
        pretrain=phases, checkpoints=Checkpoints(checkpoint, 0.0),
    )  # fmt: skip


def test_hints_train_the_part_up_to_the_guided_layer_alone(dataset: Dataset, hints: CachedRows) -> None:
    with fork_seeded_rng(derive_seed(3, "init"), CPU):
        initial = build_network(MODEL, dataset.shape, 10).state_dict()
    seen: list[list[dict[str, float]]] = []
    phase = Phase(hint("hidden1"), training_options(4), [lambda history: seen.append([dict(row) for row in history])])
    # A main phase that changes nothing shows the weights that it was handed.
    still = TrainingOptions(partial(SGD, lr=1e-30), constant, epochs=1, batch_size=64)
    trained = train_student(
        Splits.from_dataset(dataset, CPU),
        {"h": hints},
        CE,
        model=MODEL,
        options=still,
        seed=3,
        what="s",
        pretrain=[phase],
    )
    state = trained.state("last")
    changed = {name for name in state if not torch.equal(state[name], initial[name])}
    assert changed == {"body.fc1.weight", "body.fc1.bias"}
    losses = [row["train/hint_mse"] for row in seen[-1]]
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    assert set(state) == set(initial)  # the regressor (12 -> 16) is no part of the student


NORMED = {"name": "torchvision:resnet18"}


def changed(network: Network, phase: Phase, splits: Splits) -> set[str]:
    """The entries of the state dict, running statistics included, that a phase has changed."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rows = Rows(splits.train.images[:64].repeat(1, 1, 4, 4), splits.train.labels[:64], splits.classes)
    small = Splits(rows, rows, rows, (1, 32, 32))
    fit_phase(network, small, {}, phase)
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("l1", [0.0, 0.01])
def test_a_phase_trains_just_its_part(dataset: Dataset, l1: float) -> None:
    """Weights and running statistics outside are left alone, whatever loss, penalty or decay there is."""
    splits = Splits.from_dataset(dataset, CPU)
    with fork_seeded_rng(1, CPU):
        network = build_network(NORMED, (1, 32, 32), 10)
    state = set(network.state_dict())
    how = TrainingOptions(partial(SGD, lr=0.1, weight_decay=0.1), constant, epochs=1, batch_size=16, l1=l1)
    below = {name for name in state if name.startswith(("body.conv1", "body.bn1", "body.layer1"))}
    assert changed(network, Phase(CE, how, trainable=TrainablePart(up_to="layer1")), splits) == below
    only = {name for name in state if name.startswith(("body.fc", "body.layer3.1"))}
    assert changed(network, Phase(CE, how, trainable=TrainablePart(only=("fc", "layer3.1"))), splits) == only
    assert changed(network, Phase(CE, how), splits) == state  # and nothing is left frozen
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_part_that_is_not_there_is_named(dataset: Dataset) -> None:
    splits = Splits.from_dataset(dataset, CPU)
    with fork_seeded_rng(1, CPU):
        network = build_network(MODEL, dataset.shape, 10)

    def refused_with(part: TrainablePart, message: str, recipe: Recipe = CE) -> None:
        with pytest.raises(InputError, match=message):
            fit_phase(network, splits, {}, Phase(recipe, training_options(1), trainable=part))

    refused_with(TrainablePart(only=("fc9",)), "unknown module with weights 'fc9'.*fc1, fc2, logits")
    refused_with(TrainablePart(up_to="block1"), "unknown tap 'block1'")
    refused_with(TrainablePart(up_to="flatten"), "up_to 'flatten': expected a tap with weights below it")


def test_a_loss_that_the_trained_part_cannot_lower_is_refused(dataset: Dataset, hints: CachedRows) -> None:
    phase = Phase(hint("hidden1"), training_options(1), trainable=TrainablePart(only=("logits",)))
    wide = {"name": "mlp", "widths": [16, 9]}  # as wide as the hint: no regressor that could be trained
    with fork_seeded_rng(1, CPU):
        network = build_network(wide, dataset.shape, 10)
    with pytest.raises(InputError, match="losses hint_mse: expected such as depend on the part of the network"):
        fit_phase(network, Splits.from_dataset(dataset, CPU), {"h": hints}, phase)


def test_a_phase_that_trains_nothing_of_the_student_is_refused(dataset: Dataset, hints: CachedRows) -> None:
    """A regressor beside the student could learn, and the student would not."""
    phase = Phase(hint("hidden1"), training_options(1), trainable=TrainablePart(only=("logits",)))
    with fork_seeded_rng(1, CPU):
        network = build_network(MODEL, dataset.shape, 10)
    with pytest.raises(InputError, match="losses hint_mse: expected such as depend on the part of the network"):
        fit_phase(network, Splits.from_dataset(dataset, CPU), {"h": hints}, phase)


def test_a_frozen_parameter_of_its_own_is_no_part_to_train(dataset: Dataset) -> None:
    with fork_seeded_rng(1, CPU):
        network = build_network(MODEL, dataset.shape, 10)
    network.get_parameter("body.fc1.bias").requires_grad_(False)
    assert network.parameters_below("hidden1", torch.zeros((2, *dataset.shape), dtype=torch.uint8)) == [
        "body.fc1.weight"
    ]


@pytest.mark.parametrize("place", ["own", "pretrain"])
def test_a_part_that_is_not_there_is_named_before_anything_is_trained(
    run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any], place: str
) -> None:
    part = {"trainable": {"only": ["classifier"]}}
    phase = {"losses": {"ce": {}}, "epochs": 1}
    study["students"]["kd"] |= (
        {"pretrain": [phase]} | part if place == "own" else {"pretrain": [phase, {**phase, **part}]}
    )
    key = "students.kd.trainable" if place == "own" else "students.kd.pretrain.1.trainable"
    line = refused(run, capsys, write_study(copy_of, study), "train-student", "kd")
    assert f"params.yaml: {key}: unknown module with weights 'classifier'" in line


def test_the_main_phase_goes_on_from_the_last_weights(dataset: Dataset, hints: CachedRows) -> None:
    alone, hinted = run(dataset, hints), run(dataset, hints, Phase(hint("hidden2"), training_options(2)))
    assert len(hinted.fitted.history) == 2
    assert "train/ce" in hinted.fitted.history[0]
    assert hinted.fitted.history[0]["train/ce"] != alone.fitted.history[0]["train/ce"]
    two = run(dataset, hints, Phase(hint("hidden2"), training_options(2)), Phase(hint("hidden1"), training_options(1)))
    assert two.fitted.history[0]["train/ce"] not in {run_.fitted.history[0]["train/ce"] for run_ in (alone, hinted)}


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 7, 8, 9])
def test_a_kill_in_any_phase_changes_nothing(tmp_path: Path, dataset: Dataset, hints: CachedRows, stop: int) -> None:
    phases = [Phase(hint("hidden2"), training_options(2)), Phase(hint("hidden1"), training_options(2))]
    whole = run(dataset, hints, *phases)
    with stopped_at_save(stop):
        run(dataset, hints, *phases, checkpoint=tmp_path / "checkpoint-0.pt")
    again = run(dataset, hints, *phases, checkpoint=tmp_path / "checkpoint-0.pt")
    assert again.fitted.history == whole.fitted.history
    state, other = again.state("best"), whole.state("best")
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_a_study_with_phases(run: Run, capsys: Capture, made: Path, tmp_path: Path, study: dict[str, Any]) -> None:
    import shutil

    folder = Path(shutil.copytree(made, tmp_path / "study"))
    study["dumps"]["h"] = {"field": "hints", "of": "big"}
    study["students"]["hinted"] = {
        **study["students"]["baseline"],
        "pretrain": [{"losses": {"hint_mse": {}}, "epochs": 3}, {"losses": {"ce": {"weight": 0.5}}, "steps": 5}],
    }
    write_study(folder, study)
    assert run(folder, "graph") == 0
    deps = (folder / "dvc.yaml").read_text().split("train-student-hinted:")[1]
    assert "data/cache/h" in deps
    assert run(folder, "dump-hints", "h") == 0
    assert run(folder, "train-student", "hinted") == 0
    metrics = read_json(folder / "data/metrics/students/hinted.json", "")
    assert metrics["pretrain"] == [
        {"hint_mse": {"weight": 1.0, "options": {}}}, {"ce": {"weight": 0.5, "options": {}}},
    ]  # fmt: skip
    assert metrics["taught_by"] == ["big"]
    for number, rows in ((1, 3), (2, 2)):
        curve = read_curve(folder / f"data/students/hinted/seed-1/pretrain-{number}/curves", "train/loss")
        assert len(curve) == rows
    study["students"]["hinted"]["pretrain"][0].pop("epochs")
    line = refused(run, capsys, write_study(folder, study), "graph")
    assert "students.hinted.pretrain.0: expected exactly one of epochs and steps" in line


def test_a_phase_takes_what_it_leaves_out_from_its_student(study: dict[str, Any]) -> None:
    from pipeline.study.params_file import parse_study

    study["students"]["kd"] |= {
        "optimizer": {"name": "sgd", "lr": 0.5},
        "batch_size": 32,
        "pretrain": [{"losses": {"ce": {}}, "epochs": 1, "l1": 0.25}],
    }
    (phase,) = parse_study(study).students["kd"].pretrain
    assert (phase.optimizer.name, phase.optimizer.options["lr"], phase.batch_size) == ("sgd", 0.5, 32)
    assert (phase.l1, parse_study(study).students["kd"].l1, phase.epochs) == (0.25, 0.0, 1)


def test_fidelity_needs_a_student_of_one_phase(
    run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any]
) -> None:
    study["students"]["kd"]["pretrain"] = [{"losses": {"ce": {}}, "epochs": 1}]
    line = refused(run, capsys, write_study(tmp_path, study), "fidelity", "kd")
    assert "student 'kd': expected one phase, all of it, from fresh weights, found pretrain" in line
