"""What the losses of activations (hint_mse, probe_rmse, tsne) do beside following their equations."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.losses.hint_mse import hint_mse
from pipeline.losses.hooks import find_mismatch, learned_factory, term_taps
from pipeline.losses.outputs import Outputs
from pipeline.losses.probe_rmse import probe_rmse
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.tsne import log_affinities, tsne
from pipeline.losses.weights.schedules import constant
from tests import reference

OPTIONS: dict[str, Any] = {"tap": "features", "hint": None}


def outputs(features: Tensor, beside: nn.Module | None = None) -> Outputs:
    logits = torch.zeros((len(features), 3), dtype=features.dtype)
    return Outputs(logits, torch.zeros(len(features), dtype=torch.int64), {"features": features}, beside)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def joint(n: int, seed: int = 1) -> Tensor:
    """A P: symmetric, zero diagonal, sum 1, with some pairs at zero."""
    p = normal(n, n, seed=seed).square()
    p[p < 0.05] = 0
    p = (p + p.T).fill_diagonal_(0)
    return p / p.sum()


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


def test_many_degrees_of_freedom_are_as_good_as_infinitely_many() -> None:
    y = normal(10, 2)
    y = y / torch.pdist(y).max() * math.sqrt(10)  # squared distances up to 10
    assert (log_affinities(y, 1e6) - log_affinities(y, math.inf)).fill_diagonal_(0).abs().max() < 1e-4
    assert (log_affinities(y, 1e2) - log_affinities(y, math.inf)).fill_diagonal_(0).abs().max() > 1e-2
    many, infinite, few = (tsne(outputs(y), joint(10), dof=dof).item() for dof in (1e6, "infinity", 1e2))
    assert abs(many - infinite) < 1e-4
    assert abs(few - infinite) > 1e-3


def test_near_duplicates_far_from_the_origin_keep_their_distances() -> None:
    y = normal(6, 3, dtype=torch.float32)
    moved = log_affinities(y + 1000, math.inf)
    assert (moved - log_affinities(y, math.inf)).fill_diagonal_(0).abs().max() < 0.01


@pytest.mark.parametrize("dof", [1.0, "infinity"])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_two_points_are_each_others_neighbours_however_far(far: float, dof: Any) -> None:
    y = torch.tensor([[0.0, 0.0], [far, 1.0]], requires_grad=True)  # float32: squared distances of 1e12
    p = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
    loss = tsne(outputs(y), p, dof=dof)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_a_single_point_has_no_pairs() -> None:
    assert tsne(outputs(torch.ones(1, 3)), torch.zeros(1, 1)).item() == 0.0


def test_affinities_are_a_distribution_over_the_pairs() -> None:
    for dof in (1.0, 3.7, math.inf):
        y = normal(7, 3)
        q = log_affinities(y, dof).exp().fill_diagonal_(0)
        assert q.sum().item() == pytest.approx(1.0, abs=1e-12)
        assert (q - reference.naive_affinities(y, dof)).abs().max() < 1e-12


def test_a_probe_compares_the_first_neurons_that_both_have() -> None:
    mentee, mentor = normal(3, 6), normal(3, 4, seed=1)
    phi = probe_rmse(outputs(mentee), mentor).item()
    mentee[:, 4:] = 1e3
    assert probe_rmse(outputs(mentee), mentor).item() == phi
    mentee[:, 3] += 1
    assert probe_rmse(outputs(mentee), mentor).item() != phi
    assert probe_rmse(outputs(mentor), mentee).item() == probe_rmse(outputs(mentee), mentor).item()


@pytest.mark.parametrize(("ours", "theirs"), [((5,), (5, 4, 4)), ((5, 4, 4), (5, 2, 2)), ((5, 4, 4), (5,))])
def test_a_probe_between_other_shapes_is_refused(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="loss probe_rmse: tap 'features': expected as many dimensions"):
        probe_rmse(outputs(normal(2, *ours)), normal(2, *theirs))


def test_a_regressor_joins_other_shapes_and_is_used() -> None:
    make = learned_factory("hint_mse")
    assert make is not None
    assert make(outputs(normal(2, 5)), normal(2, 5), OPTIONS) is None
    linear = make(outputs(normal(2, 5)), normal(2, 7), OPTIONS)
    maps = make(outputs(normal(2, 5, 4, 4)), normal(2, 7, 4, 4), OPTIONS)
    assert isinstance(linear, nn.Linear)
    assert isinstance(maps, nn.Conv2d)
    assert maps.kernel_size == (1, 1)
    linear = linear.double()
    v, u = normal(3, 5), normal(3, 7, seed=1)
    found = hint_mse(outputs(v, linear), u)
    expected = ((v @ linear.weight.T + linear.bias - u) ** 2).mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for guided, hint in (((5,), (7, 4, 4)), ((5, 4, 4), (7, 2, 2)), ((5, 4, 4), (7,))):
        with pytest.raises(InputError, match="loss hint_mse: tap 'features': expected vectors, or maps of the hint's"):
            make(outputs(normal(2, *guided)), normal(2, *hint), OPTIONS)


def test_a_dump_of_several_taps_needs_a_name() -> None:
    two, one = {"taps": ("block1", "features")}, {"taps": ("block1",)}
    for loss, its in (("hint_mse", {}), ("probe_rmse", {"between": "activations"})):
        assert find_mismatch(loss, {**its, "hint": "block1"}, two) is None
        assert find_mismatch(loss, {**its, "hint": None}, one) is None
        assert "hint: missing; expected one of block1, features" in str(find_mismatch(loss, {**its, "hint": None}, two))
        assert "found 'other'" in str(find_mismatch(loss, {**its, "hint": "other"}, two))
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
    assert term_taps("ce", {}) == ()
