from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.manifold import _t_sne
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.base.errors import InputError
from pipeline.perplexity import (
    Conditional,
    FloatDType,
    compile_kernels,
    conditional_from_distances,
    conditional_probabilities,
    joint_probabilities,
    kernels,
    probabilities,
    squared_distances,
)

Array = NDArray[Any]

N, PERPLEXITY = 100, 20.0
TOLERANCE: dict[FloatDType, float] = {"float64": 1e-6, "float32": 1e-3}  # of the perplexity, relative
DTYPES = list(TOLERANCE)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(b: int = 3, n: int = N, d: int = 32, seed: int = 0) -> Array:
    return np.asarray(generator(seed).standard_normal((b, n, d)))


def clusters(ratio: float, members: int = 25) -> Array:
    """Clusters around four centres, `ratio` times smaller than their distances, one of them around 0."""
    values = normal(2, N, 8, seed=1)
    centres = generator(2).standard_normal((4, 8))
    centres[0] = 0
    return np.asarray(values * ratio + np.repeat(centres, [members, 40, 20, 40 - members], axis=0)[:N])


def digits() -> Array:
    """What a teacher may give: relu features of images, many of them 0."""
    images = load_digits().data[:600] / 16
    features: Array = np.maximum(images @ generator(3).standard_normal((64, 128)), 0).reshape(6, N, 128)
    return features.astype(np.float32)


def outlier(distance: float) -> Array:
    values = normal(1, N, 10, seed=4)
    values[0, 17, 3] += distance
    return values


def pairs_apart(gap: float) -> Array:
    """Points in pairs whose distance is `gap`."""
    values = normal(1, N // 2, 6, seed=5)
    return np.concatenate([values, values + gap], axis=1)


DATA: dict[str, Callable[[], Array]] = {
    "normal": normal,
    "one feature": lambda: normal(2, N, 1),
    "digits": digits,
    "clusters": lambda: clusters(1e-2),
    "tight clusters": lambda: clusters(1e-9, 15),
    "clusters of clusters": lambda: np.concatenate(
        [clusters(1e-12, 15)[:, :50] * 1e-3, clusters(1e-1)[:, 50:]], axis=1
    ),
    "pairs": lambda: pairs_apart(1e-7),
    "outlier 1e4": lambda: outlier(1e4),
    "outlier 1e8": lambda: outlier(1e8),
    "many scales": lambda: normal(2, N, 1) ** 31,
    "far from 0": lambda: normal() + 1e6,
}


def perplexities_of(p: Array) -> Array:
    """2^H of every row, from the probabilities alone."""
    p = p.astype(np.float64)
    return np.asarray(2 ** -(p * np.log2(np.where(p > 0, p, 1))).sum(-1))


def slow_distances(x: Array) -> Array:
    x = x.astype(np.float64)
    return np.array([[sum((a - b) ** 2) for b in x] for a in x])


def slow_row(distances: list[float], perplexity: float) -> tuple[list[float], float]:
    """p_{.|i} and sigma_i by bisection of log beta, from the squared distances to all others."""
    low, high, nearest = -800.0, 800.0, min(distances)
    for _ in range(80):
        middle = (low + high) / 2
        weights = [math.exp(-min(math.exp(min(middle, 700)) * (each - nearest), 800)) for each in distances]
        p = [weight / sum(weights) for weight in weights]
        entropy = -sum(each * math.log(each) for each in p if each > 0)
        low, high = (middle, high) if entropy > math.log(perplexity) else (low, middle)
    return p, math.sqrt(math.exp(-middle) / 2)


def slow_conditional(x: Array, perplexity: float) -> tuple[Array, Array]:
    distances, p, sigmas = slow_distances(x), np.zeros((len(x), len(x))), np.zeros(len(x))
    for i, row in enumerate(distances):
        others = [j for j in range(len(x)) if j != i]
        p[i, others], sigmas[i] = slow_row([float(row[j]) for j in others], perplexity)
    return p, sigmas


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    compile_kernels()


# --- what the probabilities are --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("perplexity", [2.0, 20.0, 60.0, 98.5])
@pytest.mark.parametrize("name", DATA)
def test_every_row_has_the_perplexity_asked_for(name: str, perplexity: float, dtype: FloatDType) -> None:
    found = conditional_probabilities(DATA[name](), perplexity, dtype=dtype)
    assert found.p.dtype == dtype
    recovered = perplexities_of(found.p)
    assert np.abs(recovered / perplexity - 1).max() < TOLERANCE[dtype]
    assert np.abs(found.perplexities / recovered - 1).max() < TOLERANCE[dtype] / 50
    assert np.abs(found.p.sum(-1, dtype=np.float64) - 1).max() < (1e-13 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize("name", ["normal", "digits", "clusters", "tight clusters", "outlier 1e8"])
def test_the_conditional_ones_equal_a_slow_reference(name: str) -> None:
    features = DATA[name]()[:1]
    found = conditional_probabilities(features, PERPLEXITY)
    p, sigmas = slow_conditional(features[0], PERPLEXITY)
    np.testing.assert_allclose(found.p[0], p, atol=1e-9)
    np.testing.assert_allclose(found.sigmas[0], sigmas, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-6)])
def test_the_joint_ones_are_the_mean_of_both_conditional_ones(dtype: FloatDType, tolerance: float) -> None:
    features = normal(b=4, n=37)
    joint, p = (
        made(features, 10, dtype=dtype)
        for made in (joint_probabilities, lambda *a, **k: conditional_probabilities(*a, **k).p)
    )
    np.testing.assert_allclose(joint, (p + p.transpose(0, 2, 1)) / (2 * 37), rtol=1e-6 if dtype == "float32" else 1e-15)
    slow = slow_conditional(features[3], 10)[0]
    np.testing.assert_allclose(joint[3], (slow + slow.T) / (2 * 37), atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 7, 16, 33, 100])
def test_joint_probabilities_are_symmetric_and_sum_to_one(n: int, dtype: FloatDType) -> None:
    p = joint_probabilities(normal(5, n, 3), (n - 1) * 0.6 if n > 3 else 1.5, dtype=dtype)
    assert p.shape == (5, n, n)
    assert p.dtype == dtype
    assert np.array_equal(p, p.transpose(0, 2, 1))
    assert not p[:, range(n), range(n)].any()
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum((1, 2), dtype=np.float64), 1, atol=1e-12 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cluster_too_small_for_float32_is_resolved(dtype: FloatDType) -> None:
    features = np.concatenate([normal(2, 40) * 1e-140, normal(2, 60)], axis=1)
    found = conditional_probabilities(features, PERPLEXITY, dtype=dtype)
    assert np.abs(perplexities_of(found.p[:, :40]) / PERPLEXITY - 1).max() < TOLERANCE[dtype]
    alone = conditional_probabilities(features[:, :40], PERPLEXITY, dtype=dtype)
    np.testing.assert_allclose(found.p[:, :40, :40], alone.p, atol=1e-5)


def test_no_floor_is_put_under_the_probabilities() -> None:
    p = joint_probabilities(clusters(1e-1), 2)
    assert 0 < p[p > 0].min() < 1e-30


def test_scikit_learn_gives_the_same_within_its_tolerance() -> None:
    features = digits()[:2].astype(np.float64)
    ours = joint_probabilities(features, PERPLEXITY)
    upper = np.triu_indices(N, 1)
    for mine, x in zip(ours, features, strict=True):
        theirs = _t_sne._joint_probabilities(pairwise_distances(x, squared=True), PERPLEXITY, 0)
        np.testing.assert_allclose(2 * mine[upper], 2 * theirs, rtol=1e-3, atol=1e-9)


# --- scales and places -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-990, -497, -30, 31, 500, 990])
def test_a_power_of_two_changes_no_bit(exponent: int, dtype: FloatDType) -> None:
    plain, large = (
        conditional_probabilities(each, PERPLEXITY, dtype=dtype) for each in (normal(), np.ldexp(normal(), exponent))
    )
    assert np.array_equal(large.p, plain.p)
    assert np.array_equal(large.sigmas, np.ldexp(plain.sigmas, exponent))
    assert np.array_equal(large.perplexities, plain.perplexities)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-20, 1e20, 1e150, 1e300])
def test_features_of_any_scale_do(scale: float, dtype: FloatDType) -> None:
    found = conditional_probabilities(normal() * scale, PERPLEXITY, dtype=dtype)
    assert np.abs(perplexities_of(found.p) / PERPLEXITY - 1).max() < TOLERANCE[dtype]
    plain = conditional_probabilities(normal(), PERPLEXITY, dtype=dtype)
    np.testing.assert_allclose(found.sigmas, plain.sigmas * scale, rtol=1e-4)
    joint = joint_probabilities(normal() * scale, PERPLEXITY, dtype=dtype)
    np.testing.assert_allclose(joint, joint_probabilities(normal(), PERPLEXITY, dtype=dtype), rtol=1e-3, atol=1e-10)


def test_each_batch_has_a_scale_of_its_own() -> None:
    scales = np.array([1e-160, 1.0, 1e160])
    alone = [conditional_probabilities(normal()[:1] * scale, PERPLEXITY) for scale in scales]
    together = conditional_probabilities(np.concatenate([normal()[:1] * scale for scale in scales]), PERPLEXITY)
    for row, each in enumerate(alone):
        assert all(np.array_equal(a[0], b[row]) for a, b in zip(each, together, strict=True))


# --- rows that cannot have the perplexity ----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "features",
    [np.zeros((2, 30, 4)), np.full((2, 30, 4), 0.1), np.eye(30)[None].repeat(2, 0)],
    ids=["zeros", "constant", "equally far"],
)
def test_equal_distances_give_equal_probabilities(features: Array, dtype: FloatDType) -> None:
    found = conditional_probabilities(features, 5, dtype=dtype)
    expected = (1 - np.eye(30)) / 29
    assert np.array_equal(found.p, np.broadcast_to(expected.astype(dtype), (2, 30, 30)))
    assert (found.perplexities == 29).all()
    assert not found.sigmas.any()
    joint = joint_probabilities(features, 5, dtype=dtype)
    np.testing.assert_allclose(joint, np.broadcast_to(expected / 30, (2, 30, 30)), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fifty_duplicates_cannot_have_a_perplexity_of_20(dtype: FloatDType) -> None:
    features = normal(2, N, 512, seed=7)
    features[1, 50:] = features[1, 50]
    found = conditional_probabilities(features, PERPLEXITY, dtype=dtype)
    assert (found.perplexities[1, 50:] == 49).all()
    assert not found.sigmas[1, 50:].any()
    expected = (1 - np.eye(50)).astype(dtype) / np.dtype(dtype).type(49)
    np.testing.assert_allclose(found.p[1, 50:, 50:], expected, rtol=1e-6)
    assert not found.p[1, 50:, :50].any()
    for others in (found.p[0], found.p[1, :50]):
        assert np.abs(perplexities_of(others) / PERPLEXITY - 1).max() < TOLERANCE[dtype]


def test_the_least_perplexity_that_duplicates_can_have_is_their_number_less_one() -> None:
    features = normal(1, N, 5)
    features[0, :20] = features[0, 0]
    for perplexity, reached in ((18.9, 19.0), (19.0, 19.0), (19.1, 19.1)):
        found = conditional_probabilities(features, perplexity)
        np.testing.assert_allclose(found.perplexities[0, :20], reached, rtol=1e-8)
        np.testing.assert_allclose(perplexities_of(found.p[0, :20]), reached, rtol=1e-8)
        assert (found.sigmas[0, :20] == 0).all() == (perplexity <= 19)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("perplexity", [1.0001, 98.9999])
def test_the_ends_of_what_can_be_reached(perplexity: float, dtype: FloatDType) -> None:
    found = conditional_probabilities(normal(), perplexity, dtype=dtype)
    assert np.abs(perplexities_of(found.p) / perplexity - 1).max() < TOLERANCE[dtype]


SHARES = st.one_of(st.floats(0.01, 0.99), st.sampled_from([1e-9, 0.0625, 0.5, 1 - 1e-9]))


@example(n=31, d=1, seed=1, dtype="float64", power=101, rounded=False, share=0.0625)
@given(
    n=st.integers(3, 40), d=st.integers(1, 5), seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES),
    power=st.sampled_from([1, 3, 25, 101, 301]), rounded=st.booleans(), share=SHARES,
)  # fmt: skip
def test_whatever_the_features_rows_are_probabilities(
    n: int, d: int, seed: int, dtype: FloatDType, power: int, rounded: bool, share: float
) -> None:
    with np.errstate(over="ignore"):
        values = np.clip(generator(seed).standard_normal((2, n, d)) ** power, -1e300, 1e300)
    if rounded:
        values = np.round(values)  # ties and duplicates
    perplexity = 1 + (n - 2) * share
    found = conditional_probabilities(values, perplexity, dtype=dtype)
    np.testing.assert_allclose(found.p.sum(-1, dtype=np.float64), 1, atol=1e-5)
    np.testing.assert_allclose(perplexities_of(found.p), found.perplexities, rtol=1e-3)
    missed = np.abs(found.perplexities / perplexity - 1) > 1e-4
    assert (found.perplexities[missed] > perplexity).all()
    assert not found.sigmas[missed].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [1e-307, 1e-300, 1e-297])
def test_gaps_too_small_to_tell_apart_are_ties(gap: float, dtype: FloatDType) -> None:
    """Of a row whose three nearest are apart by `gap` of the mean, a perplexity below 3 gets sigma 0."""
    row = np.array([0, 0, 0, gap, 1, 2, 3])
    found = conditional_from_distances(np.broadcast_to(row, (1, 7, 7)), 2.8125, dtype=dtype)
    assert found.perplexities[0, 0] == 3
    assert found.sigmas[0, 0] == 0
    assert np.array_equal(found.p[0, 0], np.array([0, 1, 1, 1, 0, 0, 0], dtype) / np.dtype(dtype).type(3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [1e-294, 1e-250, 1e-100, 1e-30])
@pytest.mark.parametrize("perplexity", [2.00001, 2.8125, 2.99999, 3.5])
def test_larger_gaps_are_told_apart(gap: float, perplexity: float, dtype: FloatDType) -> None:
    row = np.array([0, 0, 0, gap, 1, 2, 3])
    found = conditional_from_distances(np.broadcast_to(row, (1, 7, 7)), perplexity, dtype=dtype)
    np.testing.assert_allclose(found.perplexities[0, 0], perplexity, rtol=1e-5)
    np.testing.assert_allclose(perplexities_of(found.p)[0, 0], perplexity, rtol=1e-5)
    assert found.sigmas[0, 0] > 0


# --- distances -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
def test_distances_equal_direct_ones(name: str) -> None:
    features = DATA[name]()
    found = squared_distances(features)
    assert np.array_equal(found, found.transpose(0, 2, 1))
    assert not found[:, range(N), range(N)].any()
    np.testing.assert_allclose(found[-1], slow_distances(features[-1]), rtol=1e-9)


def test_duplicates_are_exactly_0_apart() -> None:
    features = normal(2, 50, 300)
    features[1, 25:] = features[1, :25]
    found = squared_distances(features)
    assert not found[1, range(25, 50), range(25)].any()
    assert (found[0] > 0).sum() == 50 * 49


@pytest.mark.parametrize(("scale", "expected"), [(1e-200, 0.0), (1e-100, None), (1e100, None), (1e200, math.inf)])
def test_distances_of_extreme_features(scale: float, expected: float | None) -> None:
    features = normal(1, 5)
    found = squared_distances(features * scale)
    plain = squared_distances(features)
    wanted = plain * scale**2 if expected is None else np.where(plain > 0, expected, 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_search_from_distances_is_the_one_from_features(dtype: FloatDType) -> None:
    features = digits()
    one = conditional_probabilities(features, PERPLEXITY, dtype=dtype)
    other = conditional_from_distances(squared_distances(features), PERPLEXITY, dtype=dtype)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert other.p.dtype == dtype


def test_a_search_from_distances_looks_at_differences_alone() -> None:
    distances = np.round(squared_distances(normal()) * 2**20) / 2**20
    one = conditional_from_distances(distances, PERPLEXITY)
    shifted = distances - 1000 + 7e5 * np.eye(N)
    other = conditional_from_distances(shifted, PERPLEXITY)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert shifted[0, 0, 0] == 699_000  # what is given stays as it is


# --- arguments -------------------------------------------------------------------------------------


def test_threads_change_no_bit() -> None:
    features = digits()[:5]
    features[2, 40:] = features[2, 0]
    for dtype in DTYPES:
        results = [
            conditional_probabilities(features, PERPLEXITY, dtype=dtype, threads=count) for count in (1, 2, 3, 8, None)
        ]
        joint = [joint_probabilities(features, PERPLEXITY, dtype=dtype, threads=count) for count in (1, 2, 3, 8, None)]
        distances = [squared_distances(features, threads=count) for count in (1, 2)]
        for other in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
        assert all(np.array_equal(joint[0], other) for other in joint[1:])
        assert np.array_equal(distances[0], distances[1])


def test_a_batch_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    features = digits()
    whole = joint_probabilities(features, PERPLEXITY)
    assert all(np.array_equal(joint_probabilities(features[k : k + 1], PERPLEXITY)[0], whole[k]) for k in range(6))
    monkeypatch.setattr(probabilities, "PIECE_BYTES", 1)
    assert np.array_equal(joint_probabilities(features, PERPLEXITY), whole)


CALLS: dict[str, Callable[..., Any]] = {
    "joint": joint_probabilities,
    "conditional": conditional_probabilities,
    "from distances": conditional_from_distances,
    "distances": lambda values, _, **options: squared_distances(values, **options),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("threads", "cores", "expected"), [(None, 3, 3), (None, 64, 5), (2, 64, 2), (9, 1, 5), (1, 4, None)]
)
def test_the_number_of_threads(
    name: str, threads: int | None, cores: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    pool = ThreadPoolExecutor

    def counting(count: int) -> Any:
        started.append(count)
        return pool(count)

    monkeypatch.setattr(probabilities, "ThreadPoolExecutor", counting)
    monkeypatch.setattr(probabilities, "_count_cores", lambda: cores)
    CALLS[name](normal(5, 8, 8), 3, threads=threads)
    assert started == ([] if expected is None else [expected])


def test_the_blas_library_has_one_thread_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    matmul: Callable[..., Any] = np.matmul

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return matmul(*arguments, **options)

    monkeypatch.setattr(np, "matmul", watched)
    with threadpool_limits(2, user_api="blas"):
        joint_probabilities(normal(), PERPLEXITY, threads=1)
        after = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    assert seen
    assert set(seen) == {1}
    assert set(after) == {2}


@pytest.mark.parametrize("kind", ["float16", "float32", "read only", "strided", "column order"])
def test_arrays_of_every_kind_are_taken_and_kept_and_nothing_is_compiled_for_them(kind: str) -> None:
    values = digits()[:2].astype(np.float64).round(1)
    kinds: dict[str, Callable[[], Array]] = {
        "float16": lambda: values.astype(np.float16),
        "float32": lambda: values.astype(np.float32),
        "read only": lambda: np.frombuffer(values.tobytes()).reshape(values.shape),
        "strided": lambda: np.repeat(values, 2, axis=2)[:, :, ::2],
        "column order": lambda: np.asfortranarray(values),
    }
    features = kinds[kind]()
    before = features.copy()
    every = [each for each in vars(kernels).values() if hasattr(each, "signatures")]
    assert len(every) > 10
    signatures = [len(each.signatures) for each in every]
    found = joint_probabilities(features, PERPLEXITY)
    assert np.array_equal(found, joint_probabilities(np.ascontiguousarray(features, np.float64), PERPLEXITY))
    conditional_from_distances(squared_distances(features).astype(features.dtype), PERPLEXITY)
    assert np.array_equal(features, before)
    assert [len(each.signatures) for each in every] == signatures


def test_no_batch_is_no_probability() -> None:
    assert joint_probabilities(np.empty((0, 5, 2)), 2).shape == (0, 5, 5)


@pytest.mark.parametrize(
    ("features", "perplexity", "options", "message"),
    [
        (normal(n=20), 19.0, {}, "perplexity in batches of n = 20: expected more than 1 and less than n - 1 = 19, found 19;"),
        (normal(n=20), 30.0, {}, "less than n - 1 = 19, found 30; lower the perplexity or use larger batches"),
        (normal(n=20), 1.0, {}, "more than 1 and less than n - 1 = 19, found 1;"),
        (normal(n=20), -4.0, {}, "found -4;"),
        (normal(n=20), math.nan, {}, "found nan;"),
        (normal(n=20), math.inf, {}, "found inf;"),
        (normal(n=20), 5.0, {"dtype": "float16"}, "dtype of the probabilities: expected float64 or float32, found 'float16'"),
        (normal(n=20), 5.0, {"threads": 0}, "threads: expected at least 1, found 0"),
    ],
)  # fmt: skip
def test_refused_arguments(features: Array, perplexity: float, options: dict[str, Any], message: str) -> None:
    for call in (conditional_probabilities, joint_probabilities):
        with pytest.raises(InputError) as refused:
            call(features, perplexity, **options)
        assert message in str(refused.value)
    with pytest.raises(InputError) as refused:
        conditional_from_distances(squared_distances(features), perplexity, **options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 4)), "of float16, float32 or float64, found float64 (20, 4)"),
        (np.zeros((2, 20, 20), int), "found int64 (2, 20, 20)"),
        (np.zeros((2, 20, 20), complex), "found complex128 (2, 20, 20)"),
        (np.zeros((2, 2, 2)), "n at least 3, found float64 (2, 2, 2); use larger batches"),
        (np.zeros((2, 20, 0)), "found float64 (2, 20, 0)"),
    ],
    ids=["two axes", "integers", "complex", "two samples", "no features"],
)
def test_refused_arrays(array: Array, message: str) -> None:
    calls = (
        ("features: expected (b, n, d)", joint_probabilities),
        ("features: expected (b, n, d)", conditional_probabilities),
        ("features: expected (b, n, d)", CALLS["distances"]),
        ("distances: expected (b, n, n)", conditional_from_distances),
    )
    for start, call in calls:
        with pytest.raises(InputError) as refused:
            call(array, 1.5)
        assert str(refused.value).startswith(start)
        assert message in str(refused.value)


def test_distances_are_square() -> None:
    with pytest.raises(InputError, match=r"distances: expected \(b, n, n\), found \(2, 20, 21\)"):
        conditional_from_distances(np.zeros((2, 20, 21)), 5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 13])
def test_what_is_not_finite_is_refused_by_batch_and_sample(value: float, dtype: Any, row: int) -> None:
    values = normal(6, 20, 20).astype(dtype)
    values[4, row, 2] = values[5, 0, 0] = value
    for threads in (1, 2, 6):
        for what, call in (
            ("features", CALLS["joint"]),
            ("features", CALLS["distances"]),
            ("distances", CALLS["from distances"]),
        ):
            with pytest.raises(InputError) as refused:
                call(values, 5, threads=threads)
            axis = "row" if what == "distances" else "sample"
            assert str(refused.value) == (
                f"{what} of batch 4, {axis} {row}, column 2: expected finite numbers whose differences float64 holds, "
                f"found {value}; one such number leaves the whole batch without neighbourhoods"
            )


def test_what_is_too_large_is_refused() -> None:
    for call, value in ((joint_probabilities, 1.5e308), (conditional_from_distances, 1e300)):
        values = normal(2, 20, 20)
        values[1, 3, 4], values[1, 5, 4] = value, -value
        with pytest.raises(
            InputError, match="of batch 1: expected finite numbers whose differences float64 holds, found larger"
        ):
            call(values, 5)


# --- kernels ---------------------------------------------------------------------------------------


def test_powers_of_two() -> None:
    t = np.linspace(-1022, 1022, 100_001)
    powers = np.array([kernels.exp2_double(each) for each in t])
    assert np.abs(powers / np.exp2(t) - 1).max() < 1e-12
    single = np.linspace(-126, 126, 100_001, dtype=np.float32)
    powers = np.array([kernels.exp2_single(each) for each in single])
    assert np.abs(powers / np.exp2(single.astype(np.float64)) - 1).max() < 4e-7
    assert kernels.exp2_double(0.0) == kernels.exp2_single(np.float32(0)) == 1
    assert kernels.exp2_double(-5000.0) == kernels.exp2_single(np.float32(-5000)) == 0


@pytest.mark.parametrize(("dtype", "beta"), [("float32", 8e34), ("float64", 1e304)])
def test_what_is_far_away_adds_nothing_to_the_moments(dtype: FloatDType, beta: float) -> None:
    x = np.array([0, -33, -1e-3] * 16, dtype)
    assert kernels.sum_moments(x, np.empty_like(x), x.dtype.type(beta)) == (16, 0, 0, 0)


def entropy_and_step(x: Array, u: float, target: float) -> tuple[float, float]:
    t = x * math.exp(u) / math.log(2)
    p = np.exp2(t) / np.exp2(t).sum()
    excess = float(-(p * np.log2(p)).sum()) - target
    first, second, third = (float((p * t**power).sum()) for power in (1, 2, 3))
    return excess, float(kernels.halley_step(first, second, third, excess))


def test_the_step_is_of_third_order() -> None:
    x = -generator().exponential(size=99)
    excesses = []
    for start in (0.02, 0.04):
        u = 1.7 + start
        target = entropy_and_step(x, 1.7, 0)[0]
        u += entropy_and_step(x, u, target)[1]
        excesses.append(abs(entropy_and_step(x, u, target)[0]))
    assert 7 < excesses[1] / excesses[0] < 9
    assert excesses[0] < 1e-5


def test_few_passes_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search as plain Python, its passes counted: what its speed rests on."""
    passes = []

    def counted(x: Array, e: Array, beta: float) -> tuple[float, ...]:
        passes.append(1)
        t = x * beta
        e[:] = np.exp2(t)
        return tuple(float((e * t**power).sum()) for power in range(4))

    solve: Any = kernels.solve_row
    plain = solve.py_func
    monkeypatch.setattr(kernels, "sum_moments", counted)
    distances = squared_distances(digits()[:1])[0]
    guess = kernels.FIRST
    for i, row in enumerate(distances):
        x = -np.delete(row, i) + np.delete(row, i).min()
        guess += (
            plain((x / -x.mean(), np.empty(N - 1)), 0, math.log2(PERPLEXITY), guess, kernels.PRECISE)[0] - guess
        ) / 4
    assert len(passes) / N < 3.6


def test_compiled_code_is_kept_on_disk_and_needs_no_torch() -> None:
    program = (
        "import sys; from pipeline.perplexity import compile_kernels, kernels; seconds = compile_kernels(); "
        "every = [each for each in vars(kernels).values() if hasattr(each, 'py_func')]; "
        "print(sum(sum(each.stats.cache_misses.values()) for each in every), "
        "sum(sum(each.stats.cache_hits.values()) for each in every), 'torch' in sys.modules, seconds > 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    misses, hits, torch, positive = done.stdout.split()
    assert (misses, torch, positive) == ("0", "False", "True")
    assert int(hits) >= 5


def test_a_result_names_its_parts() -> None:
    found = conditional_probabilities(normal(2, 8, 3), 3)
    assert isinstance(found, Conditional)
    assert (found.p.shape, found.sigmas.shape, found.perplexities.shape) == ((2, 8, 8), (2, 8), (2, 8))


def test_a_result_may_go_into_memory_that_is_there() -> None:
    values = normal(4, 8, 3)
    out = np.full((4, 8, 8), np.nan)
    found = joint_probabilities(values, 3, out=out)
    assert found is out
    assert np.array_equal(out, joint_probabilities(values, 3))
    for wrong in (np.empty((4, 8, 7)), np.empty((4, 8, 8), np.float32), np.empty((8, 8, 4)).transpose(2, 0, 1)):
        with pytest.raises(InputError, match="out: expected float64"):
            joint_probabilities(values, 3, out=wrong)
