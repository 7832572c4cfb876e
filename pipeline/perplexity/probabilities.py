"""Batches of features or distances, shared out among threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.perplexity.blas_threads import limit_to_one_thread
from pipeline.perplexity.kernels import (
    MAX_EXPONENT,
    PRECISE,
    find_exponent,
    gram_to_distances,
    refine_distances,
    scale_extremes,
    search_batches,
)

FloatDType = Literal["float64", "float32"]
Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

PRECISIONS: dict[FloatDType, tuple[float, float]] = {"float64": PRECISE, "float32": (1e-5, 80.0)}
MAX_DISTANCE_EXPONENT = 900  # the exponent of distances whose sums are finite
PIECE_BYTES = 1 << 20  # bytes of distances or features at a time: between the core's cache and many small calls


class Conditional(NamedTuple):
    """The conditional probabilities of every batch."""

    p: Floats  # (b, n, n); row i is p_{.|i}, its diagonal 0
    sigmas: Doubles  # (b, n), in units of the features; 0 where only the nearest, equally far, have a share
    perplexities: Doubles  # (b, n), the ones reached: 2^{H(P_i)}, H in bits


class FeatureBatches:
    """The squared distances within batches of features (b, n, d), `count` at a time, for one thread."""

    def __init__(self, features: Floats, count: int) -> None:
        _, n, d = features.shape
        self.features = features
        self.x: Doubles = np.empty((count, n, d))
        self.gram: Doubles = np.empty((count, n, n))
        self.exponents = np.empty(count, np.int64)

    def __call__(self, start: int, stop: int) -> tuple[Doubles, NDArray[np.int64]]:
        """Squared distances (c, n, n) times 4^-exponent, and the exponents (c,); valid until the next call."""
        features, count = self.features[start:stop], stop - start
        x, gram, exponents = self.x[:count], self.gram[:count], self.exponents[:count]
        with np.errstate(all="ignore"):
            # Seen from one of its own points, a cloud that lies far away keeps its digits in the Gram matrix.
            np.subtract(features, features[:, :1].astype(np.float64), out=x)
        scale_extremes(x, exponents)
        if exponents.max() > MAX_EXPONENT:
            raise _non_finite_error(
                "features", "sample", start + int(np.argmax(exponents > MAX_EXPONENT)), self.features
            )
        np.matmul(x, x.transpose(0, 2, 1), out=gram)  # numpy computes one half and copies it: exactly symmetric
        if gram_to_distances(gram):
            np.copyto(x, features)
            refine_distances(gram, x, exponents)
        return gram, exponents


class DistanceBatches:
    """Given squared distances (b, n, n), `count` at a time, for one thread."""

    def __init__(self, distances: Floats, count: int) -> None:
        self.distances = distances
        self.copy: Doubles = np.empty((count, *distances.shape[1:]))
        self.exponents = np.zeros(count, np.int64)

    def __call__(self, start: int, stop: int) -> tuple[Doubles, NDArray[np.int64]]:
        """A copy (c, n, n), and exponents of 0."""
        copy = self.copy[: stop - start]
        np.copyto(copy, self.distances[start:stop])
        for batch, each in enumerate(copy, start):
            if find_exponent(each) > MAX_DISTANCE_EXPONENT:
                raise _non_finite_error("distances", "row", batch, self.distances)
        return copy, self.exponents[: stop - start]


def _non_finite_error(what: str, axis: str, batch: int, values: Floats) -> InputError:
    bad = np.argwhere(~np.isfinite(values[batch]))
    where, found = "", "larger ones"
    if len(bad):
        row, column = bad[0].tolist()
        where, found = f", {axis} {row}, column {column}", str(values[batch, row, column])
    return InputError(
        f"{what} of batch {batch}{where}", expected="finite numbers whose differences float64 holds", found=found,
        fix="one such number leaves the whole batch without neighbourhoods",
    )  # fmt: skip


Source = Callable[[int, int], tuple[Doubles, NDArray[np.int64]]]


def _search_batches(
    source: Callable[[int], Source], shape: tuple[int, ...], perplexity: float, dtype: FloatDType, threads: int | None,
    *, joint: bool, out: Floats | None = None,
) -> Conditional:  # fmt: skip
    """Conditional probabilities, or joint ones in their place; each thread makes a source of its own."""
    b, n, _ = shape
    _check_perplexity(perplexity, n)
    if dtype not in PRECISIONS:
        raise InputError("dtype of the probabilities", expected=" or ".join(PRECISIONS), found=repr(dtype))
    options = float(perplexity), PRECISIONS[dtype], joint
    if out is None:
        out = np.empty((b, n, n), dtype)
    if out.shape != (b, n, n) or out.dtype != dtype or not out.flags.c_contiguous:
        expected, given = f"{dtype} {(b, n, n)}, in C order", f"{out.dtype} {out.shape}"
        raise InputError("out", expected=expected, found=given)
    found = Conditional(out, np.empty((b, n)), np.empty((b, n)))

    def work(batches: range, count: int) -> None:
        distances_of = source(count)
        for start, stop in _split_range(batches, count):
            distances, exponents = distances_of(start, stop)
            search_batches(distances, exponents, options, tuple(each[start:stop] for each in found))

    _run_in_threads(work, shape, threads)
    return found


def _split_range(batches: range, count: int) -> list[tuple[int, int]]:
    return [(start, min(start + count, batches.stop)) for start in range(batches.start, batches.stop, count)]


def _run_in_threads(work: Callable[[range, int], None], shape: tuple[int, ...], threads: int | None) -> None:
    """Give each thread its part of the batches, and how many of them to take at a time.

    The error of the first batch that has one is raised.
    """
    b, n, d = shape
    if threads is not None and threads < 1:
        raise InputError("threads", expected="at least 1", found=str(threads))
    count = max(1, min(b, threads or _count_cores()))
    at_a_time = max(1, PIECE_BYTES // (8 * n * max(n, d)))
    parts = [range(b * k // count, b * (k + 1) // count) for k in range(count)]
    with limit_to_one_thread():
        if count == 1:
            return work(parts[0], at_a_time)
        with ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(work, part, at_a_time) for part in parts]:
                done.result()
    return None


def _count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_array(what: str, array: Floats, shape: str) -> None:
    found = f"{array.dtype} {array.shape}"
    if array.ndim != 3 or array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(what, expected=f"{shape} of float16, float32 or float64", found=found)
    if array.shape[1] < 3 or array.shape[2] < 1:
        raise InputError(what, expected=f"{shape}, n at least 3", found=found, fix="use larger batches")


def _check_perplexity(perplexity: float, n: int) -> None:
    if not 1 < perplexity < n - 1:  # false of NaN as well
        raise InputError(
            f"perplexity in batches of n = {n}", expected=f"more than 1 and less than n - 1 = {n - 1}",
            found=f"{perplexity:g}", fix="lower the perplexity or use larger batches",
        )  # fmt: skip


def squared_distances(features: Floats, *, threads: int | None = None) -> Doubles:
    """|x_i - x_j|^2 within each batch, (b, n, n) float64, exactly symmetric, the diagonal 0.

    By one Gram matrix a batch, and by direct differences where that would cancel. What is too large for
    float64 is infinite, what is too small 0.

    Args:
        features: (b, n, d) float16, float32 or float64, n >= 3.
        threads: as for `conditional_probabilities`.

    Raises:
        InputError: for another shape or type, NaN or infinity.
    """
    _check_array("features", features, "(b, n, d)")
    b, n, _ = features.shape
    found: Doubles = np.empty((b, n, n))

    def work(batches: range, count: int) -> None:
        distances_of = FeatureBatches(features, count)
        for start, stop in _split_range(batches, count):
            distances, exponents = distances_of(start, stop)
            factors = np.ldexp(1.0, exponents)[:, None, None]
            with np.errstate(all="ignore"):
                np.multiply(distances * factors, factors, out=found[start:stop])

    _run_in_threads(work, features.shape, threads)
    return found


def conditional_from_distances(
    distances: Floats, perplexity: float, *, dtype: FloatDType = "float64", threads: int | None = None
) -> Conditional:
    """As `conditional_probabilities`, from squared distances; sigmas in units of their roots.

    Args:
        distances: (b, n, n) float16, float32 or float64 below 2^900; the diagonal is not looked at but has to
            be finite. In a row only the differences to the smallest count: as 0 where they are below 1e-296 of
            their mean, or that is below 1e-290.
        perplexity: as there.
        dtype: as there.
        threads: as there.

    Raises:
        InputError: as there.
    """
    _check_array("distances", distances, "(b, n, n)")
    if distances.shape[1] != distances.shape[2]:
        raise InputError("distances", expected="(b, n, n)", found=str(distances.shape))
    return _search_batches(
        lambda count: DistanceBatches(distances, count), distances.shape, perplexity, dtype, threads, joint=False
    )


def conditional_probabilities(
    features: Floats, perplexity: float, *, dtype: FloatDType = "float64", threads: int | None = None
) -> Conditional:
    """p_{j|i} = exp(-|x_i - x_j|^2 / 2 sigma_i^2) / sum_{k != i} exp(-|x_i - x_k|^2 / 2 sigma_i^2), p_{i|i} = 0.

    sigma_i is such that 2^{H(p_{.|i})}, H in bits, is the perplexity: relatively within 1e-8, in float32
    within 1e-5 and what rounding p costs. A row whose m nearest others are exactly as far as each other
    cannot reach a perplexity <= m (duplicates, for one): it gets the limit for sigma = 0, which is 1 / m for
    these and 0 for all others, and m as the perplexity reached. Exactly means but for 1e-296 of the row's mean
    squared distance beyond the smallest: what float64 does not tell apart. Features may have any scale.

    Args:
        features: (b, n, d) float16, float32 or float64, n >= 3.
        perplexity: of every row, 1 < perplexity < n - 1.
        dtype: of p, and of the search but for the rows that float32 does not resolve. Distances are float64.
        threads: Python threads, each with batches of its own and one BLAS thread; None: one for each core
            that this process may use. The numbers do not depend on it.

    Raises:
        InputError: for another shape or type, NaN or infinity, a perplexity that no batch of n can have.
    """
    _check_array("features", features, "(b, n, d)")
    return _search_batches(
        lambda count: FeatureBatches(features, count), features.shape, perplexity, dtype, threads, joint=False
    )


def joint_probabilities(
    features: Floats,
    perplexity: float,
    *,
    dtype: FloatDType = "float64",
    threads: int | None = None,
    out: Floats | None = None,
) -> Floats:
    """p_ij = (p_{j|i} + p_{i|j}) / 2n of each batch, (b, n, n), from `conditional_probabilities`.

    Every batch sums to 1, is exactly symmetric, and has a diagonal of 0; no floor is put under it.
    Arguments and errors are those of `conditional_probabilities`.

    Args:
        out: receives the result, (b, n, n) of `dtype`. Handed in again and again it saves the fresh memory,
            which costs a tenth of the time, and most of what a second thread gains.
    """
    _check_array("features", features, "(b, n, d)")
    return _search_batches(
        lambda count: FeatureBatches(features, count), features.shape, perplexity, dtype, threads, joint=True, out=out
    ).p


def compile_kernels() -> float:
    """Compile every kernel, or load it from the disk; returns the seconds that took.

    Who does not call it pays the same at the first batch. Compiled code is kept beside this file, or where
    NUMBA_CACHE_DIR says, for this version of it and this kind of processor; where neither can be written,
    see `numba_cache`.
    """
    start = time.perf_counter()
    features = np.array([[[0.0], [0.0], [1.0], [2.0], [4.0]]])  # the duplicates take every path
    for dtype in PRECISIONS:
        joint_probabilities(features, 2.5, dtype=dtype, threads=1)
    return time.perf_counter() - start
