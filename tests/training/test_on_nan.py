"""What an epoch that ends in NaN costs: nothing but its time, where the options say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.base.errors import InputError
from pipeline.base.files import read_json
from pipeline.base.seeds import fork_seeded_rng
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.datasets.split import First
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.training.batches import Batch
from pipeline.training.fit import fit
from pipeline.training.network_trainer import FitResult, History, copy_state
from pipeline.training.optimizers import constant, cosine, step
from pipeline.training.options import Restore, TrainingOptions
from pipeline.training.rows import Splits
from tests.conftest import Run, write_study
from tests.scenes import CPU

MODEL = {"name": "mlp", "widths": [16], "dropout": 0.3}


@pytest.fixture(scope="module")
def splits() -> Splits:
    dataset = prepare_dataset("digits", "digits", Place("digits"), train=First(200), validation=First(100))
    return Splits.from_dataset(dataset, CPU)


class Breaking:
    """Cross-entropy that is NaN at chosen calls, and remembers what each call saw."""

    def __init__(self, *calls: int) -> None:
        self.calls, self.seen = calls, list[tuple[dict[str, Tensor], Tensor, Tensor]]()

    def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        logits = network(batch.images)
        self.seen.append((copy_state(network), batch.ids, logits.detach()))
        broken = float("nan") if len(self.seen) in self.calls else 1.0
        return {"ce": functional.cross_entropy(logits, batch.labels) * broken}


def train(
    splits: Splits, objective: Callable[..., dict[str, Tensor]], on_nan: Restore | None, **changes: Any
) -> FitResult:
    torch.manual_seed(7)
    made: dict[str, Any] = {"optimizer": partial(Adam, lr=0.01), "scheduler": constant, "epochs": 4, "batch_size": 50}
    options = {key: changes.pop(key) for key in ("checkpoint", "checkpoint_seconds", "on_epoch") if key in changes}
    return fit(
        build_network(MODEL, splits.shape, splits.classes), splits.train, splits.validation, objective,
        options=TrainingOptions(**{**made, **changes, "on_nan": on_nan}), seed=1, what="student 's'", **options,
    )  # fmt: skip


def test_the_epoch_is_tried_again_from_its_start_at_a_smaller_rate(splits: Splits) -> None:
    breaking = Breaking(7)  # the third step of the second epoch
    fitted = train(splits, breaking, Restore(divide=100.0))
    assert fitted.restores == 1
    assert len(fitted.history) == 4
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.01, 1e-4, 1e-4, 1e-4])
    assert len(breaking.seen) == 5 * 4  # one epoch twice
    for (state, ids, logits), (again, its, its_logits) in zip(breaking.seen[4:5], breaking.seen[8:9], strict=True):
        assert all(torch.equal(state[name], again[name]) for name in state)
        assert torch.equal(ids, its)  # the same batch
        assert torch.equal(logits, its_logits)  # and the same dropout
    moved = max(float((breaking.seen[9][0][name] - breaking.seen[8][0][name]).abs().max()) for name in fitted.last)
    assert moved == pytest.approx(1e-4, rel=0.01)  # one step of Adam with its moments as they were, at the new rate


def test_without_a_nan_nothing_changes(splits: Splits) -> None:
    plain, careful = train(splits, Breaking(), None), train(splits, Breaking(), Restore())
    assert plain.history == careful.history
    assert all(torch.equal(plain.last[name], careful.last[name]) for name in plain.last)
    assert careful.restores == 0


def test_it_is_off_by_default(splits: Splits) -> None:
    with pytest.raises(InputError, match="loss term 'ce' at step 7"):
        train(splits, Breaking(7), None)


def test_it_gives_up_after_so_many_times(splits: Splits) -> None:
    with pytest.raises(InputError, match=r"loss term 'ce' at step 5: .*; on_nan has gone back 2 times, and gives up"):
        train(splits, Breaking(5, 9, 13), Restore(at_most=2))
    assert train(splits, Breaking(5, 9, 13), Restore(at_most=3)).restores == 3


def test_each_time_divides_again(splits: Splits) -> None:
    fitted = train(splits, Breaking(5, 9), Restore(divide=10.0))
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.01, 1e-4, 1e-4, 1e-4])
    assert fitted.restores == 2


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (partial(step, every=2, factor=0.5), [0.01, 1e-4, 5e-5, 5e-5]),
        (cosine, [0.01, 8.535533905932738e-05, 5e-05, 1.4644660940672627e-05]),
        (lambda optimizer, _: ReduceLROnPlateau(optimizer, patience=50), [0.01, 1e-4, 1e-4, 1e-4]),
    ],
)
def test_the_schedule_goes_on_from_the_smaller_rate(splits: Splits, schedule: Any, rates: list[float]) -> None:
    fitted = train(splits, Breaking(7), Restore(), scheduler=schedule)
    assert [row["lr"] for row in fitted.history] == pytest.approx(rates, rel=1e-6)


def test_weights_that_the_last_step_broke_are_taken_back(splits: Splits) -> None:
    fitted = train(splits, Breaking(), Restore(divide=1e40), optimizer=partial(SGD, lr=1e38), epochs=2)
    assert fitted.restores == 1
    assert all(tensor.isfinite().all() for tensor in fitted.last.values())


def test_running_statistics_must_be_numbers_too(splits: Splits) -> None:
    """A variance may overflow where no loss does; nobody could read such weights back."""
    with fork_seeded_rng(1, CPU):
        network = build_network(
            {"name": "mlp", "widths": [9, 9, 9], "binary": {"form": "xnor"}}, splits.shape, splits.classes
        )
    network.get_buffer("body.fc2.norm.running_var").fill_(float("inf"))
    options = TrainingOptions(partial(SGD, lr=1e-30), constant, epochs=1, batch_size=50)
    with pytest.raises(InputError, match="student 's': weights after epoch 1: expected finite numbers"):
        fit(network, splits.train, splits.validation, Breaking(), options=options, seed=1, what="student 's'")


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_kill_changes_nothing(tmp_path: Path, splits: Splits, stop_after: int) -> None:
    class Exploding(Breaking):
        """Broken at a step of the training, however often the process started."""

        def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
            broken = batch.epoch == 1 and batch.number == 2 and float(rate[0]) > 0.005
            return {
                "ce": functional.cross_entropy(network(batch.images), batch.labels) * (float("nan") if broken else 1)
            }

    rate = [0.01]
    path = tmp_path / "checkpoint.pt"

    def optimizer(parameters: Any) -> SGD:
        made = SGD(parameters, lr=0.01)
        rate[0] = 0.01
        made.register_step_pre_hook(lambda its, *_: rate.__setitem__(0, its.param_groups[0]["lr"]))
        return made

    def kill(history: History) -> None:
        if len(history) == stop_after + 1:
            raise KeyboardInterrupt

    whole = train(splits, Exploding(), Restore(), optimizer=optimizer)
    assert whole.restores == 1
    with pytest.raises(KeyboardInterrupt):
        train(splits, Exploding(), Restore(), optimizer=optimizer, checkpoint=path, checkpoint_seconds=0, on_epoch=kill)
    again = train(splits, Exploding(), Restore(), optimizer=optimizer, checkpoint=path)
    assert again.history == whole.history
    assert again.restores == 1
    assert all(torch.equal(again.last[name], whole.last[name]) for name in whole.last)


def test_it_is_counted_in_the_metrics(run: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    broken = {"optimizer": {"name": "sgd", "lr": 1e30}, "on_nan": {"divide": 1e32, "at_most": 2}}
    study["students"]["baseline"] |= broken
    study["teachers"]["big"] |= broken
    folder = write_study(tmp_path, study)
    for command in ("prepare digits", "train-teacher big", "train-student baseline"):
        assert run(folder, *command.split()) == 0
    assert read_json(folder / "data/metrics/students/baseline.json", "")["restores"] == [1, 1]
    assert read_json(folder / "data/metrics/teachers/big.json", "")["restores"] == 1
