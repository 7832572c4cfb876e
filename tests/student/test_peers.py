"""Peers: students that learn from each other, in turn."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, Adam

from pipeline.base.files import read_json
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.student import Checkpoints, train_cohort, train_student
from pipeline.student_phase import Phase, StudentRun
from pipeline.training.curves import read_curve
from pipeline.training.optimizers import constant
from pipeline.training.options import Restore, TrainingOptions
from pipeline.training.result import TrainedStudent, student_metrics
from pipeline.training.rows import Splits
from pipeline.training.run import Run
from pipeline.training.sample_order import RandomOrder
from tests.conftest import Run as RunCommand
from tests.conftest import write_study
from tests.scenes import CPU, digits, stopped_at_save

MODEL = {"name": "mlp", "widths": [10]}
LR = 0.05


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits.from_dataset(digits(), CPU)


def recipe(weight: float = 1.0, **options: Any) -> Recipe:
    defaults = {"temperature": 1.0, "over_peers": "mean", "reduction": "mean"}
    return Recipe(
        (Term("ce", steady(1, value=1.0), {}), Term("mutual_kl", steady(1, value=weight), {**defaults, **options}))
    )


def cohort(
    splits: Splits, peers: int, made: Recipe, *, model: Any = MODEL, epochs: int = 2, **how: Any
) -> list[TrainedStudent]:
    options = how.pop("options", TrainingOptions(partial(SGD, lr=LR), constant, epochs=epochs, batch_size=64))
    run = StudentRun(model, [Phase(made, options)], 3, "s")
    return train_cohort(splits, {}, [run], peers=peers, checkpoints=Checkpoints(**how))[0]


def by_hand(splits: Splits, peers: int, epochs: int, *, over_peers: str, temperature: float) -> list[dict[str, Tensor]]:
    """Deep mutual learning as its authors write it: for each batch, each network in turn, with what the others say now."""
    networks = []
    for peer in range(peers):
        with fork_seeded_rng(derive_seed(3, "init", *([peer] if peer else [])), CPU):
            networks.append(build_network(MODEL, splits.shape, splits.classes))
    optimizers = [SGD(network.parameters(), lr=LR) for network in networks]
    order = RandomOrder(len(splits.train), derive_seed(3, "order"))
    for epoch in range(epochs):
        for ids in torch.split(order.ids(epoch), 64):
            images, labels = splits.train.images[ids], splits.train.labels[ids]
            for network, optimizer in zip(networks, optimizers, strict=True):
                own = network(images)
                loss = functional.cross_entropy(own, labels)
                divergences = []
                for other in networks:
                    if other is not network:
                        p = functional.softmax(other(images).detach() / temperature, dim=1)
                        q = functional.softmax(own / temperature, dim=1)
                        divergences.append((p * (p.log() - q.log())).sum(1).mean())
                mutual = torch.stack(divergences).sum()
                loss = loss + (mutual / (peers - 1) if over_peers == "mean" else mutual)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return [network.state_dict() for network in networks]


@pytest.mark.parametrize(("peers", "over_peers", "temperature"), [(2, "mean", 1.0), (3, "mean", 2.0), (3, "sum", 1.0)])
def test_it_is_mutual_learning_by_hand(splits: Splits, peers: int, over_peers: str, temperature: float) -> None:
    found = cohort(splits, peers, recipe(over_peers=over_peers, temperature=temperature))
    expected = by_hand(splits, peers, 2, over_peers=over_peers, temperature=temperature)
    for run, state in zip(found, expected, strict=True):
        for name in state:
            torch.testing.assert_close(run.state("last")[name], state[name], rtol=1e-4, atol=1e-5)


def test_turns_matter(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that are asked once a batch, instead of after each one's step, would end elsewhere."""
    in_turn = cohort(splits, 2, recipe())

    def at_once(self: Any, batch: Any) -> None:
        said = [trainee.peer_logits(batch) for trainee in self.trainees]
        for number, trainee in enumerate(self.trainees):
            others = torch.stack([*said[:number], *said[number + 1 :]])
            trainee.step(replace(batch, peers=others))

    monkeypatch.setattr(Run, "step_mutually", at_once)
    together = cohort(splits, 2, recipe())
    name = "body.fc1.weight"
    assert not torch.equal(in_turn[1].state("last")[name], together[1].state("last")[name])


def test_peers_start_apart_and_the_first_is_the_lone_student(splits: Splits) -> None:
    still = TrainingOptions(partial(SGD, lr=1e-30), constant, epochs=1, batch_size=64)
    first, second = (run.state("last") for run in cohort(splits, 2, recipe(), options=still))
    ce = Recipe((Term("ce", steady(1, value=1.0), {}),))
    lone = train_student(splits, {}, ce, model=MODEL, options=still, seed=3, what="s").state("last")
    assert all(torch.equal(first[name], lone[name]) for name in lone)
    assert not torch.equal(first["body.fc1.weight"], second["body.fc1.weight"])


def test_what_is_learned_pulls_them_together(splits: Splits) -> None:
    def apart(weight: float) -> float:
        networks = []
        for run in cohort(splits, 2, recipe(weight), epochs=6):
            network = build_network(MODEL, splits.shape, splits.classes).eval()
            network.load_state_dict(run.state("last"))
            networks.append(network)
        said = [functional.log_softmax(network(splits.test.images), dim=1) for network in networks]
        return (said[0].exp() * (said[0] - said[1])).sum(1).mean().item()

    assert apart(3.0) < 0.7 * apart(0.0)


def test_statistics_are_gathered_by_its_own_steps_alone(splits: Splits) -> None:
    runs = cohort(splits, 3, recipe(), model={"name": "mlp", "widths": [9, 9, 9], "binary": {"form": "xnor"}}, epochs=2)
    steps = 2 * -(-len(splits.train) // 64)
    assert [int(run.state("last")["body.fc2.norm.num_batches_tracked"]) for run in runs] == [steps] * 3


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_kill_changes_nothing(tmp_path: Path, splits: Splits, stop: int) -> None:
    model = {**MODEL, "dropout": 0.4}
    options = TrainingOptions(partial(Adam, lr=0.01), constant, epochs=4, batch_size=64)
    whole = cohort(splits, 2, recipe(), model=model, options=options)
    how: dict[str, Any] = {"path": tmp_path / "checkpoint.pt", "seconds": 0.0}
    with stopped_at_save(stop):
        cohort(splits, 2, recipe(), model=model, options=options, **how)
    again = cohort(splits, 2, recipe(), model=model, options=options, **how)
    for before, after in zip(whole, again, strict=True):
        assert before.fitted.history == after.fitted.history
        assert all(torch.equal(before.state("best")[name], after.state("best")[name]) for name in before.state("best"))


def test_a_nan_of_one_takes_all_back(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Network.forward, 0

    def broken(self: Network, images: Tensor) -> Tensor:
        nonlocal calls
        calls += self.training and torch.is_grad_enabled()
        return real(self, images) * (float("nan") if calls == 6 else 1)

    monkeypatch.setattr(Network, "forward", broken)
    options = TrainingOptions(partial(SGD, lr=LR), constant, epochs=2, batch_size=64, on_nan=Restore(10.0))
    runs = cohort(splits, 2, recipe(), options=options)
    assert [run.restores for run in runs] == [1, 1]
    assert [row["lr"] for run in runs for row in run.fitted.history] == pytest.approx([LR / 10] * 4)


def test_the_mean_over_peers_is_one_value(splits: Splits) -> None:
    runs = [cohort(splits, 2, recipe()), cohort(splits, 2, recipe(), epochs=3)]
    made = student_metrics(runs, "last")
    per_peer = [[run.accuracy("last") for run in peers] for peers in runs]
    assert made["test_accuracy_per_peer"] == per_peer
    assert made["test_accuracy_per_seed"] == pytest.approx([sum(peers) / 2 for peers in per_peer])
    assert made["test_accuracy"]["n"] == 2
    assert per_peer[0][0] != per_peer[0][1]


def test_a_study_with_peers(run: RunCommand, tmp_path: Path, study: dict[str, Any]) -> None:
    study["students"]["mutual"] = {
        **study["students"]["baseline"], "peers": 3,
        "losses": {"ce": {}, "mutual_kl": {"weight": 0.5}}, "pretrain": [{"losses": {"ce": {}}, "epochs": 1}],
    }  # fmt: skip
    folder = write_study(tmp_path, study)
    for command in ("prepare digits", "train-student mutual"):
        assert run(folder, *command.split()) == 0
    metrics = read_json(folder / "data/metrics/students/mutual.json", "")
    assert [len(peers) for peers in metrics["test_accuracy_per_peer"]] == [3, 3]
    assert metrics["phase_epochs"] == [1, 2]
    seed = folder / "data/students/mutual/seed-1"
    cards = [read_json(place / "card.json", "") for place in (seed, seed / "peer-1", seed / "peer-2")]
    assert [card["peer"] for card in cards] == [0, 1, 2]
    assert [card["test_accuracy"] for card in cards] == metrics["test_accuracy_per_peer"][1]
    assert [card["weights_sha256"] for card in cards] == [metrics["weights_sha256"][1], *metrics["peers_sha256"][1]]
    assert len({card["weights_sha256"] for card in cards}) == 3
    for place in (seed, seed / "peer-2"):
        assert len(read_curve(place / "curves", "train/mutual_kl")) == 2
        assert len(read_curve(place / "pretrain-1/curves", "train/ce")) == 1
