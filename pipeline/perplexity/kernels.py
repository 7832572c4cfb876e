"""The compiled loops: 2^t, distances within a batch, and the search of each row.

All in one file: numba keeps compiled code until the file of the *called* kernel changes, and would not
notice a change of one that is called from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import scipy.linalg  # noqa: F401 - numba imports it in any case, but within the first call
from numba import njit, types
from numba.extending import overload

from pipeline.perplexity.numba_cache import provide_code_folder

Function = TypeVar("Function", bound=Callable[..., Any])

LOG2E = 1 / math.log(2)
LN2 = math.log(2)
PASSES = 200  # of one row at most; bisection alone would need fewer than 100
PRECISE = (1e-8, 700.0)  # tolerance of the entropy in bits, and the largest |u|: exp(u) stays finite
MAX_EXPONENT = 1022  # the exponent of features whose differences are finite
MODERATE = 16  # exponents that leave squares nearly the whole range of float64: nothing is scaled
FIRST = 1.7  # u of a typical row, in units of its mean distance (measured on relu features)
CLOSE = 1e-4  # of |x|^2 + |y|^2: below, the Gram matrix leaves too few digits of |x - y|^2
NOT_FINITE = 0x7FF0_0000_0000_0000  # the bits of infinity; those of NaN are larger
LEAST = 1e-290  # rows whose distances differ less are rows of equal distances: 1 / it is finite
NEAREST = 1e-296  # of a row's mean: what is no farther is as near as the nearest; exp(700) tells the others apart
TILE = 8  # rows and columns of a tile: a line of the cache, of float64
HAS_CODE_FOLDER = provide_code_folder(Path(__file__))
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


def kernel(*fastmath: str) -> Callable[[Function], Function]:
    """Compile a function at its first call, keep it on disk, and let other Python threads run meanwhile."""
    # Multiplications and additions may always fuse; what else may be rearranged, each kernel says. What calls
    # another holds its code: a sum of its own there and in the code from disk may be in another order (measured).
    compiled = njit(
        cache=HAS_CODE_FOLDER, nogil=True, forceinline=True, error_model="numpy", fastmath={"contract", *fastmath}
    )  # fmt: skip
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


def _select_exp2(t: Any) -> Callable[[Any], Any]:
    def single(t: Any) -> Any:
        return exp2_single(t)

    def double(t: Any) -> Any:
        return exp2_double(t)

    return single if t == types.float32 else double


overload(exp2)(_select_exp2)


# --- distances -------------------------------------------------------------------------------------


@kernel()
def find_exponent(x: Any) -> Any:
    """The least e with |x| < 2^e everywhere, x (n, d) float64; more than MAX_EXPONENT where x has NaN or inf."""
    # The bits of |x| order as the numbers do, and a maximum of integers runs on all lanes whatever they stand for.
    bits = x.view(np.int64)
    peak = np.int64(0)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            peak = max(peak, bits[i, k] & np.int64(0x7FFF_FFFF_FFFF_FFFF))
    return MAX_EXPONENT + 1 if peak >= NOT_FINITE else math.frexp(np.int64(peak).view(np.float64))[1]


@kernel()
def scale_points(x: Any, exponent: Any) -> None:
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
        exponent = find_exponent(x[batch])
        exponents[batch] = 0 if abs(exponent) < MODERATE else exponent
        if MODERATE <= abs(exponent) <= MAX_EXPONENT:
            scale_points(x[batch], exponent)


@kernel()
def gram_to_distances(gram: Any) -> Any:
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
def squared_distance(x: Any, y: Any) -> Any:
    """|x - y|^2 of x, y (d,)."""
    total = 0.0
    for k in range(len(x)):
        total += (x[k] - y[k]) ** 2
    return total


@kernel()
def refine_distances(distances: Any, x: Any, exponents: Any) -> None:
    """Replace each -1 of distances (c, n, n) by |x_i - x_j|^2 4^-exponent, x (c, n, d), which is overwritten."""
    for batch in range(len(x)):
        d, points = distances[batch], x[batch]
        scale_points(points, exponents[batch])
        for i in range(len(points)):
            for j in range(i):
                if d[i, j] < 0:
                    d[i, j] = d[j, i] = squared_distance(points[i], points[j])


# --- search ----------------------------------------------------------------------------------------


@kernel("nnan", "nsz")
def find_least(row: Any) -> Any:
    """The smallest of the numbers (n,)."""
    low = row[0]
    for value in row:
        low = min(low, value)
    return low


@kernel("reassoc", "nsz")
def sum_row(row: Any) -> Any:
    """The sum of the numbers (n,)."""
    total = 0.0
    for value in row:
        total += value
    return total


@kernel()
def shift_row(row: Any, i: Any, x: Any) -> Any:
    """Squared distances of row i, (n,) float64, to x = -(distance - the smallest) / mean, x_i = 0.

    Without the smallest, no far point underflows to a row of zeros; divided by their mean, all rows look
    alike. Returns the mean, and how many others are as near as the nearest. x (m,) float64 is padded with 0;
    row[i] becomes the smallest.
    """
    row[i] = np.inf
    low = find_least(row)
    row[i] = low
    for j in range(len(row)):
        x[j] = low - row[j]
    mean = -sum_row(x) / (len(row) - 1)
    if mean < LEAST:
        x[:] = 0
        return mean, len(row) - 1
    scale, ties = 1 / mean, -1
    for j in range(len(row)):
        x[j] *= scale
        ties += x[j] >= -NEAREST
    return mean, ties


@kernel("reassoc", "nsz")
def sum_moments(x: Any, e: Any, beta: Any) -> Any:
    """Sums of e, e t, e t^2 and e t^3 for t = beta x and e = 2^t; x and e (m,), e is overwritten."""
    for j in range(len(x)):
        e[j] = exp2(x[j] * beta)
    # A loop of its own: in one, sums and coefficients together do not fit the registers (measured, 1.6 times slower).
    s0 = s1 = s2 = s3 = x.dtype.type(0)
    for j in range(len(x)):
        t = max(x[j] * beta, x.dtype.type(-127))  # below, e is nothing beside the nearest's 1; t^3 could be infinite
        et = e[j] * t
        ett = et * t
        s0 += e[j]
        s1 += et
        s2 += ett
        s3 += ett * t
    return s0, s1, s2, s3


@kernel()
def halley_step(mean: Any, second: Any, third: Any, excess: Any) -> Any:
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
def solve_row(space: Any, padding: Any, target: Any, guess: Any, precision: Any) -> Any:
    """Search u from a first guess, so that p = 2^(x exp(u) log2 e) / sum has the entropy `target`, in bits.

    space is x and e (m,) as of `shift_row` and `sum_moments`; `padding` of the m columns are none; precision is the
    tolerance of the entropy and the largest |u|. Returns u, the sum that belongs to e, and how much the
    entropy exceeds the target. A pass that does not halve the excess is followed by one that halves the
    bracket or goes twice as far as the farthest before.
    """
    (x, e), (tolerance, reach) = space, precision
    low, high, before, stride, to = -reach, reach, np.inf, 2.0, min(max(guess, -reach), reach)
    for _ in range(PASSES):
        u = to
        s0, s1, s2, s3 = sum_moments(x, e, x.dtype.type(math.exp(u) * LOG2E))
        total = np.float64(s0) - padding  # each of these is 2^0
        inverse = 1 / total
        mean = s1 * inverse
        excess = math.log2(total) - mean - target
        if abs(excess) <= tolerance:
            break
        low, high = (u, high) if excess > 0 else (low, u)
        to = u + halley_step(mean, s2 * inverse, s3 * inverse, excess)
        if not (low < to < high) or abs(excess) > before / 2:
            to = (low + high) / 2
        to = min(max(to, u - stride), u + stride)
        before, stride = abs(excess), stride * 2
    return u, total, excess


@kernel()
def spread_evenly(x: Any, i: Any, ties: Any, p: Any) -> None:
    """p_{.|i} where sigma goes to 0: the same for all that are as near as the nearest, by x of `shift_row`."""
    for j in range(len(p)):
        p[j] = 1 / ties if x[j] >= -NEAREST else 0.0
    p[i] = 0


@kernel()
def search_batch(distances: Any, exponent: Any, perplexity: Any, precision: Any, found: Any) -> None:
    """Fill found, the p (n, n) of any type, sigmas (n,) and perplexities (n,) of one batch.

    distances (n, n) float64 are squared, times 4^-exponent, and finite; the diagonal is overwritten;
    precision as of `solve_row`. A row that p's type cannot resolve is searched again in float64.
    """
    p, sigmas, perplexities = found
    n = len(distances)
    size = (n + PAD - 1) // PAD * PAD
    fine = np.zeros(size), np.zeros(size)
    x, e = np.zeros(size, p.dtype), np.zeros(size, p.dtype)
    padding, target, guess = size - (n - 1), math.log2(perplexity), FIRST
    for i in range(n):
        mean, ties = shift_row(distances[i], i, fine[0])
        if ties >= perplexity:
            spread_evenly(fine[0], i, ties, p[i])
            sigmas[i], perplexities[i] = 0.0, ties
            continue
        x[:] = fine[0]
        u, total, excess = solve_row((x, e), padding, target, guess, precision)
        if abs(excess) > precision[0]:
            u, total, excess = solve_row(fine, padding, target, guess, PRECISE)
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
def search_batches(distances: Any, exponents: Any, options: Any, found: Any) -> None:
    """As `search_batch`, for batches: distances (c, n, n), exponents (c,), found with a first axis c.

    options are the perplexity, the precision, and whether p becomes the joint probabilities.
    """
    perplexity, precision, joint = options
    p, sigmas, perplexities = found
    for batch in range(len(distances)):
        part = p[batch], sigmas[batch], perplexities[batch]
        search_batch(distances[batch], exponents[batch], perplexity, precision, part)
        if joint:
            symmetrise(p[batch])
