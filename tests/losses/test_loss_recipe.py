"""A recipe: which terms are computed, from what, with which weights, and what they share."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from pipeline.losses.adversarial import adversarial
from pipeline.losses.ce import ce
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.hint_mse import hint_mse
from pipeline.losses.hooks import learns_from_peers, term_fields, term_taps
from pipeline.losses.logits_mse import logits_mse
from pipeline.losses.outputs import Outputs
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.soft_targets import soft_targets
from pipeline.losses.weights.schedules import constant, linear
from pipeline.student import train_student
from pipeline.training.batches import Batch
from pipeline.training.optimizers import constant as steady
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Splits
from tests.losses.test_loss_cases import labels_of, normal
from tests.scenes import CPU, digits

ONE = constant(3, value=1.0)


@pytest.fixture
def student() -> Tensor:
    return (3 * normal(6, 5, seed=1)).requires_grad_()


@pytest.fixture
def teacher() -> Tensor:
    return 3 * normal(6, 5, seed=2)


@pytest.fixture
def outputs(student: Tensor) -> Outputs:
    taps = {"features": normal(6, 4, seed=3), "hidden1": normal(6, 3, seed=4)}
    return Outputs(student, labels_of(6, 1), taps, peers=3 * normal(2, 6, 5, seed=5))


def test_it_weights_its_terms_by_epoch(outputs: Outputs, teacher: Tensor) -> None:
    recipe = Recipe(
        (
            Term("ce", linear(3, start=1.0, end=0.0), {}),
            Term("soft_targets", constant(3, value=2.0), {"temperature": 2.0}, "dump"),
        )
    )
    plain = ce(outputs, None).item()
    found = [recipe(outputs, {"dump": teacher}, epoch) for epoch in range(3)]
    assert [each["ce"].item() for each in found] == [plain, plain / 2, 0.0]
    soft = 2 * soft_targets(outputs, teacher, temperature=2.0).item()
    assert [each["soft_targets"].item() for each in found] == [pytest.approx(soft)] * 3
    assert recipe.dumps == ("dump",)


def test_its_gradient_is_the_weighted_sum(outputs: Outputs, student: Tensor, teacher: Tensor) -> None:
    terms = Term("ce", constant(1, value=0.3), {}), Term("logits_mse", constant(1, value=0.2), {}, "d")
    values = torch.stack(list(Recipe(terms)(outputs, {"d": teacher}, 0).values())).sum()
    found, of_ce, of_mse = (
        torch.autograd.grad(value, student, retain_graph=True)[0]
        for value in (values, ce(outputs, None), logits_mse(outputs, teacher))
    )
    assert (found - 0.3 * of_ce - 0.2 * of_mse).abs().max() < 1e-12


def test_terms_of_one_temperature_share_a_log_softmax(
    outputs: Outputs, teacher: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, temperatures = functional.log_softmax, []

    def counting(values: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if values.requires_grad:  # the student's; the others' need none
            temperatures.append(round(float((outputs.logits / values).detach().mean()), 6))
        made: Tensor = real(values, *arguments, **options)
        return made

    monkeypatch.setattr(functional, "log_softmax", counting)
    terms = [
        Term("ce", ONE, {}),
        Term("soft_targets", ONE, {"temperature": 1.0}, "d"),
        Term("mutual_kl", ONE, {}),
        Term("probe_rmse", ONE, {"between": "softmax", "temperature": 1}, "d"),
        Term("soft_targets", ONE, {"temperature": 2.0}, "d", label="soft"),
        Term("mutual_kl", ONE, {"temperature": 2.0}, label="mutual"),
        Term("adversarial", constant(3, value=0.0), {}, {"teacher": "d", "initial": "e"}),
    ]
    values = Recipe(tuple(terms))(outputs, {"d": teacher}, 0)
    assert temperatures == [1.0, 2.0]
    for term in terms:
        fresh = Outputs(outputs.logits, outputs.labels, peers=outputs.peers)
        (alone,) = Recipe((term,))(fresh, {"d": teacher}, 0).values()
        assert values[term.name].item() == alone.item()


def test_a_weight_of_zero_computes_nothing(outputs: Outputs, student: Tensor) -> None:
    options = {"tap": "nowhere", "hint": None}
    recipe = Recipe((Term("ce", ONE, {}), Term("hint_mse", linear(3, start=0.0, end=1.0), options, "h")))
    values = recipe(outputs, {}, 0)  # the term would raise: neither its tap nor its dump is there
    assert values["hint_mse"].item() == 0.0
    (gradient,) = torch.autograd.grad(values["hint_mse"], student, retain_graph=True)
    assert torch.equal(gradient, torch.zeros_like(student))
    with pytest.raises(KeyError, match="h"):
        recipe(outputs, {}, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_no_logits_make_a_weight_of_zero_more_than_zero(dtype: torch.dtype) -> None:
    """Their sum would be infinite, and zero times that is NaN."""
    logits = torch.full((8, 10), torch.finfo(dtype).max, dtype=dtype, requires_grad=True)
    recipe = Recipe((Term("ce", constant(1, value=0.0), {}),))
    (value,) = recipe(Outputs(logits, labels_of(8, 1)), {}, 0).values()
    assert (value.item(), value.dtype) == (0.0, torch.float32)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.equal(gradient, torch.zeros_like(logits))


def test_terms_of_one_loss_have_their_own_names_and_regressors(outputs: Outputs, teacher: Tensor) -> None:
    recipe = Recipe(
        (
            Term("hint_mse", ONE, {"tap": "features", "hint": None}, "h", label="high"),
            Term("hint_mse", constant(3, value=0.5), {"tap": "hidden1", "hint": None}, "h", label="low"),
            Term("hint_mse", ONE, {"tap": "features", "hint": None}, "same"),
        )
    )
    targets = {"h": teacher, "same": normal(6, 4, seed=8)}
    modules = recipe.build_learned(outputs, targets.__getitem__)
    assert {name: tuple(next(module.parameters()).shape) for name, module in modules.items()} == {
        "high": (5, 4),
        "low": (5, 3),
    }
    assert recipe.taps == ("features", "hidden1")
    assert recipe.dumps == ("h", "same")
    own = {name: module.double() for name, module in modules.items()}
    values = recipe(Outputs(outputs.logits, outputs.labels, outputs.taps, modules=own), targets, 0)
    high, low = own["high"](outputs.taps["features"]), own["low"](outputs.taps["hidden1"])
    assert values["high"].item() == pytest.approx((high - teacher).square().mean().item())
    assert values["low"].item() == pytest.approx((low - teacher).square().mean().item() / 2)
    assert values["hint_mse"].item() == hint_mse(outputs, targets["same"]).item()


def adversaries(rows: list[str]) -> tuple[Recipe, dict[str, nn.Module], dict[str, dict[str, Any]]]:
    """Two adversarial terms, prepared; `rows` is told which dumps are asked for."""
    data = {name: normal(2, 60, 5, seed=seed).float() + seed for seed, name in enumerate(("t", "u", "i"))}

    def of(dump: str) -> Tensor:
        rows.append(dump)
        return data[dump]

    weak = {"discriminator": DiscriminatorOptions(widths=(3,), least_accuracy=0.0)}
    strong = {"discriminator": DiscriminatorOptions(lr=0.01, least_accuracy=0.9), "form": "maximise"}
    recipe = Recipe(
        (
            Term("ce", ONE, {}),
            Term("adversarial", ONE, weak, {"teacher": "u", "initial": "i"}, label="near"),
            Term("adversarial", ONE, strong, {"teacher": "t", "initial": "i"}),
        )
    )
    return recipe, *recipe.train_prepared(of, 1, "student 's'")


def test_each_adversarial_term_has_its_own_frozen_discriminator(outputs: Outputs) -> None:
    asked: list[str] = []
    recipe, modules, reports = adversaries(asked)
    assert asked == ["u", "i", "t", "i"]
    assert modules.keys() == reports.keys() == {"near", "adversarial"}
    assert reports["adversarial"]["discriminator_accuracy"] > 0.9
    assert recipe.dumps == ()  # nothing is read while the student trains
    assert not any(p.requires_grad for module in modules.values() for p in module.parameters())
    assert not any(module.training for module in modules.values())
    single = Outputs(outputs.logits.detach().float(), outputs.labels, modules=modules)
    values = recipe(single, {}, 0)
    for name, form in (("near", "fool"), ("adversarial", "maximise")):
        beside = Outputs(single.logits, single.labels, module=modules[name])
        assert values[name].item() == adversarial(beside, None, form=form).item()  # type: ignore[arg-type]


def test_each_loss_says_what_it_reads() -> None:
    assert term_fields("ce", {}) == term_fields("mutual_kl", {}) == {}
    assert term_fields("soft_targets", {}) == term_fields("logits_mse", {}) == {"target": "logits"}
    assert term_fields("adversarial", {}) == {"teacher": "logits", "initial": "logits"}
    assert term_fields("probe_rmse", {"between": "activations"}) == {"target": "hints"}
    assert term_fields("probe_rmse", {"between": "softmax"}) == {"target": "logits"}
    assert term_fields("hint_mse", {}) == {"target": "hints"}
    assert term_taps("probe_rmse", {"between": "softmax", "tap": "features"}) == ()
    assert term_taps("probe_rmse", {"between": "activations", "tap": "features"}) == ("features",)
    assert learns_from_peers("mutual_kl")
    assert not learns_from_peers("ce")
    assert Recipe((Term("ce", ONE, {}), Term("mutual_kl", ONE, {}))).is_mutual
    assert not Recipe((Term("ce", ONE, {}),)).is_mutual


class Fixed:
    """A field of numbers that are a function of the sample."""

    plans = None

    def __init__(self, width: int, seed: int) -> None:
        self.rows = normal(2000, width, seed=seed).float()

    def target(self, batch: Batch) -> Tensor:
        return self.rows[batch.ids]


def test_a_training_learns_what_its_terms_learn_and_freezes_what_they_were_given() -> None:
    splits = Splits.from_dataset(digits(), CPU)
    weak = {"discriminator": DiscriminatorOptions(epochs=2, least_accuracy=0.0)}
    recipe = Recipe(
        (
            Term("hint_mse", ONE, {"tap": "features", "hint": None}, "h", label="wide"),
            Term("hint_mse", ONE, {"tap": "hidden1", "hint": None}, "h", label="narrow"),
            Term("adversarial", ONE, weak, {"teacher": "t", "initial": "i"}),
        )
    )
    given: dict[str, list[Tensor]] = {}
    real = Recipe.__call__

    def watching(self: Recipe, outputs: Outputs, *arguments: Any) -> dict[str, Tensor]:
        for name, module in outputs.modules.items():
            given.setdefault(name, []).append(next(module.parameters()).detach().clone())
        return real(self, outputs, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "__call__", watching)
        trained = train_student(
            splits, {"h": Fixed(7, 1), "t": Fixed(10, 2), "i": Fixed(10, 3)}, recipe, seed=0, what="s",
            model={"name": "mlp", "widths": [6, 5]}, options=TrainingOptions(partial(SGD, lr=0.1), steady, epochs=2, batch_size=128),
        )  # fmt: skip
    assert {f"train/{name}" for name in ("wide", "narrow", "adversarial")} < trained.fitted.history[0].keys()
    moved = {name: not torch.equal(seen[0], seen[-1]) for name, seen in given.items()}
    assert moved == {"wide": True, "narrow": True, "adversarial": False}
    assert trained.prepared["adversarial"].keys() == {"discriminator_accuracy", "held_out"}
