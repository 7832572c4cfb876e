"""The losses that read the student's activations: hint_mse and tsne."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.losses import learned_of, misfit_of, taps_of
from pipeline.losses.hint_mse import hint_mse
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.step import Outputs
from pipeline.losses.tsne import log_affinities, tsne
from pipeline.schedules import constant

OPTIONS: dict[str, Any] = {"tap": "features", "hint": None}


def outputs(features: Tensor, **learned: nn.Module) -> Outputs:
    logits = torch.zeros((len(features), 3), dtype=features.dtype)
    return Outputs(logits, torch.zeros(len(features), dtype=torch.int64), {"features": features}, learned)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def joint(n: int, seed: int = 1) -> Tensor:
    """A P: symmetric, zero diagonal, sum 1, with some pairs at zero."""
    p = normal(n, n, seed=seed).square()
    p[p < 0.05] = 0
    p = (p + p.T).fill_diagonal_(0)
    return p / p.sum()


@pytest.mark.parametrize("dof", [1.0, 2.5, 10.0, "infinity"])
@pytest.mark.parametrize("floor", [0.0, 1e-12, 1e-3])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_tsne_follows_the_reference(dof: Any, floor: float, n: int) -> None:
    y, p = normal(n, 4).requires_grad_(), joint(n)
    expected = reference.tsne(p.numpy(), y.detach().numpy(), math.inf if dof == "infinity" else dof, floor)
    found = tsne(outputs(y), p, dof=dof, floor=floor)
    assert found.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dof", [1.0, 10.0, "infinity"])
@pytest.mark.parametrize("floor", [0.0, 1e-12])
def test_tsne_gradients_are_those_of_the_naive_form(dof: Any, floor: float) -> None:
    y, p = normal(6, 3).requires_grad_(), joint(6)
    assert torch.autograd.gradcheck(lambda x: tsne(outputs(x), p, dof=dof, floor=floor), y, atol=1e-6)
    apart = ~torch.eye(6, dtype=torch.bool)
    squares = (y[:, None] - y[None]).square().sum(2)
    kernel = (-squares / 2).exp() if dof == "infinity" else (1 + squares / dof) ** (-(dof + 1) / 2)
    q = kernel[apart] / kernel[apart].sum()
    pairs = p[apart]
    naive = torch.xlogy(pairs, pairs).sum() - (pairs * q.log()).sum()
    (ours,), (theirs,) = (torch.autograd.grad(loss, y) for loss in (tsne(outputs(y), p, dof=dof, floor=floor), naive))
    assert (ours - theirs).abs().max() < 1e-10


def test_the_gradient_has_the_textbooks_form() -> None:
    """dL/dy_i = 4 sum_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2) for one degree of freedom."""
    y, p = normal(7, 2).requires_grad_(), joint(7)
    (found,) = torch.autograd.grad(tsne(outputs(y), p, dof=1.0, floor=0.0), y)
    x = y.detach().numpy()
    kernel = 1 / (1 + ((x[:, None] - x[None]) ** 2).sum(2))
    np.fill_diagonal(kernel, 0)
    factor = (p.numpy() - kernel / kernel.sum()) * kernel
    expected = 4 * (factor[:, :, None] * (x[:, None] - x[None])).sum(1)
    assert np.allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dof", [1.0, 10.0, "infinity"])
def test_a_student_with_the_teachers_neighbourhoods_has_nothing_to_learn(dof: Any) -> None:
    y = normal(8, 3).requires_grad_()
    q = log_affinities(y.detach(), math.inf if dof == "infinity" else dof).exp().fill_diagonal_(0)
    loss = tsne(outputs(y), q, dof=dof, floor=0.0)
    (gradient,) = torch.autograd.grad(loss, y)
    assert abs(loss.item()) < 1e-12
    assert gradient.abs().max() < 1e-12
    assert tsne(outputs(y * 2), q, dof=dof, floor=0.0).item() > 1e-3


def test_many_degrees_of_freedom_are_as_good_as_infinitely_many() -> None:
    y = normal(10, 2)
    y = y / torch.pdist(y).max() * math.sqrt(10)  # squared distances up to 10
    assert (log_affinities(y, 1e6) - log_affinities(y, math.inf)).fill_diagonal_(0).abs().max() < 1e-4
    assert (log_affinities(y, 1e2) - log_affinities(y, math.inf)).fill_diagonal_(0).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dof", [1.0, "infinity"])
@pytest.mark.parametrize("kind", ["far apart", "all equal", "one"])
def test_it_stays_finite(dtype: torch.dtype, dof: Any, kind: str) -> None:
    features = {"far apart": normal(5, 3) * 200, "all equal": torch.ones(5, 3), "one": torch.ones(1, 3)}[kind]
    y = features.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = tsne(outputs(y), joint(len(y)).nan_to_num().float(), dof=dof)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert loss.dtype == torch.float32
    if kind == "one":
        assert loss.item() == 0.0


def test_near_duplicates_far_from_the_origin_keep_their_distances() -> None:
    y = normal(6, 3, dtype=torch.float32)
    moved = log_affinities(y + 1000, math.inf)
    assert (moved - log_affinities(y, math.inf)).fill_diagonal_(0).abs().max() < 0.01


@pytest.mark.parametrize("over", ["mean", "sum"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 3)])
def test_hint_mse_is_the_mean_square(over: Any, reduction: Any, shape: tuple[int, ...]) -> None:
    v, u = normal(4, *shape).requires_grad_(), normal(4, *shape, seed=1)
    ours, theirs = v.detach().flatten(1).tolist(), u.flatten(1).tolist()
    squares = [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in zip(ours, theirs, strict=True)]
    expected = getattr(np, reduction)(squares) / (math.prod(shape) if over == "mean" else 1)
    found = hint_mse(outputs(v), u, over_units=over, reduction=reduction)
    assert found.item() == pytest.approx(expected, abs=1e-10)
    assert torch.autograd.gradcheck(lambda x: hint_mse(outputs(x), u), v, atol=1e-6)
    assert hint_mse(outputs(u), u).item() == 0.0


def test_a_regressor_joins_other_shapes_and_is_used() -> None:
    make = learned_of("hint_mse")
    assert make is not None
    assert make(outputs(normal(2, 5)), normal(2, 5), OPTIONS) is None
    linear = make(outputs(normal(2, 5)), normal(2, 7), OPTIONS)
    maps = make(outputs(normal(2, 5, 4, 4)), normal(2, 7, 4, 4), OPTIONS)
    assert isinstance(linear, nn.Linear)
    assert isinstance(maps, nn.Conv2d)
    assert maps.kernel_size == (1, 1)
    linear = linear.double()
    v, u = normal(3, 5), normal(3, 7, seed=1)
    found = hint_mse(outputs(v, hint_mse=linear), u)
    expected = ((v @ linear.weight.T + linear.bias - u) ** 2).mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for guided, hint in (((5,), (7, 4, 4)), ((5, 4, 4), (7, 2, 2)), ((5, 4, 4), (7,))):
        with pytest.raises(InputError, match="loss hint_mse: tap 'features': expected vectors, or maps of the hint's"):
            make(outputs(normal(2, *guided)), normal(2, *hint), OPTIONS)


def test_a_dump_of_several_taps_needs_a_name() -> None:
    two = {"taps": ("block1", "features")}
    assert misfit_of("hint_mse", {"hint": "block1"}, two) is None
    assert misfit_of("hint_mse", {"hint": None}, {"taps": ("block1",)}) is None
    assert "hint: missing; expected one of block1, features" in str(misfit_of("hint_mse", {"hint": None}, two))
    assert "found 'other'" in str(misfit_of("hint_mse", {"hint": "other"}, two))
    v, u, w = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
    both = {"block1": u, "features": w}
    assert hint_mse(outputs(v), both, hint="block1").item() == hint_mse(outputs(v), u).item()
    assert hint_mse(outputs(v), both, hint="features").item() == hint_mse(outputs(v), w).item()


def test_the_tap_is_the_one_that_is_named() -> None:
    other = Outputs(torch.zeros(3, 2), torch.zeros(3).long(), {"a": normal(3, 2), "b": normal(3, 2, seed=5)})
    target = normal(3, 2, seed=6)
    assert hint_mse(other, target, tap="a").item() != hint_mse(other, target, tap="b").item()
    assert tsne(other, joint(3), tap="a").item() != tsne(other, joint(3), tap="b").item()
    options: dict[str, dict[str, Literal["a", "b"]]] = {"hint_mse": {"tap": "a"}, "tsne": {"tap": "b"}}
    recipe = Recipe(tuple(Term(name, constant(1, value=1.0), its) for name, its in options.items()))
    assert recipe.taps == ("a", "b")
    assert taps_of("ce", {}) == ()
