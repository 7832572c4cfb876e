"""The joint probabilities of t-SNE, batch by batch (van der Maaten and Hinton 2008, equations 1 and 2).

For every row i a search for the width sigma_i at which p_{.|i} has the perplexity that is asked for.
It solves H(u) = log2(perplexity) for u = log beta by Halley's steps inside a bracket; entropy and its
two derivatives come from the sums of one pass over the row. The kernels are compiled by numba at
their first use and kept on disk: `warm_up` does that beforehand and says how long it took.

One batch is worked on by one thread from end to end, so no result depends on the number of threads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import scipy.linalg  # noqa: F401 - numba imports it in any case, but within the first call
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from pipeline.errors import InputError

Dtype = Literal["float64", "float32"]
Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

LOG2E = 1 / math.log(2)
LN2 = math.log(2)
PASSES = 200  # of one row at most; bisection alone would need fewer than 100
PRECISE = (1e-8, 700.0)  # tolerance of the entropy in bits, and the largest |u|: exp(u) stays finite
PRECISIONS: dict[Dtype, tuple[float, float]] = {"float64": PRECISE, "float32": (1e-5, 80.0)}
LARGEST, LARGEST_DISTANCE = 1022, 900  # exponents: of features whose differences are finite; of distances
PIECE = 1 << 20  # bytes of distances or features at a time: between the core's cache and many small calls
MODERATE = 400  # exponents whose squares neither overflow nor vanish: nothing is scaled
FIRST = 1.7  # u of a typical row, in units of its mean distance (measured on relu features)
CLOSE = 1e-4  # of |x|^2 + |y|^2: below, the Gram matrix leaves too few digits of |x - y|^2
NOT_FINITE = 0x7FF0_0000_0000_0000  # the bits of infinity; those of NaN are larger
LEAST = 1e-290  # rows whose distances differ less are rows of equal distances: 1 / it is finite
TILE = 8  # rows and columns of a tile: a line of the cache, of float64
PAD = 16  # columns of a row are made a multiple of it: two vectors of 8 floats

# Minimax polynomials of 2^r, |r| <= 1/2; largest relative errors 8.2e-13 and 9.2e-8. The first
# coefficient is 1 so that 2^0 is exactly 1.
DOUBLE = (
    1.0, 0.6931471805482118, 0.24022650698110404, 0.05550410935267314, 0.009618128616169064,
    0.0013333454859629779, 0.00015403825425730489, 1.530915644254449e-05, 1.3178942799285664e-06,
)  # fmt: skip
SINGLE = tuple(
    np.float32(each)
    for each in (1.0, 0.6931469775989926, 0.24022242085262419, 0.05550733743497155, 0.009671512644818858,
                 0.0013264727123445397)
)  # fmt: skip
ROUND_DOUBLE = 1.5 * 2.0**52  # added, it rounds to an integer, which stands in the low bits
ROUND_SINGLE = np.float32(1.5 * 2.0**23)
LEAST_DOUBLE, LEAST_SINGLE = -1023.0, np.float32(-127)  # whose 2^t comes out as exactly 0


class Conditional(NamedTuple):
    """The conditional probabilities of every batch."""

    p: Floats  # (b, n, n); row i is p_{.|i}, its diagonal 0
    sigmas: Doubles  # (b, n), in units of the features; 0 where only the nearest, equally far, have a share
    perplexities: Doubles  # (b, n), the ones reached: 2^{H(P_i)}, H in bits


def kernel(*fastmath: str) -> Callable[[Function], Function]:
    """Compile a function at its first call, keep it on disk, and let other Python threads run meanwhile."""
    # Multiplications and additions may always fuse; what else may be rearranged, each kernel says.
    compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", *fastmath})
    return cast("Callable[[Function], Function]", compiled)


# --- 2^t -------------------------------------------------------------------------------------------


@kernel()
def exp2_double(t: Any) -> Any:
    """2^t of a float64 t <= 1023, in operations that run on all lanes of a vector: 2^t = 2^k 2^r, k an integer."""
    t = max(t, LEAST_DOUBLE)
    shifted = t + ROUND_DOUBLE
    r = t - (shifted - ROUND_DOUBLE)
    c = DOUBLE
    p = (((((((c[8] * r + c[7]) * r + c[6]) * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]
    bits = np.float64(p).view(np.int64) + (np.float64(shifted).view(np.int64) << 52)
    return np.int64(bits).view(np.float64)


@kernel()
def exp2_single(t: Any) -> Any:
    """2^t of a float32 t <= 127."""
    t = max(t, LEAST_SINGLE)
    shifted = t + ROUND_SINGLE
    r = t - (shifted - ROUND_SINGLE)
    c = SINGLE
    p = ((((c[5] * r + c[4]) * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]
    bits = np.float32(p).view(np.int32) + np.int32(np.float32(shifted).view(np.int32) << 23)
    return np.int32(bits).view(np.float32)


def exp2(t: Any) -> Any:
    """2^t in the type of t, inside kernels."""
    raise NotImplementedError


def _exp2(t: Any) -> Callable[[Any], Any]:
    def single(t: Any) -> Any:
        return exp2_single(t)

    def double(t: Any) -> Any:
        return exp2_double(t)

    return single if t == types.float32 else double


overload(exp2)(_exp2)


# --- distances -------------------------------------------------------------------------------------


@kernel()
def exponent_of(x: Any) -> Any:
    """The least e with |x| < 2^e everywhere, x (n, d) float64; more than 1024 where x has NaN or inf."""
    # The bits of |x| order as the numbers do, and a maximum of integers runs on all lanes whatever they stand for.
    bits = x.view(np.int64)
    peak = np.int64(0)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            peak = max(peak, bits[i, k] & np.int64(0x7FFF_FFFF_FFFF_FFFF))
    return LARGEST + 1 if peak >= NOT_FINITE else math.frexp(np.int64(peak).view(np.float64))[1]


@kernel()
def scale(x: Any, exponent: Any) -> None:
    """Multiply x (n, d) by 2^-exponent in place; by two factors, since 2^-exponent itself may be no normal number."""
    half = exponent // 2
    first, second = math.ldexp(1.0, -half), math.ldexp(1.0, half - exponent)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[i, k] = x[i, k] * first * second


@kernel()
def scale_extremes(x: Any, exponents: Any) -> None:
    """Fill exponents (c,), and scale each batch of x (c, n, d) by it: 0 where squares are safe as they are."""
    for batch in range(len(x)):
        exponent = exponent_of(x[batch])
        exponents[batch] = 0 if abs(exponent) < MODERATE else exponent
        if MODERATE <= abs(exponent) <= LARGEST:
            scale(x[batch], exponent)


@kernel()
def from_gram(gram: Any) -> Any:
    """Turn Gram matrices (c, n, n) float64 into squared distances, in place.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x y. Where that cancels to CLOSE of |x|^2 + |y|^2 or less, -1 is written;
    returns how many these are. As symmetric as the Gram matrices: no operation knows i from j.
    """
    n, close = gram.shape[1], 0
    for g in gram:
        squares = np.diag(g).copy()
        for i in range(n):
            for j in range(n):
                total = squares[i] + squares[j]
                value = total - 2 * g[i, j]
                near = value <= CLOSE * total
                g[i, j] = -1.0 if near else value
                close += near
            g[i, i] = 0.0
        close -= n
    return close


@kernel("reassoc", "nsz")
def direct(x: Any, y: Any) -> Any:
    """|x - y|^2 of x, y (d,)."""
    total = 0.0
    for k in range(len(x)):
        total += (x[k] - y[k]) ** 2
    return total


@kernel()
def refine(distances: Any, x: Any, exponents: Any) -> None:
    """Replace each -1 of distances (c, n, n) by |x_i - x_j|^2 4^-exponent, x (c, n, d), which is overwritten."""
    for batch in range(len(x)):
        d, points = distances[batch], x[batch]
        scale(points, exponents[batch])
        for i in range(len(points)):
            for j in range(i):
                if d[i, j] < 0:
                    d[i, j] = d[j, i] = direct(points[i], points[j])


# --- search ----------------------------------------------------------------------------------------


@kernel("nnan", "nsz")
def least(row: Any) -> Any:
    """The smallest of the numbers (n,)."""
    low = row[0]
    for value in row:
        low = min(low, value)
    return low


@kernel("reassoc", "nsz")
def total_of(row: Any) -> Any:
    """The sum of the numbers (n,)."""
    total = 0.0
    for value in row:
        total += value
    return total


@kernel()
def shift(row: Any, i: Any, x: Any) -> Any:
    """Squared distances of row i, (n,) float64, to x = -(distance - the smallest) / mean, x_i = 0.

    Without the smallest, no far point underflows to a row of zeros; divided by their mean, all rows look
    alike. Returns the mean, and how many others are as near as the nearest. x (m,) float64 is padded with 0;
    row[i] becomes the smallest.
    """
    row[i] = np.inf
    low = least(row)
    row[i] = low
    ties = -1
    for j in range(len(row)):
        x[j] = low - row[j]
        ties += row[j] == low
    mean = -total_of(x) / (len(row) - 1)
    if mean < LEAST:
        return mean, len(row) - 1
    scale = 1 / mean
    for j in range(len(row)):
        x[j] *= scale
    return mean, ties


@kernel("reassoc", "nsz")
def moments(x: Any, e: Any, beta: Any) -> Any:
    """Sums of e, e t, e t^2 and e t^3 for t = beta x and e = 2^t; x and e (m,), e is overwritten."""
    for j in range(len(x)):
        e[j] = exp2(x[j] * beta)
    # A loop of its own: in one, sums and coefficients together do not fit the registers (measured, 1.6 times slower).
    s0 = s1 = s2 = s3 = x.dtype.type(0)
    for j in range(len(x)):
        t = x[j] * beta
        et = e[j] * t
        ett = et * t
        s0 += e[j]
        s1 += et
        s2 += ett
        s3 += ett * t
    return s0, s1, s2, s3


@kernel()
def halley(mean: Any, second: Any, third: Any, excess: Any) -> Any:
    """The step of u from the moments of t under p, and the entropy's excess over the target, in bits.

    With v the variance and k the third central moment of t, H' = -v ln 2 and H'' = -(2 v + k ln 2) ln 2,
    by u; Halley's step is -2 f H' / (2 H'^2 - f H''), f the excess.
    """
    variance = second - mean * mean
    skew = third - mean * (3 * second - 2 * mean * mean)
    square = LN2 * variance * variance
    bend = 2 * square + excess * (2 * variance + LN2 * skew)
    # Far from the root the second derivative misleads: it may at most halve or double Newton's step.
    return 2 * excess * variance / min(max(bend, square), 4 * square)


@kernel()
def solve(space: Any, padding: Any, target: Any, guess: Any, precision: Any) -> Any:
    """Search u from a first guess, so that p = 2^(x exp(u) log2 e) / sum has the entropy `target`, in bits.

    space is x and e (m,) as of `shift` and `moments`; `padding` of the m columns are none; precision is the
    tolerance of the entropy and the largest |u|. Returns u, the sum that belongs to e, and how much the
    entropy exceeds the target. A pass that does not halve the excess is followed by one that halves the
    bracket or goes twice as far as the farthest before.
    """
    (x, e), (tolerance, reach) = space, precision
    low, high, before, stride, to = -reach, reach, np.inf, 2.0, guess
    for _ in range(PASSES):
        u = to
        s0, s1, s2, s3 = moments(x, e, x.dtype.type(math.exp(u) * LOG2E))
        total = np.float64(s0) - padding  # each of these is 2^0
        inverse = 1 / total
        mean = s1 * inverse
        excess = math.log2(total) - mean - target
        if abs(excess) <= tolerance:
            break
        low, high = (u, high) if excess > 0 else (low, u)
        to = u + halley(mean, s2 * inverse, s3 * inverse, excess)
        if not (low < to < high) or abs(excess) > before / 2:
            to = (low + high) / 2
        to = min(max(to, u - stride), u + stride)
        before, stride = abs(excess), stride * 2
    return u, total, excess


@kernel()
def spread_evenly(row: Any, i: Any, ties: Any, p: Any) -> None:
    """p_{.|i} where sigma goes to 0: the same for all that are as near as the nearest."""
    low = row[i]  # `shift` left it there
    everywhere = ties == len(row) - 1
    for j in range(len(row)):
        p[j] = 1 / ties if everywhere or row[j] == low else 0.0
    p[i] = 0


@kernel()
def search(distances: Any, exponent: Any, perplexity: Any, precision: Any, found: Any) -> None:
    """Fill found, the p (n, n) of any type, sigmas (n,) and perplexities (n,) of one batch.

    distances (n, n) float64 are squared, times 4^-exponent, and finite; the diagonal is overwritten;
    precision as of `solve`. A row that p's type cannot resolve is searched again in float64.
    """
    p, sigmas, perplexities = found
    n = len(distances)
    size = (n + PAD - 1) // PAD * PAD
    fine = np.zeros(size), np.zeros(size)
    x, e = np.zeros(size, p.dtype), np.zeros(size, p.dtype)
    padding, target, guess = size - (n - 1), math.log2(perplexity), FIRST
    for i in range(n):
        mean, ties = shift(distances[i], i, fine[0])
        if ties >= perplexity:
            spread_evenly(distances[i], i, ties, p[i])
            sigmas[i], perplexities[i] = 0.0, ties
            continue
        x[:] = fine[0]
        u, total, excess = solve((x, e), padding, target, guess, precision)
        if abs(excess) > precision[0]:
            u, total, excess = solve(fine, padding, target, guess, PRECISE)
            e[:] = fine[1]
        for j in range(n):
            p[i, j] = e[j] * p.dtype.type(1 / total)
        p[i, i] = 0
        sigmas[i] = math.ldexp(math.sqrt(mean * math.exp(-u) / 2), exponent)
        perplexities[i] = 2.0 ** (target + excess)
        guess += (u - guess) / 4  # rows of a batch are alike, but for single ones


@kernel()
def symmetrise(p: Any) -> None:
    """p_ij = (p_{j|i} + p_{i|j}) / 2n of p (n, n), in place, tile by tile: a column of a large matrix is slow."""
    n = len(p)
    factor = p.dtype.type(1 / (2 * n))
    for top in range(0, n, TILE):
        for left in range(0, top + 1, TILE):
            for i in range(top, min(top + TILE, n)):
                for j in range(left, min(left + TILE, i)):
                    value = (p[i, j] + p[j, i]) * factor
                    p[i, j] = value
                    p[j, i] = value


@kernel()
def search_all(distances: Any, exponents: Any, options: Any, found: Any) -> None:
    """As `search`, for batches: distances (c, n, n), exponents (c,), found with a first axis c.

    options are the perplexity, the precision, and whether p becomes the joint probabilities.
    """
    perplexity, precision, joint = options
    p, sigmas, perplexities = found
    for batch in range(len(distances)):
        part = p[batch], sigmas[batch], perplexities[batch]
        search(distances[batch], exponents[batch], perplexity, precision, part)
        if joint:
            symmetrise(p[batch])


# --- batches ---------------------------------------------------------------------------------------


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
        if exponents.max() > LARGEST:
            raise _not_finite("features", "sample", start + int(np.argmax(exponents > LARGEST)), self.features)
        np.matmul(x, x.transpose(0, 2, 1), out=gram)  # numpy computes one half and copies it: exactly symmetric
        if from_gram(gram):
            np.copyto(x, features)
            refine(gram, x, exponents)
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
            if exponent_of(each) > LARGEST_DISTANCE:
                raise _not_finite("distances", "row", batch, self.distances)
        return copy, self.exponents[: stop - start]


def _not_finite(what: str, axis: str, batch: int, values: Floats) -> InputError:
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


def _search(
    source: Callable[[int], Source], shape: tuple[int, ...], perplexity: float, dtype: Dtype, threads: int | None,
    *, joint: bool,
) -> Conditional:  # fmt: skip
    """Conditional probabilities, or joint ones in their place; each thread makes a source of its own."""
    b, n, _ = shape
    _check_perplexity(perplexity, n)
    if dtype not in PRECISIONS:
        raise InputError("dtype of the probabilities", expected=" or ".join(PRECISIONS), found=repr(dtype))
    options = float(perplexity), PRECISIONS[dtype], joint
    found = Conditional(np.empty((b, n, n), dtype), np.empty((b, n)), np.empty((b, n)))

    def work(batches: range, count: int) -> None:
        distances_of = source(count)
        for start, stop in _pieces(batches, count):
            distances, exponents = distances_of(start, stop)
            search_all(distances, exponents, options, tuple(each[start:stop] for each in found))

    _share(work, shape, threads)
    return found


def _pieces(batches: range, count: int) -> list[tuple[int, int]]:
    return [(start, min(start + count, batches.stop)) for start in range(batches.start, batches.stop, count)]


def _share(work: Callable[[range, int], None], shape: tuple[int, ...], threads: int | None) -> None:
    """Give each thread its part of the batches, and how many of them to take at a time.

    The error of the first batch that has one is raised.
    """
    b, n, d = shape
    if threads is not None and threads < 1:
        raise InputError("threads", expected="at least 1", found=str(threads))
    count = max(1, min(b, threads or _cores()))
    at_a_time = max(1, PIECE // (8 * n * max(n, d)))
    parts = [range(b * k // count, b * (k + 1) // count) for k in range(count)]
    with _blas().limit(limits=1):  # of several BLAS threads the sums would depend on their number
        if count == 1:
            return work(parts[0], at_a_time)
        with ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(work, part, at_a_time) for part in parts]:
                done.result()
    return None


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def _cores() -> int:
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


# --- what others use -------------------------------------------------------------------------------


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
        for start, stop in _pieces(batches, count):
            distances, exponents = distances_of(start, stop)
            factors = np.ldexp(1.0, exponents)[:, None, None]
            with np.errstate(all="ignore"):
                np.multiply(distances * factors, factors, out=found[start:stop])

    _share(work, features.shape, threads)
    return found


def conditional_from_distances(
    distances: Floats, perplexity: float, *, dtype: Dtype = "float64", threads: int | None = None
) -> Conditional:
    """As `conditional_probabilities`, from squared distances; sigmas in units of their roots.

    Args:
        distances: (b, n, n) float16, float32 or float64 below 2^900; the diagonal is not looked at but has to
            be finite. In a row only the differences count; below 1e-290 in the mean, they count as 0.
        perplexity: as there.
        dtype: as there.
        threads: as there.

    Raises:
        InputError: as there.
    """
    _check_array("distances", distances, "(b, n, n)")
    if distances.shape[1] != distances.shape[2]:
        raise InputError("distances", expected="(b, n, n)", found=str(distances.shape))
    return _search(
        lambda count: DistanceBatches(distances, count), distances.shape, perplexity, dtype, threads, joint=False
    )


def conditional_probabilities(
    features: Floats, perplexity: float, *, dtype: Dtype = "float64", threads: int | None = None
) -> Conditional:
    """p_{j|i} = exp(-|x_i - x_j|^2 / 2 sigma_i^2) / sum_{k != i} exp(-|x_i - x_k|^2 / 2 sigma_i^2), p_{i|i} = 0.

    sigma_i is such that 2^{H(p_{.|i})}, H in bits, is the perplexity: relatively within 1e-8, in float32
    within 1e-5 and what rounding p costs. A row whose m nearest others are exactly as far as each other
    cannot reach a perplexity <= m (duplicates, for one): it gets the limit for sigma = 0, which is 1 / m for
    these and 0 for all others, and m as the perplexity reached. Features may have any scale; what differs
    by less than 1e-154 of the batch's largest number does not differ.

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
    return _search(
        lambda count: FeatureBatches(features, count), features.shape, perplexity, dtype, threads, joint=False
    )


def joint_probabilities(
    features: Floats, perplexity: float, *, dtype: Dtype = "float64", threads: int | None = None
) -> Floats:
    """p_ij = (p_{j|i} + p_{i|j}) / 2n of each batch, (b, n, n), from `conditional_probabilities`.

    Every batch sums to 1, is exactly symmetric, and has a diagonal of 0; no floor is put under it.
    Arguments and errors are those of `conditional_probabilities`.
    """
    _check_array("features", features, "(b, n, d)")
    return _search(
        lambda count: FeatureBatches(features, count), features.shape, perplexity, dtype, threads, joint=True
    ).p


def warm_up() -> float:
    """Compile every kernel, or load it from the disk; returns the seconds that took.

    Who does not call it pays the same at the first batch. Compiled code is kept beside this file, or where
    NUMBA_CACHE_DIR says, for this version of it and this kind of processor.
    """
    start = time.perf_counter()
    features = np.array([[[0.0], [0.0], [1.0], [2.0], [4.0]]])  # the duplicates take every path
    for dtype in PRECISIONS:
        joint_probabilities(features, 2.5, dtype=dtype, threads=1)
    return time.perf_counter() - start
