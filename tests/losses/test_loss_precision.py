"""Losses stay finite and true where numbers are hard: huge ones, equal ones, few samples, half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.losses.test_loss_cases import Case, Scene, every_case

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])

# So large that squares overflow in float16, and sums of squares in bfloat16 are far beyond float16's range.
FACTOR = {torch.float16: 4_000.0, torch.bfloat16: 1e17}


def with_gradient(
    case: Case, scene: Scene, student: Tensor, autocast: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """The loss, perhaps under autocast, and its gradient, which is taken outside as PyTorch asks."""
    student = student.detach().requires_grad_()
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        value = case(scene, student)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def refuse_other_gradient(found: Tensor, slope: Tensor, rel: float) -> None:
    """What float16 cannot hold of the slope is for a gradient scaler: the rest must be there."""
    fits = slope.abs() < torch.finfo(found.dtype).max
    assert found[fits].float().numpy() == pytest.approx(slope[fits].numpy(), rel=rel, abs=1e-6)


@every_case
def test_ten_thousand_is_no_large_number(case: Case) -> None:
    for rows in (1, 2, 6):
        exact = case.scene(rows, scale=2e4)
        scene = exact.single()
        assert rows < 6 or scene.student.abs().max() > 1e4
        value, gradient = with_gradient(case, scene, scene.student)
        assert value.dtype == torch.float32
        assert gradient.isfinite().all()
        assert value.item() == pytest.approx(case(exact).item(), rel=1e-4, abs=1e-6)


@every_case
def test_equal_rows_are_nothing_special(case: Case) -> None:
    for rows in (1, 6):
        exact = case.scene(rows)
        scene = exact.single()
        value, gradient = with_gradient(case, scene, scene.student[:1].expand(scene.student.shape))
        assert gradient.isfinite().all()
        same = exact.student[:1].expand(exact.student.shape)
        assert value.item() == pytest.approx(case(exact, same).item(), rel=1e-4, abs=1e-6)


@HALVES
@every_case
def test_halves_near_the_end_of_their_range_do_not_overflow(case: Case, dtype: torch.dtype) -> None:
    scene = case.scene(scale=FACTOR[dtype]).single()
    student = scene.student.to(dtype)
    assert student.isfinite().all()
    assert student.abs().max() > FACTOR[dtype]
    exact, slope = with_gradient(case, scene, student.float())
    value, gradient = with_gradient(case, scene, student)
    assert exact.isfinite()
    assert value.item() == pytest.approx(exact.item(), rel=torch.finfo(dtype).eps)
    refuse_other_gradient(gradient, slope, 2 * torch.finfo(dtype).eps)


@HALVES
@every_case
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype) -> None:
    for scale, given in ((1.0, torch.float32), (1.0, dtype), (FACTOR[dtype], torch.float32), (FACTOR[dtype], dtype)):
        scene = case.scene(scale=scale).single()
        student = scene.student.to(given)
        exact, slope = with_gradient(case, scene, student.float())
        value, gradient = with_gradient(case, scene, student, autocast=dtype)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact.item(), rel=1e-5)
        refuse_other_gradient(gradient, slope, max(1e-4, 2 * torch.finfo(given).eps))
