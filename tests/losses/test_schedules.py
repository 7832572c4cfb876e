"""Schedules: of loss weights (as data, by hand, and in a real training) and of learning rates."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD, Optimizer

from pipeline.base.errors import InputError
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights import SCHEDULES
from pipeline.losses.weights.mentoring import adamant, gullible, obedient
from pipeline.losses.weights.schedules import build_schedule, exponential, piecewise
from pipeline.runs.recipes import build_recipe as recipe
from pipeline.student import train_student
from pipeline.study.params_file import parse_study
from pipeline.training.optimizers import constant as steady
from pipeline.training.optimizers import plateau
from pipeline.training.options import TrainingOptions
from pipeline.training.registries import LR_SCHEDULES, OPTIMIZERS
from pipeline.training.rows import Splits
from tests.scenes import CPU, digits

# By schedule as `params.yaml` states it: its weights in the first, second, third (middle), fourth and last of 5 epochs.
BY_HAND: list[tuple[dict[str, Any], list[float]]] = [
    ({"name": "constant", "value": 0.25}, [0.25] * 5),
    ({"name": "linear", "start": 1.0, "end": 3.0}, [1.0, 1.5, 2.0, 2.5, 3.0]),
    ({"name": "linear", "start": 1.0, "end": 0.0}, [1.0, 0.75, 0.5, 0.25, 0.0]),
    ({"name": "exponential", "start": 8.0, "factor": 0.5}, [8.0, 4.0, 2.0, 1.0, 0.5]),
    ({"name": "exponential", "start": 8.0, "factor": 0.5, "floor": 1.5}, [8.0, 4.0, 2.0, 1.5, 1.5]),
    ({"name": "exponential", "start": 1.0, "factor": 2.0}, [1.0, 2.0, 4.0, 8.0, 16.0]),
    ({"name": "cosine", "start": 2.0}, [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5), 0.0]),
    ({"name": "cosine", "start": 0.0, "end": 1.0}, [0.0, 0.5 - math.sqrt(0.125), 0.5, 0.5 + math.sqrt(0.125), 1.0]),
    ({"name": "warm_up", "value": 3.0, "over": 3}, [0.0, 1.0, 2.0, 3.0, 3.0]),
    ({"name": "warm_up", "value": 1.0, "over": 2, "start": 0.5}, [0.5, 0.75, 1.0, 1.0, 1.0]),
    ({"name": "warm_up", "value": 1.0, "over": 0}, [1.0] * 5),
    ({"name": "warm_up", "value": 8.0, "over": 8}, [0.0, 1.0, 2.0, 3.0, 4.0]),
    ({"name": "piecewise", "points": [[1, 1.0], [3, 2.0]]}, [1.0, 1.0, 1.5, 2.0, 2.0]),
    (
        {"name": "piecewise", "points": [[0.0, 0.0], [0.5, 1.0], [1.0, 0.5]], "unit": "share"},
        [0.0, 0.5, 1.0, 0.75, 0.5],
    ),
    ({"name": "piecewise", "points": [[2, 0.5]]}, [0.5] * 5),
    ({"name": "adamant", "of": "labels"}, [1.0, 0.8, 0.6, 0.4, 0.2]),
    ({"name": "adamant", "of": "hints"}, [0.25, 0.1875, 0.125, 0.0625, 0.0]),
    ({"name": "adamant", "of": "softmax", "scale": 2.0}, [0.5, 0.375, 0.25, 0.125, 0.0]),
    ({"name": "obedient", "of": "labels"}, [0.1, 0.6625, 0.9, 0.65, 0.4]),
    ({"name": "obedient", "of": "hints"}, [1.0, 0.55, 0.1, 0.05, 0.0]),
    ({"name": "obedient", "of": "softmax", "scale": 0.5}, [0.5, 0.275, 0.05, 0.025, 0.0]),
    ({"name": "gullible", "of": "labels"}, [0.0] * 5),
    ({"name": "gullible", "of": "hints"}, [1.0, 0.8, 0.6, 0.4, 0.2]),
    ({"name": "gullible", "of": "softmax", "scale": 5.0}, [5.0, 4.0, 3.0, 2.0, 1.0]),
]


def title(value: Any) -> str | None:
    return " ".join(map(str, value.values())) if isinstance(value, dict) else None


def test_every_schedule_and_each_of_its_options_is_tried() -> None:
    for name in SCHEDULES.entries:
        tried = {option for stated, _ in BY_HAND if stated["name"] == name for option in stated} - {"name"}
        signature = inspect.signature(SCHEDULES.import_function(name))
        assert tried == set(signature.parameters) - {"epochs"}, name


@pytest.mark.parametrize(("stated", "expected"), BY_HAND, ids=title)
def test_a_schedule_is_as_it_is_by_hand(stated: dict[str, Any], expected: list[float]) -> None:
    weight = build_schedule(stated, 5)
    assert [weight(epoch) for epoch in range(5)] == [pytest.approx(each, abs=1e-12) for each in expected]


@pytest.mark.parametrize(("stated", "expected"), BY_HAND, ids=title)
def test_a_phase_of_one_epoch_begins_as_any_other(stated: dict[str, Any], expected: list[float]) -> None:
    assert build_schedule(stated, 1)(0) == expected[0]


@pytest.mark.parametrize("epochs", [2, 7, 200])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_both_ends_are_reached_in_any_number_of_epochs(name: str, epochs: int) -> None:
    weight = build_schedule({"name": name, "start": 0.7, "end": 0.1}, epochs)
    assert [weight(0), weight(epochs - 1)] == pytest.approx([0.7, 0.1])
    falling = [weight(epoch) for epoch in range(epochs)]
    assert falling == sorted(falling, reverse=True)


def test_piecewise_takes_its_points_in_any_order_and_steps_where_two_share_an_epoch() -> None:
    weight = piecewise(20, points=((10, 0.0), (2, 1.0), (6, 3.0)))
    assert [weight(epoch) for epoch in (0, 2, 4, 6, 8, 10, 15)] == [1.0, 1.0, 2.0, 3.0, 1.5, 0.0, 0.0]
    down = piecewise(9, points=((0, 3.0), (4, 3.0), (4, 1.0), (8, 1.0)))
    assert [down(epoch) for epoch in range(9)] == [3.0] * 5 + [1.0] * 4
    up = piecewise(9, points=((0, 1.0), (4, 1.0), (4, 3.0), (8, 3.0)))
    assert [up(epoch) for epoch in range(9)] == [1.0] * 5 + [3.0] * 4


def test_exponential_stops_at_its_floor() -> None:
    assert exponential(9, start=8.0, factor=0.5, floor=1.5)(100) == 1.5


def test_a_number_is_a_constant_schedule() -> None:
    assert [build_schedule(0.25, 3)(epoch) for epoch in (0, 2)] == [0.25, 0.25]


# ------------------------------------------------------------------ the three ways of mentoring


EPOCHS = 200


def course(preset: Any, of: Any) -> list[float]:
    weight = preset(EPOCHS, of=of)
    return [weight(epoch) for epoch in range(EPOCHS)]


def anneals(weights: list[float]) -> bool:
    return weights == sorted(weights, reverse=True) and weights[-1] < weights[0]


def test_for_the_adamant_labels_dominate_throughout_and_all_anneals() -> None:
    alpha, beta, gamma = (course(adamant, of) for of in ("labels", "hints", "softmax"))
    assert all(a > b + c for a, b, c in zip(alpha, beta, gamma, strict=True))
    assert all(map(anneals, (alpha, beta, gamma)))


def test_the_obedient_hear_the_mentor_first_then_the_labels() -> None:
    alpha, beta, gamma = (course(obedient, of) for of in ("labels", "hints", "softmax"))
    assert min(beta[0], gamma[0]) > alpha[0] > 0
    assert anneals(beta)
    assert anneals(gamma)
    peak = alpha.index(max(alpha))
    assert 0 < peak < EPOCHS - 1
    assert alpha[: peak + 1] == sorted(alpha[: peak + 1])
    assert anneals(alpha[peak:])
    assert alpha[-1] > beta[-1] + gamma[-1]  # the mentor has had the first word, not the last


def test_the_gullible_never_see_a_label() -> None:
    alpha, beta, gamma = (course(gullible, of) for of in ("labels", "hints", "softmax"))
    assert alpha == [0.0] * EPOCHS
    assert min(*beta, *gamma) > 0
    assert anneals(beta)
    assert anneals(gamma)


# ------------------------------------------------------------------ in a training


def test_each_schedule_weights_its_term_in_the_right_epoch_of_a_training() -> None:
    """One training with a term for each: a column is the weight of its epoch times the plain term's."""
    terms = [Term("ce", build_schedule(1.0, 5), {}, label="plain")]
    terms += [
        Term("ce", build_schedule(stated, 5), {}, label=str(number)) for number, (stated, _) in enumerate(BY_HAND)
    ]
    options = TrainingOptions(partial(SGD, lr=1e-12), steady, epochs=5, batch_size=128)
    splits, model = Splits.from_dataset(digits(), CPU), {"name": "mlp", "widths": [4]}
    trained = train_student(splits, {}, Recipe(tuple(terms)), model=model, options=options, seed=0, what="s")
    for epoch, row in enumerate(trained.fitted.history):
        found = [row[f"train/{number}"] / row["train/plain"] for number in range(len(BY_HAND))]
        assert found == [pytest.approx(expected[epoch], rel=1e-5, abs=1e-12) for _, expected in BY_HAND]
    assert len(trained.fitted.history) == 5
    assert row["train/plain"] > 1


def test_params_bring_each_schedule_to_its_term(study: dict[str, Any]) -> None:
    losses = {f"t{number}": {"loss": "ce", "weight": stated} for number, (stated, _) in enumerate(BY_HAND)}
    study["students"]["kd"]["losses"] = {"ce": {"weight": 0.5}, **losses}
    plain, *terms = recipe(parse_study(study).students["kd"], epochs=5).terms
    assert (plain.name, plain.weight(3)) == ("ce", 0.5)
    for term, (_, expected) in zip(terms, BY_HAND, strict=True):
        assert [term.weight(epoch) for epoch in range(5)] == [pytest.approx(each, abs=1e-12) for each in expected]
    assert [term.name for term in terms] == list(losses)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"name": "linear", "start": 1.0}, "weight.end: missing"),
        ({"name": "linear", "start": 1.0, "end": -1.0}, "weight.end: expected greater than or equal to 0, found -1.0"),
        ({"name": "exponential", "start": 1.0, "factor": 0.0}, "weight.factor: expected greater than 0, found 0.0"),
        ({"name": "warm_up", "value": 1.0, "over": -1}, "weight.over: expected greater than or equal to 0, found -1"),
        ({"name": "warm_up", "value": 1.0, "over": 1, "begin": 1}, "weight: unknown key 'begin'"),
        ({"name": "piecewise", "points": []}, "weight.points: expected at least 1 in the list"),
        (
            {"name": "piecewise", "points": [[0, 1.0]], "unit": "step"},
            "weight.unit: expected 'epoch' or 'share', found 'step'",
        ),
        ({"name": "obedient"}, "weight.of: missing"),
        ({"name": "obedient", "of": "probes"}, "weight.of: expected 'labels', 'hints' or 'softmax', found 'probes'"),
        ({"name": "stubborn", "of": "labels"}, "weight.name: unknown weight schedule 'stubborn'"),
        ({"name": "cosine", "start": math.inf}, "weight.start: expected a finite number"),
    ],
)
def test_mistakes_are_named(study: dict[str, Any], weight: dict[str, Any], message: str) -> None:
    study["students"]["kd"]["losses"]["ce"]["weight"] = weight
    with pytest.raises(InputError) as caught:
        parse_study(study)
    assert f"students.kd.losses.ce.{message}" in str(caught.value)


# ------------------------------------------------------------------ learning rates


def optimizer(lr: float = 1.0) -> Optimizer:
    made: Optimizer = OPTIMIZERS.import_function("sgd")(nn.Linear(1, 1).parameters(), lr=lr)
    return made


def test_learning_rate_schedules_step_every_epoch() -> None:
    def rates(name: str, epochs: int, **options: object) -> list[float]:
        rated = optimizer()
        scheduler = LR_SCHEDULES.import_function(name)(rated, epochs, **options)
        found = []
        for _ in range(epochs):
            found.append(rated.param_groups[0]["lr"])
            rated.step()
            scheduler.step()
        return found

    assert rates("constant", 3) == [1.0, 1.0, 1.0]
    assert rates("step", 4, every=2, factor=0.1) == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert rates("step", 4, milestones=(1, 3), factor=0.5) == pytest.approx([1.0, 0.5, 0.5, 0.25])
    assert rates("cosine", 3, final=0.0) == pytest.approx([1.0, 0.75, 0.25])


def test_plateau_waits_for_its_patience() -> None:
    rated = optimizer()
    scheduler = plateau(rated, 9, factor=0.1, patience=2)
    for loss in (1.0, 1.0, 1.0):
        scheduler.step(loss)
    assert rated.param_groups[0]["lr"] == 1.0
    scheduler.step(1.0)
    assert rated.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"lr": 0.5, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("adam", {"lr": 0.5, "betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
        ("adamw", {"lr": 0.5, "betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
    ],
)
def test_every_option_reaches_the_optimizer(name: str, options: dict[str, object]) -> None:
    made = OPTIMIZERS.import_function(name)(nn.Linear(1, 1).parameters(), **options)
    assert {key: made.param_groups[0][key] for key in options} == options
