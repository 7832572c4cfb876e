"""Each loss is its equation: in value, in gradient, for every option, on any batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.losses.test_loss_cases import CASES, Case, every_case


def gradient(loss: Tensor, student: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, student)
    return found


@every_case
def test_the_value_is_the_slow_references(case: Case) -> None:
    for rows in (1, 2, 6):
        scene = case.scene(rows)
        assert case(scene).item() == pytest.approx(case.slow(scene), rel=1e-10, abs=1e-10), rows


@given(st.sampled_from(CASES), st.integers(1, 9), st.integers(0, 2**31), st.sampled_from([1e-3, 0.1, 1.0, 2.0]))
def test_it_is_so_on_any_batch(case: Case, rows: int, seed: int, scale: float) -> None:
    scene = case.scene(rows, seed, scale)
    assert case(scene).item() == pytest.approx(case.slow(scene), rel=1e-10, abs=1e-10)


@every_case
def test_the_gradient_is_that_of_the_equation(case: Case) -> None:
    scene = case.scene()
    student = scene.student.requires_grad_()
    ours, theirs = case(scene), case.naive(scene, student)
    assert theirs.item() == pytest.approx(case.slow(scene), rel=1e-10, abs=1e-10)  # the references agree
    expected = gradient(theirs, student)
    assert expected.abs().max() > 1e-4
    assert (gradient(ours, student) - expected).abs().max() < 1e-10 * max(1.0, expected.abs().max().item())


@every_case
def test_the_gradient_is_the_slope(case: Case) -> None:
    scene = case.scene(3)
    assert torch.autograd.gradcheck(lambda student: case(scene, student), scene.student.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.loss == "mutual_kl"], ids=str)
def test_no_gradient_reaches_the_peers(case: Case) -> None:
    scene = case.scene()
    assert scene.peers is not None
    peers = scene.peers.clone().requires_grad_()
    case(replace(scene, peers=peers), scene.student.requires_grad_()).backward()  # type: ignore[no-untyped-call]
    assert scene.student.grad is not None
    assert peers.grad is None


@pytest.mark.parametrize("case", [case for case in CASES if "regressed" in case.shown], ids=str)
def test_a_regressor_learns_what_the_equation_says(case: Case) -> None:
    scene = case.scene()
    assert scene.beside is not None
    learned = list(scene.beside.parameters())
    ours = torch.autograd.grad(case(scene), learned)
    theirs = torch.autograd.grad(case.naive(scene, scene.student), learned)
    assert len(learned) == 2
    assert all((a - b).abs().max() < 1e-10 * max(1, b.abs().max().item()) for a, b in zip(ours, theirs, strict=True))
