from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from pipeline.base.errors import InputError
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.datasets.split import First
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.training.batches import Batch
from pipeline.training.fit import fit
from pipeline.training.network_trainer import FitResult, History
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows, Splits, evaluate, per_class_accuracy

MODEL = {"name": "mlp", "widths": [16], "dropout": 0.3}


@pytest.fixture(scope="module")
def splits() -> Splits:
    dataset = prepare_dataset("digits", "digits", Place("digits"), train=First(230), validation=First(100))
    return Splits.from_dataset(dataset, torch.device("cpu"))


def training_options(**changes: Any) -> TrainingOptions:
    made = {"optimizer": partial(Adam, lr=0.01), "scheduler": lambda optimizer, _: StepLR(optimizer, 2, 0.5)}
    return TrainingOptions(**{**made, "epochs": 4, "batch_size": 50, **changes})


def ce(network: Network, batch: Batch) -> dict[str, Tensor]:
    return {"ce": functional.cross_entropy(network(batch.images), batch.labels)}


def train(
    splits: Splits,
    how: TrainingOptions,
    *,
    seed: int = 0,
    objective: Callable[..., dict[str, Tensor]] = ce,
    **options: Any,
) -> tuple[Network, FitResult]:
    torch.manual_seed(7)
    network = build_network(MODEL, splits.shape, splits.classes)
    validation = options.pop("validation", splits.validation)
    return network, fit(
        network, splits.train, validation, objective, options=how, seed=seed, what="student 's'", **options
    )


def same(a: FitResult, b: FitResult) -> bool:
    states = ((a.last, b.last), (a.best, b.best))
    return a.history == b.history and all(torch.equal(x[key], y[key]) for x, y in states for key in x)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(splits: Splits) -> None:
    first, again, other = (train(splits, training_options(), seed=seed)[1] for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("plateau", [False, True])
def test_a_killed_training_resumes_with_the_same_result(
    tmp_path: Path, splits: Splits, stop_after: int, plateau: bool
) -> None:
    scheduler = (
        (lambda optimizer, _: ReduceLROnPlateau(optimizer, patience=0)) if plateau else training_options().scheduler
    )
    how, path = training_options(scheduler=scheduler), tmp_path / "checkpoint.pt"

    def kill(history: History) -> None:
        if len(history) == stop_after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(splits, how, checkpoint=path, checkpoint_seconds=0, on_epoch=kill)
    seen: list[int] = []
    resumed = train(splits, how, checkpoint=path, on_epoch=lambda history: seen.append(len(history)))[1]
    assert seen[0] == stop_after  # it went on from there, with the whole history
    assert same(resumed, train(splits, how)[1])


def test_a_finished_training_is_not_run_again(tmp_path: Path, splits: Splits) -> None:
    path = tmp_path / "checkpoint.pt"
    first = train(splits, training_options(), checkpoint=path)[1]

    def never(*_: object) -> dict[str, Tensor]:
        raise AssertionError("trained again")

    assert same(first, train(splits, training_options(), checkpoint=path, objective=never)[1])


def test_the_best_epoch_is_kept(splits: Splits) -> None:
    network, fitted = train(splits, training_options(epochs=12))
    accuracies = [row["validation/accuracy"] for row in fitted.history]
    assert fitted.best_epoch == accuracies.index(max(accuracies)) + 1
    network.load_state_dict(fitted.best)
    assert float(evaluate(network, splits.validation)[0].double().mean()) == max(accuracies)


def test_without_validation_the_last_epoch_is_the_best(splits: Splits) -> None:
    nobody = Rows(splits.train.images[:0], splits.train.labels[:0], splits.classes)
    _, fitted = train(splits, training_options(), validation=nobody)
    assert fitted.best_epoch == 4
    assert all(torch.equal(fitted.best[key], fitted.last[key]) for key in fitted.last)
    assert "validation/accuracy" not in fitted.history[0]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [50, 50, 50, 50, 30]), (True, [50, 50, 50, 50])])
def test_an_epoch_sees_every_row_once(splits: Splits, drop_last: bool, sizes: list[int]) -> None:
    seen: list[Tensor] = []

    def watch(network: Network, batch: Batch) -> dict[str, Tensor]:
        assert torch.equal(splits.train.images[batch.ids], batch.images)
        assert torch.equal(splits.train.labels[batch.ids], batch.labels)
        seen.append(batch.ids)
        return ce(network, batch)

    train(splits, training_options(epochs=1, drop_last=drop_last), objective=watch)
    assert [len(ids) for ids in seen] == sizes
    assert len(torch.unique(torch.cat(seen))) == sum(sizes)


def test_steps_cut_the_last_epoch_short(splits: Splits) -> None:
    count = 0

    def watch(network: Network, batch: Batch) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        return ce(network, batch)

    _, fitted = train(splits, training_options(epochs=None, steps=7), objective=watch)
    assert (count, len(fitted.history)) == (7, 2)


def test_a_nan_names_its_term_and_step(splits: Splits) -> None:
    calls = 0

    def break_at_seven(network: Network, batch: Batch) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return {**ce(network, batch), "soft_targets": network(batch.images).sum() * (float("nan") if calls == 7 else 0)}

    with pytest.raises(InputError, match=r"student 's': loss term 'soft_targets' at step 7: expected a finite number"):
        train(splits, training_options(), objective=break_at_seven)


def test_weights_that_the_last_step_broke_are_refused(splits: Splits) -> None:
    with pytest.raises(InputError, match="student 's': weights after epoch 1: expected finite numbers"):
        train(splits, training_options(epochs=1, batch_size=230, optimizer=partial(SGD, lr=float("inf"))))


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, splits: Splits, damage: bytes | None) -> None:
    path = tmp_path / "checkpoint.pt"
    train(splits, training_options(epochs=1), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(
        InputError, match=r"checkpoint .*: expected unfinished training, found a damaged file.*delete it"
    ):
        train(splits, training_options(epochs=1), checkpoint=path)


def test_l1_is_added_to_the_loss(splits: Splits) -> None:
    frozen = partial(SGD, lr=1e-30)
    network, fitted = train(splits, training_options(epochs=1, l1=0.01, optimizer=frozen))
    norm = sum(float(parameter.detach().abs().sum()) for parameter in network.parameters())
    assert fitted.history[0]["train/l1"] == pytest.approx(0.01 * norm, rel=1e-5)


def test_the_learning_rate_follows_its_schedule(splits: Splits) -> None:
    _, fitted = train(splits, training_options())
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.01, 0.01, 0.005, 0.005])


@pytest.mark.parametrize(("batch_size", "found"), [(229, "a batch of one"), (1, "a batch of one")])
def test_batch_normalisation_refuses_a_batch_of_one(splits: Splits, batch_size: int, found: str) -> None:
    network = Network(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)))
    with pytest.raises(InputError, match=found):
        fit(
            network,
            splits.train,
            splits.validation,
            ce,
            options=training_options(batch_size=batch_size),
            seed=0,
            what="s",
        )
    if batch_size > 1:
        how = training_options(batch_size=batch_size, drop_last=True, epochs=1)
        fit(network, splits.train, splits.validation, ce, options=how, seed=0, what="s")


def test_more_than_all_in_a_batch_is_refused_where_it_would_be_dropped(splits: Splits) -> None:
    with pytest.raises(InputError, match="batch_size: expected at most the 230 training images, found 231"):
        train(splits, training_options(batch_size=231, drop_last=True))


def test_accuracy_per_class() -> None:
    rows = Rows(torch.zeros(4, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 0, 2, 2]), 3)
    scores = per_class_accuracy(torch.tensor([True, False, True, True]), rows)
    assert scores == {"test_accuracy": 0.75, "test_accuracy_per_class": [0.5, None, 1.0]}


def test_evaluation_is_the_mean_over_all_rows(splits: Splits) -> None:
    network, _ = train(splits, training_options())
    right, loss = evaluate(network, splits.train)
    logits = network(splits.train.images).detach().double()
    assert loss == pytest.approx(functional.cross_entropy(logits, splits.train.labels).item(), abs=1e-9)
    assert np.array_equal(right.numpy(), (logits.argmax(1) == splits.train.labels).numpy())
