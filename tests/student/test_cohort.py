"""Seeds and points of a grid that are trained together: none of them can tell that it has company."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline import student
from pipeline.base.errors import InputError
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.losses.weights.schedules import piecewise
from pipeline.models import build
from pipeline.models.network import Network
from pipeline.student import Checkpoints, train_cohort
from pipeline.student_phase import Phase, StudentRun
from pipeline.training import stack
from pipeline.training.optimizers import adam, adamw, cosine, plateau, sgd
from pipeline.training.options import Restore
from pipeline.training.result import TrainedStudent
from pipeline.training.trainable_part import TrainablePart
from pipeline.views.view import PLAIN, Views
from tests.cached_scene import CASES, CE, CHANNELS, HINT, VIEWS, Scene, make_scene, term
from tests.exact_training import MLP, options, refuse_difference, run_of, train, train_in_float64
from tests.scenes import stopped_at_save

NETWORKS: dict[str, dict[str, Any]] = {
    "dropout": MLP,
    "two dropouts": {"name": "mlp", "widths": [12, 9], "dropout": 0.5, "activation": "tanh"},
    "no dropout": {"name": "mlp", "widths": [12]},
    "convolutions": {"name": "cnn", "widths": [3, 4, 8], "dropout": 0.3},
    "batch normalisation, binary": {"name": "mlp", "widths": [12, 10, 9], "binary": {"form": "xnor"}},
    # No binary convolutions: equal sums and constant units leave it to rounding which is the largest, or the sign.
    "residual": {"name": "torchvision:resnet18"},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    train_in_float64(monkeypatch)


def refuse_company(scene: Scene, runs: Sequence[StudentRun], views: Views = PLAIN, **how: Any) -> list[TrainedStudent]:
    """Train runs together and each alone: the results must not differ."""
    together = train(scene, runs, views, **how)
    for run, made in zip(runs, together, strict=True):
        (alone,) = train(scene, [run], views, **how)
        refuse_difference(alone, made)
    return together


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the stacks that are trained from now on."""
    sizes: list[int] = []
    real = stack.Stack.train_epoch

    def note(self: stack.Stack) -> None:
        sizes.append(len(self.runs))
        real(self)

    monkeypatch.setattr(stack.Stack, "train_epoch", note)
    return sizes


@pytest.mark.parametrize("case", CASES)
def test_a_seed_cannot_tell_its_company(scene: Scene, stacked: list[int], case: str) -> None:
    terms, views, changes = CASES[case]
    made = refuse_company(scene, [run_of(seed, Phase(Recipe(terms), options(**changes))) for seed in (4, 5, 6)], views)
    assert set(stacked) == {3}
    first, second = (dict(each.state("last"))["body.fc1.weight"] for each in made[:2])
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", ["dropout", "convolutions"])
def test_in_sixteen_bits_company_is_within_their_rounding(scene: Scene, stacked: list[int], name: str) -> None:
    model = {**NETWORKS[name], "computed": {"precision": "bfloat16"}}
    terms, *_ = CASES["several"]
    how = options(epochs=1, optimizer=partial(sgd, lr=0.05))
    runs = [run_of(seed, Phase(Recipe(terms), how), model=model) for seed in (1, 2, 3)]
    together = train(scene, runs)
    assert stacked == [3]
    for run, made in zip(runs, together, strict=True):
        (alone,) = train(scene, [run])
        for key, values in alone.state("last").items():
            found = made.state("last")[key]
            assert float((found - values).norm()) <= 0.02 * float(values.norm()), key
        assert made.fitted.history[-1]["train/loss"] == pytest.approx(alone.fitted.history[-1]["train/loss"], rel=0.01)


@pytest.mark.parametrize("name", NETWORKS)
def test_whatever_the_network(scene: Scene, stacked: list[int], name: str) -> None:
    phase = Phase(Recipe((CE, term("soft_targets", "logits", temperature=4.0))), options(epochs=2))
    if name == "residual":
        phase = Phase(phase.recipe, options(epochs=None, steps=2))
    refuse_company(scene, [run_of(seed, phase, model=NETWORKS[name]) for seed in (1, 2)])
    assert set(stacked) == {2}


OPTIMIZERS = {
    "momentum": partial(sgd, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain": partial(sgd, lr=0.05),
    "decay": partial(adamw, lr=0.01, weight_decay=0.1),
    "none of ours": partial(torch.optim.RMSprop, lr=0.001),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("l1", [0.0, 1e-4])
def test_whatever_the_optimizer(scene: Scene, stacked: list[int], name: str, l1: float) -> None:
    how = options(optimizer=OPTIMIZERS[name], scheduler=cosine, l1=l1)
    refuse_company(scene, [run_of(seed, Phase(Recipe((CE,)), how)) for seed in (1, 2, 3)])
    assert set(stacked) == {3}


def test_a_grid_of_weights_rates_and_optimizers(scene: Scene, stacked: list[int]) -> None:
    made = [
        Phase(Recipe((CE, Term("logits_mse", steady(3, value=weight), {}, "logits"))), options(optimizer=optimizer))
        for weight in (0.1, 2.0)
        for optimizer in (partial(adam, lr=0.01), partial(adam, lr=0.003), partial(sgd, lr=0.1))
    ]
    refuse_company(scene, [run_of(1, phase) for phase in made])
    assert set(stacked) == {6}


def test_runs_that_compute_something_else_are_stacked_apart(scene: Scene, stacked: list[int]) -> None:
    def phase(value: float, temperature: float) -> Phase:
        soft = Term("soft_targets", steady(3, value=value), {"temperature": temperature}, "logits")
        return Phase(Recipe((CE, soft)), options())

    phases = [phase(0.0, 1.0), phase(0.5, 1.0), phase(0.5, 4.0), phase(0.0, 1.0), phase(0.25, 1.0)]
    refuse_company(scene, [run_of(seed, each) for seed, each in enumerate(phases)])
    assert sorted(stacked) == [2] * 6  # 0 and 3, 1 and 4; the third is alone


def test_weights_that_change_by_epoch(scene: Scene, stacked: list[int]) -> None:
    late = Term("logits_mse", piecewise(4, points=((0, 0.0), (2, 0.0), (3, 1.0)), unit="epoch"), {}, "logits")
    refuse_company(scene, [run_of(seed, Phase(Recipe((CE, late)), options(epochs=4))) for seed in (1, 2)])
    assert set(stacked) == {2}


def test_phases_and_regressors(scene: Scene, stacked: list[int]) -> None:
    first = Phase(Recipe((HINT("hints"),)), options(epochs=2), trainable=TrainablePart(up_to="features"))
    last = Phase(Recipe((CE, HINT("hints"))), options(epochs=2))
    refuse_company(scene, [run_of(seed, first, last) for seed in (1, 2, 3)])
    assert stacked[:4] == [3] * 4


def test_channels_and_discriminators(scene: Scene, stacked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    channels = {**MLP, "head": {"name": "channel_outputs", "channels": CHANNELS}}
    bits = Phase(Recipe((term("multichannel_bce", "bits"),)), options())
    refuse_company(scene, [run_of(seed, bits, model=channels) for seed in (1, 2)])
    train_prepared = Recipe.train_prepared

    def widened(*args: Any) -> Any:
        modules, reports = train_prepared(*args)
        return {name: module.double() for name, module in modules.items()}, reports

    monkeypatch.setattr(Recipe, "train_prepared", widened)
    small = DiscriminatorOptions(epochs=2, least_accuracy=0.0)
    dumps = {"teacher": "exact", "initial": "logits"}
    fooled = Phase(Recipe((CE, Term("adversarial", steady(1, value=0.5), {"discriminator": small}, dumps))), options())
    refuse_company(scene, [run_of(seed, fooled) for seed in (1, 2)])
    assert set(stacked) == {2}


def test_schedules_of_each(scene: Scene, stacked: list[int]) -> None:
    """Their validation losses stop falling at different epochs, so that their rates part."""
    how = options(optimizer=partial(adam, lr=0.1), scheduler=partial(plateau, patience=1, factor=0.5), epochs=25)
    made = refuse_company(scene, [run_of(seed, Phase(Recipe((CE,)), how)) for seed in (1, 2, 3, 4)])
    rates = {tuple(row["lr"] for row in each.fitted.history) for each in made}
    assert len(rates) > 1
    assert set(stacked) == {4}


def test_only_the_run_that_ends_in_nan_goes_back(scene: Scene, stacked: list[int]) -> None:
    """One point of a grid explodes, and the others do not hear of it."""
    exploding = options(optimizer=partial(sgd, lr=1e200), on_nan=Restore(1e202, 3))
    sound = options(optimizer=partial(sgd, lr=0.05), on_nan=Restore(1e202, 3))
    runs = [run_of(1, Phase(Recipe((CE,)), how)) for how in (sound, exploding, sound)]
    made = refuse_company(scene, runs)
    assert [each.restores for each in made] == [0, 1, 0]
    assert set(stacked) == {3}


def test_a_run_that_does_not_recover_stops_all_and_is_named(scene: Scene) -> None:
    exploding = options(optimizer=partial(sgd, lr=1e200))
    runs = [run_of(1, Phase(Recipe((CE,)), options())), run_of(2, Phase(Recipe((CE,)), exploding))]
    with pytest.raises(InputError, match=r"seed 2: (loss term 'ce' at step|weights after epoch 1)"):
        train(scene, runs)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_kill_changes_nothing(scene: Scene, tmp_path: Path, stop: int) -> None:
    how = options(optimizer=partial(adam, lr=0.01), scheduler=partial(plateau, patience=1), epochs=4)
    runs = [run_of(seed, Phase(Recipe((CE,)), how)) for seed in (1, 2)]
    whole = train(scene, runs)
    path = tmp_path / "checkpoint.pt"
    with stopped_at_save(stop):
        train(scene, runs, checkpoints=Checkpoints(path, 0.0))
    again = train(scene, runs, checkpoints=Checkpoints(path, 0.0))
    for before, after in zip(whole, again, strict=True):
        assert before.fitted.history == after.fitted.history
        for select in ("best", "last"):
            states = dict(before.state(select)), dict(after.state(select))
            assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_streamed_fields(scene: Scene, stacked: list[int]) -> None:
    terms = (CE, term("soft_targets", "logits-views", temperature=4.0), HINT("hints-views"))
    refuse_company(scene, [run_of(seed, Phase(Recipe(terms), options())) for seed in (1, 2)], VIEWS, streamed=True)
    assert set(stacked) == {2}


class Own(nn.Module):
    """A layer that no trace sees through."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * 2


REASONS = {
    "own": "layer Own of tests",
    "random": "random",
    "peers": "learn from each other",
    "convolution": "on a processor, convolutions",
    "large": "on a processor, .* weights",
}


@pytest.mark.parametrize("case", REASONS)
def test_what_cannot_be_stacked_is_trained_in_turn_and_said(
    scene: Scene, stacked: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    recipe, model, peers = Recipe((CE,)), MLP, 1
    real = build.draw_network

    def changed(*args: Any, **how: Any) -> Network:
        network = real(*args, **how)
        if case == "own":
            network.body.add_module("own", Own())
        if case == "random":
            network.body.add_module("random", nn.AlphaDropout(0.1))
        return network

    monkeypatch.setattr(student, "draw_network", changed)
    if case == "convolution":
        model = NETWORKS["convolutions"]
        monkeypatch.setattr(stack, "CONVOLUTIONS", (nn.Conv2d,))
    if case == "large":
        monkeypatch.setattr(stack, "MOST_WEIGHTS_ON_CPU", 10)
    if case == "peers":
        recipe, peers = Recipe((CE, term("mutual_kl"))), 2
    runs = [run_of(seed, Phase(recipe, options(epochs=1)), model=model) for seed in (1, 2)]
    with caplog.at_level(logging.WARNING):
        together = train_cohort(scene.splits(False), {}, runs, peers=peers)
    (line,) = caplog.messages
    assert line.startswith("student 's', seed 1, and 1 more: one after the other: ")
    assert re.search(REASONS[case], line)
    assert not stacked
    for run, made in zip(runs, together, strict=True):
        (alone,) = train_cohort(scene.splits(False), {}, [run], peers=peers)
        for one, other in zip(alone, made, strict=True):
            assert one.fitted.history == other.fitted.history


def test_a_loss_that_cannot_be_lowered_is_refused_in_company_too(scene: Scene) -> None:
    phase = Phase(Recipe((HINT("hints"),)), options(), trainable=TrainablePart(only=("logits",)))
    wide = {"name": "mlp", "widths": [16]}
    with pytest.raises(InputError, match="losses hint_mse: expected such as depend on the part"):
        train(scene, [run_of(seed, phase, model=wide) for seed in (1, 2)])


@pytest.mark.parametrize("case", CASES)
def test_a_traced_step_is_the_plain_one(scene: Scene, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """A lone run is traced where it has steps enough; it ends where it would have."""
    terms, views, changes = CASES[case]
    runs = [run_of(4, Phase(Recipe(terms), options(l1=1e-4, on_nan=Restore(), **changes)))]
    (plain,) = train(scene, runs, views)
    monkeypatch.setattr(stack, "FEWEST_STEPS", 0)
    traced: list[bool] = []
    real = stack.Stack.train_epoch

    def note(self: stack.Stack) -> None:
        traced.append(self.alone)
        real(self)

    monkeypatch.setattr(stack.Stack, "train_epoch", note)
    (made,) = train(scene, runs, views)
    assert traced == [True] * len(made.fitted.history)
    refuse_difference(plain, made)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_traced_step_is_the_plain_one_of_every_network(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    how = options(epochs=None, steps=3, optimizer=partial(sgd, lr=0.01, momentum=0.9))
    runs = [run_of(4, Phase(Recipe((CE, HINT("hints", tap="features"))), how), model=NETWORKS[name])]
    (plain,) = train(scene, runs)
    monkeypatch.setattr(stack, "FEWEST_STEPS", 0)
    refuse_difference(plain, train(scene, runs)[0])


DECAYING = {
    "momentum": partial(sgd, lr=0.05, momentum=0.9, weight_decay=0.1),
    "adamw": partial(adamw, lr=0.01, weight_decay=0.5),
}


@pytest.mark.parametrize("optimizer", DECAYING)
@pytest.mark.parametrize("model", ["no dropout", "batch normalisation, binary"])
def test_what_no_loss_reaches_is_left_alone(scene: Scene, stacked: list[int], optimizer: str, model: str) -> None:
    """Neither decay nor momentum acts on a head that hints do not reach; its statistics are gathered."""
    hint = Phase(Recipe((HINT("hints", tap="fc1"),)), options(optimizer=DECAYING[optimizer], epochs=2))
    refuse_company(scene, [run_of(seed, hint, model=NETWORKS[model]) for seed in (1, 2)])
    assert stacked == [2, 2]


def test_what_acts_in_training_alone_is_trained(
    scene: Scene, stacked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.in_training = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, images: Tensor) -> Tensor:
            rows = images.flatten(1)
            logits: Tensor = self.always(rows)
            return logits + self.in_training(rows) if self.training else logits

    Doubled.__module__ = "timm.layers"
    real = build.draw_network

    def doubled(*args: Any, **how: Any) -> Network:
        network = real(*args, **how)
        with torch.random.fork_rng():
            torch.manual_seed(how["seed"] % 2**32)
            network.body = Doubled()
        return network.double()

    monkeypatch.setattr(student, "draw_network", doubled)
    made = refuse_company(scene, [run_of(seed, Phase(Recipe((CE,)), options())) for seed in (1, 2)])
    assert 2 in stacked
    first, second = (dict(each.state("last"))["body.in_training.weight"] for each in made)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("optimizer", DECAYING)
def test_a_regressor_rests_while_its_term_weighs_nothing(scene: Scene, stacked: list[int], optimizer: str) -> None:
    points = ((0, 1.0), (1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0))
    resting = Term("hint_mse", piecewise(6, points=points, unit="epoch"), HINT("hints").options, "hints")
    how = options(optimizer=DECAYING[optimizer], epochs=6)
    refuse_company(scene, [run_of(seed, Phase(Recipe((CE, resting)), how)) for seed in (1, 2)])
    assert stacked == [2] * 6


def test_a_term_that_weighs_nothing_at_first_is_no_reason_to_refuse(scene: Scene) -> None:
    late = Term("ce", piecewise(4, points=((0, 0.0), (1, 0.0), (2, 1.0)), unit="epoch"), {})
    phase = Phase(Recipe((late, HINT("hints"))), options(), trainable=TrainablePart(only=("logits",)))
    refuse_company(scene, [run_of(seed, phase, model={"name": "mlp", "widths": [16]}) for seed in (1, 2)])


def test_a_trace_draws_nothing_of_a_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = build.draw_network

    def noisy(*args: Any, **how: Any) -> Network:
        network = real(*args, **how).double()
        network.body.add_module("noise", nn.AlphaDropout(0.1))
        return network

    monkeypatch.setattr(student, "draw_network", noisy)
    runs = [run_of(1, Phase(Recipe((CE,)), options()))]
    (plain,) = train(scene, runs)
    monkeypatch.setattr(stack, "FEWEST_STEPS", 0)
    refuse_difference(plain, train(scene, runs)[0])


@pytest.mark.parametrize("stacked_first", [True, False])
def test_a_checkpoint_of_a_stack_is_none_of_runs_in_turn(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stacked_first: bool
) -> None:
    """On another day there was no room for a stack: the runs begin again, and end the same."""
    runs = [run_of(seed, Phase(Recipe((CE,)), options())) for seed in (1, 2)]
    limits = (10**9, 10) if stacked_first else (10, 10**9)
    monkeypatch.setattr(stack, "MOST_WEIGHTS_ON_CPU", limits[0])
    whole = train(scene, runs)
    with stopped_at_save(1):
        train(scene, runs, checkpoints=Checkpoints(tmp_path / "c.pt", 0.0))
    monkeypatch.setattr(stack, "MOST_WEIGHTS_ON_CPU", limits[1])
    for one, other in zip(whole, train(scene, runs, checkpoints=Checkpoints(tmp_path / "c.pt", 0.0)), strict=True):
        refuse_difference(one, other)
