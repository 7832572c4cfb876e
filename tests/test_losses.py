from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from pipeline.dumps.logits import largest
from pipeline.losses import field_of, misfit_of
from pipeline.losses.ce import ce
from pipeline.losses.logits_mse import logits_mse
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.soft_targets import soft_targets
from pipeline.losses.step import Outputs
from pipeline.schedules import constant, linear


def batch(rows: int = 6, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (
        torch.randn(rows, classes, dtype=torch.float64, generator=generator).mul_(3).requires_grad_() for _ in range(2)
    )
    return student, teacher.detach(), torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [1, 6])
def test_ce_is_the_mean_negative_log_probability(reduction: Literal["mean", "sum"], rows: int) -> None:
    student, _, labels = batch(rows)
    expected = getattr(np, reduction)(reference.ce(student.detach().numpy(), labels.tolist()))
    assert ce(Outputs(student, labels), None, reduction=reduction).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("form", ["ce", "kl"])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_soft_targets_follow_the_reference(
    form: Literal["ce", "kl"], scaled: bool, temperature: float, reduction: Literal["mean", "sum"]
) -> None:
    student, teacher, labels = batch()
    slow = reference.soft_targets(student.detach().numpy(), teacher.numpy(), temperature, form)
    expected = getattr(np, reduction)(slow) * (temperature**2 if scaled else 1)
    found = soft_targets(
        Outputs(student, labels), teacher, temperature=temperature, form=form, scaled=scaled, reduction=reduction
    )
    assert found.item() == pytest.approx(expected, abs=1e-10)


def kept(teacher: Tensor, k: int, temperature: float) -> dict[str, Tensor]:
    """Top-k arrays in float64, without the dump's rounding."""
    values, indices = teacher.topk(k, dim=1)
    tail = torch.scatter(teacher / temperature, 1, indices, float("-inf")).logsumexp(1, keepdim=True)
    return {"values": values, "indices": indices.to(torch.int16), "tail": tail}


@pytest.mark.parametrize("form", ["ce", "kl"])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 6])
def test_top_k_targets_are_normalised_over_the_same_parts_on_both_sides(
    form: Literal["ce", "kl"], temperature: float, k: int, rows: int
) -> None:
    student, teacher, labels = batch(rows)
    slow = reference.top_k_soft_targets(student.detach().numpy(), teacher.numpy(), k, temperature, form)
    target = kept(teacher, k, temperature)
    found = soft_targets(Outputs(student, labels), target, temperature=temperature, form=form)
    assert found.item() == pytest.approx(slow.mean() * temperature**2, abs=1e-10)
    assert torch.autograd.gradcheck(
        lambda logits: soft_targets(Outputs(logits, labels), target, temperature=temperature, form=form),
        student,
        atol=1e-6,
    )
    same = soft_targets(Outputs(teacher, labels), target, temperature=temperature, form="kl")
    assert abs(same.item()) < 1e-12  # a student that agrees with its teacher has nothing to learn


def test_top_k_of_all_classes_but_one_is_all_classes() -> None:
    student, teacher, labels = batch()
    whole = soft_targets(Outputs(student, labels), teacher, temperature=2.0)
    parts = soft_targets(Outputs(student, labels), kept(teacher, 4, 2.0), temperature=2.0)
    assert parts.item() == pytest.approx(whole.item(), abs=1e-12)


def test_what_a_dump_keeps_of_the_largest_logits() -> None:
    exact = np.array([[1.0, 3.0, 3.0, -2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    made = largest(exact, 2, 2.0, dtype="float16", first=0, teacher="t")
    assert made["indices"].dtype == np.int16
    assert made["indices"].tolist() == [[1, 2], [0, 1]]  # of equals the lower class first
    assert made["values"].tolist() == [[3.0, 3.0], [0.0, 0.0]]
    assert made["tail"].ravel() == pytest.approx([np.log(np.exp(0.5) + np.exp(-1.0)), np.log(2.0)], abs=1e-6)
    wide = largest(np.zeros((1, 40_000), np.float32), 1, 1.0, dtype="float32", first=0, teacher="t")
    assert wide["indices"].dtype == np.int32


def test_dumps_that_a_loss_cannot_read_say_why() -> None:
    top = {"top_k": 3, "temperature": 4.0}
    assert misfit_of("soft_targets", {"temperature": 4.0}, top) is None
    assert "expected 4.0, that of the dump's tail, found 2.0" in str(
        misfit_of("soft_targets", {"temperature": 2.0}, top)
    )
    assert misfit_of("soft_targets", {"temperature": 2.0}, {"top_k": None, "temperature": None}) is None
    assert "needs all logits" in str(misfit_of("logits_mse", {}, top))
    assert misfit_of("logits_mse", {}, {"top_k": None}) is None
    assert misfit_of("ce", {}, top) is None


@pytest.mark.parametrize(("over_classes", "divisor"), [("mean", 5), ("sum", 1)])
def test_logits_mse_follows_the_reference(over_classes: Literal["mean", "sum"], divisor: int) -> None:
    student, teacher, labels = batch()
    expected = reference.logits_mse(student.detach().numpy(), teacher.numpy()).mean() / divisor
    found = logits_mse(Outputs(student, labels), teacher, over_classes=over_classes)
    assert found.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("term", [soft_targets, logits_mse])
def test_gradients_equal_finite_differences(term: Any) -> None:
    student, teacher, labels = batch()
    assert torch.autograd.gradcheck(lambda logits: term(Outputs(logits, labels), teacher), student, atol=1e-6)


def test_kl_is_zero_only_for_an_identical_student() -> None:
    student, teacher, labels = batch()
    assert abs(soft_targets(Outputs(teacher, labels), teacher, form="kl").item()) < 1e-12
    assert soft_targets(Outputs(student, labels), teacher, form="kl").item() > 0.01
    assert soft_targets(Outputs(teacher, labels), teacher, form="ce").item() > 0.01


def test_scaled_kl_tends_to_half_the_mse_of_zero_mean_logits() -> None:
    student, teacher, labels = batch()
    student = (student - student.mean(1, keepdim=True)).detach().requires_grad_()
    teacher = teacher - teacher.mean(1, keepdim=True)
    temperature = 300.0
    kl = soft_targets(Outputs(student, labels), teacher, temperature=temperature, form="kl")
    mse = logits_mse(Outputs(student, labels), teacher)
    (of_kl,), (of_mse,) = torch.autograd.grad(kl, student), torch.autograd.grad(mse, student)
    assert (of_kl - of_mse / 2).abs().max() < 3 / temperature * (of_mse / 2).abs().max()


def test_huge_logits_stay_finite_in_float32() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = soft_targets(Outputs(student, torch.tensor([0])), -student.detach(), temperature=1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_recipe_weights_its_terms_by_epoch() -> None:
    student, teacher, labels = batch()
    recipe = Recipe(
        (
            Term("ce", linear(3, start=1.0, end=0.0), {}),
            Term("soft_targets", constant(3, value=2.0), {"temperature": 2.0}, "dump"),
        )
    )
    outputs, targets = Outputs(student, labels), {"dump": teacher}
    plain = ce(outputs, None).item()
    assert [recipe(outputs, targets, epoch)["ce"].item() for epoch in range(3)] == [plain, plain / 2, 0.0]
    assert recipe(outputs, targets, 0)["soft_targets"].item() == pytest.approx(
        2 * soft_targets(outputs, teacher, temperature=2.0).item()
    )
    assert recipe.dumps == ("dump",)


def test_terms_of_one_temperature_share_a_log_softmax() -> None:
    student, _, labels = batch()
    outputs = Outputs(student, labels)
    assert outputs.log_softmax(1.0) is outputs.log_softmax()
    assert outputs.log_softmax(2.0) is not outputs.log_softmax()


def test_each_term_says_which_field_it_reads() -> None:
    assert (field_of("ce"), field_of("soft_targets"), field_of("logits_mse")) == (None, "logits", "logits")
