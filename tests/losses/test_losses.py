"""What single losses of logits do beside following their equations (`test_loss_values.py`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.dumps.logits import select_top_k
from pipeline.losses.hooks import find_mismatch
from pipeline.losses.logits_mse import logits_mse
from pipeline.losses.mutual_kl import mutual_kl
from pipeline.losses.outputs import Outputs
from pipeline.losses.soft_targets import soft_targets
from tests.losses.test_loss_cases import labels_of, normal


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student and its teacher, and labels."""
    return (3 * normal(6, 5, seed=1)).requires_grad_(), 3 * normal(6, 5, seed=2), labels_of(6, 1)


def kept(teacher: Tensor, k: int, temperature: float) -> dict[str, Tensor]:
    """Top-k arrays as the dump makes them."""
    made = select_top_k(teacher.float().numpy(), k, temperature, dtype="float32", first=0, teacher="t")
    return {name: torch.from_numpy(values) for name, values in made.items()}


@pytest.mark.parametrize("temperature", [0.7, 2.0, 20.0])
def test_top_k_of_all_classes_but_one_is_all_classes(temperature: float) -> None:
    student, teacher, labels = batch()
    whole = soft_targets(Outputs(student, labels), teacher, temperature=temperature)
    parts = soft_targets(Outputs(student, labels), kept(teacher, 4, temperature), temperature=temperature)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    fewer = soft_targets(Outputs(student, labels), kept(teacher, 3, temperature), temperature=temperature)
    assert fewer.item() < whole.item() - 1e-3  # two classes as one are less to be wrong about


def test_what_a_dump_keeps_of_the_largest_logits() -> None:
    exact = np.array([[1.0, 3.0, 3.0, -2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    made = select_top_k(exact, 2, 2.0, dtype="float16", first=0, teacher="t")
    assert made["indices"].dtype == np.int16
    assert made["indices"].tolist() == [[1, 2], [0, 1]]  # of equals the lower class first
    assert made["values"].tolist() == [[3.0, 3.0], [0.0, 0.0]]
    assert made["tail"].ravel() == pytest.approx([np.log(np.exp(0.5) + np.exp(-1.0)), np.log(2.0)], abs=1e-6)
    wide = select_top_k(np.zeros((1, 40_000), np.float32), 1, 1.0, dtype="float32", first=0, teacher="t")
    assert wide["indices"].dtype == np.int32


def test_dumps_that_a_loss_cannot_read_say_why() -> None:
    top = {"top_k": 3, "temperature": 4.0}
    assert find_mismatch("soft_targets", {"temperature": 4.0}, top) is None
    assert "expected 4.0, that of the dump's tail, found 2.0" in str(
        find_mismatch("soft_targets", {"temperature": 2.0}, top)
    )
    assert find_mismatch("soft_targets", {"temperature": 2.0}, {"top_k": None, "temperature": None}) is None
    assert "needs all logits" in str(find_mismatch("logits_mse", {}, top))
    assert find_mismatch("logits_mse", {}, {"top_k": None}) is None
    assert "needs all logits" in str(find_mismatch("adversarial", {}, top))
    assert "needs all logits" in str(find_mismatch("probe_rmse", {"between": "softmax"}, top))
    assert find_mismatch("probe_rmse", {"between": "softmax"}, {"top_k": None}) is None
    assert find_mismatch("ce", {}, top) is None


@pytest.mark.parametrize("temperature", [30.0, 300.0, 3000.0])
def test_scaled_kl_tends_to_half_the_squares_of_zero_mean_logits(temperature: float) -> None:
    """T^2 KL -> 1/(2C) |a_S - a_T|^2 for each sample: half of `logits_mse` with its mean over the classes."""
    student, teacher, labels = batch()
    student = (student - student.mean(1, keepdim=True)).detach().requires_grad_()
    teacher = teacher - teacher.mean(1, keepdim=True)
    kl = soft_targets(Outputs(student, labels), teacher, temperature=temperature, form="kl")
    half = logits_mse(Outputs(student, labels), teacher, over_classes="mean") / 2
    (of_kl,), (of_half,) = torch.autograd.grad(kl, student), torch.autograd.grad(half, student)
    assert (of_kl - of_half).abs().max() < 3 / temperature * of_half.abs().max()
    assert kl.item() == pytest.approx(half.item(), rel=3 / temperature)
    assert (of_kl - 2 * of_half).abs().max() > 0.9 * of_half.abs().max()


def test_the_limit_needs_zero_means() -> None:
    student, teacher, labels = batch()
    kl = soft_targets(Outputs(student, labels), teacher, temperature=300.0, form="kl")
    assert kl.item() < 0.9 * logits_mse(Outputs(student, labels), teacher).item() / 2  # softmax does not see the means


def test_a_divergence_is_the_cross_entropy_without_the_teachers_entropy() -> None:
    student, teacher, labels = batch()
    outputs = Outputs(student, labels)
    kl, cross = (soft_targets(outputs, teacher, form=form) for form in ("kl", "ce"))
    own = soft_targets(Outputs(teacher, labels), teacher, form="ce")
    assert kl.item() == pytest.approx((cross - own).item(), rel=1e-12)
    (of_kl,), (of_cross,) = (torch.autograd.grad(each, student, retain_graph=True) for each in (kl, cross))
    assert (of_kl - of_cross).abs().max() < 1e-12


def test_learning_from_one_peer_is_learning_from_a_teacher_that_says_the_same() -> None:
    student, teacher, labels = batch()
    outputs = Outputs(student, labels, peers=teacher[None])
    taught = soft_targets(outputs, teacher, temperature=2.0, form="kl", scaled=False)
    assert mutual_kl(outputs, None, temperature=2.0).item() == pytest.approx(taught.item(), rel=1e-12)
