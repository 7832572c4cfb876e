"""Where a loss is zero: for a student that is as its teacher is, where that is possible at all, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.losses import TERMS
from tests.losses.test_loss_cases import CASES, Case, Scene, normal

ALIKE = [case for case in CASES if case.scene().alike is not None]
ZERO = [case for case in CASES if case.zero]
ABOVE = [case for case in ALIKE if not case.zero]

ABOVE_ZERO_ALWAYS = {"ce", "multichannel_bce", "adversarial"}  # no student brings these to zero


def alike(scene: Scene) -> Tensor:
    assert scene.alike is not None
    return scene.alike.detach().clone().requires_grad_()


def test_the_table_says_which_losses_can_be_zero() -> None:
    assert {case.loss for case in ZERO} == TERMS.entries.keys() - ABOVE_ZERO_ALWAYS
    assert {case.loss for case in ABOVE} >= ABOVE_ZERO_ALWAYS | {"soft_targets"}
    assert all(case.whole.form == "kl" for case in ZERO if case.loss == "soft_targets")


@pytest.mark.parametrize("case", ZERO, ids=str)
def test_a_student_like_its_teacher_has_nothing_to_learn(case: Case) -> None:
    """So it is in float32 too: of tsne, whose P was made as the Q of other features by the same kernel."""
    for exact, scene in ((True, case.scene()), (False, case.scene().single())):
        student = alike(scene)
        loss = case(scene, student)
        (gradient,) = torch.autograd.grad(loss, student)
        scale = getattr(case.whole, "temperature", 1.0) ** 2
        assert abs(loss.item()) < (1e-12 if exact else 1e-6) * scale
        assert gradient.abs().max() < (1e-12 if exact else 1e-6) * scale


@pytest.mark.parametrize("case", [case for case in ZERO if case.loss == "probe_rmse"], ids=str)
def test_a_root_has_no_slope_where_it_is_zero(case: Case) -> None:
    for scene in (case.scene(), case.scene().single()):
        student = alike(scene)
        loss = case(scene, student)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.item() == 0.0
        assert torch.equal(gradient, torch.zeros_like(gradient))
        moved = student.detach().clone()
        moved[0] += normal(*moved.shape[1:], seed=3)
        (gradient,) = torch.autograd.grad(case(scene, moved.requires_grad_()), moved)
        assert gradient[0].abs().max() > 1e-6
        assert gradient[1:].abs().max() == 0.0  # the other samples' are still zero


@pytest.mark.parametrize("case", ZERO, ids=str)
@pytest.mark.parametrize("step", [1e-3, 1.0])
def test_any_other_student_has_a_loss(case: Case, step: float) -> None:
    scene = case.scene()
    student = alike(scene).detach()
    for seed in range(5):
        assert case(scene, student + step * normal(*student.shape, seed=seed)).item() > 1e-10


@pytest.mark.parametrize("case", ABOVE, ids=str)
def test_entropies_and_true_labels_leave_a_loss(case: Case) -> None:
    """`maximise` is the one loss below zero: log D."""
    scene = case.scene()
    below = getattr(case.whole, "form", "") == "maximise"
    for student in (alike(scene), scene.student):
        assert (-1 if below else 1) * case(scene, student).item() > 1e-3


def test_the_cross_entropy_is_least_where_the_divergence_is_zero() -> None:
    for case in ABOVE:
        if case.loss == "soft_targets":
            scene = case.scene()
            student = alike(scene)
            (gradient,) = torch.autograd.grad(case(scene, student), student)
            assert gradient.abs().max() < 1e-12
            assert case(scene).item() > case(scene, student).item()


@pytest.mark.parametrize("dof", [1.0, 3.7, 10.0, "infinity"])
def test_affinities_of_another_kernel_are_not_reached(dof: float | str) -> None:
    """Zero for Q = P alone: the same features under other degrees of freedom leave a loss."""
    (case,) = [case for case in ZERO if case.loss == "tsne" and case.options == {"dof": dof, "floor": 0.0}]
    scene = case.scene()
    other = replace(case, options={"dof": 2.0, "floor": 0.0})
    assert abs(case(scene, scene.alike).item()) < 1e-12
    assert other(scene, scene.alike).item() > 1e-4
    assert case(scene).item() > 1e-2
