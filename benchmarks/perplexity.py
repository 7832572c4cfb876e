"""The perplexity search and the joint probabilities against scikit-learn and others, side by side.

    python benchmarks/perplexity.py [--mnist FOLDER] [--repeats 7] [--batches 60]

Batches of relu features (a fixed random layer on images: MNIST where its folder is given, else the digits
that come with scikit-learn, repeated with noise), perplexity 20. Every repeat runs all sides one behind the
other, in one thread unless said; a ratio is taken within one repeat. openTSNE takes part where it is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported: the others have one thread as well

import numpy as np
import torch
from measurement import Goal, Row, Spread, interleave, parser, ratios, record, seconds
from numba import njit
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.manifold import _t_sne, _utils
from sklearn.metrics import pairwise_distances

from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.perplexity import (
    compile_kernels,
    conditional_from_distances,
    joint_probabilities,
    squared_distances,
)

try:
    from openTSNE import _tsne as opentsne
except ImportError:
    opentsne = None

Array = NDArray[Any]
Sides = dict[str, Callable[[], object]]

PERPLEXITY = 20.0
FEW = 3  # repeats, at most, of what takes long
FIRST_CALL = (
    "import time; start = time.perf_counter(); from pipeline import perplexity; "
    "print(time.perf_counter() - start, perplexity.compile_kernels())"
)


# --- data ------------------------------------------------------------------------------------------


def read_images(mnist: Path | None, count: int) -> Array:
    """Images (count, pixels) float32 in [0, 1]."""
    if mnist is None:
        generator = np.random.default_rng(0)
        digits = load_digits().data / 16
        values: Array = digits[generator.integers(len(digits), size=count)]
        noisy: Array = values + 0.05 * generator.standard_normal(values.shape)
        return noisy.astype(np.float32)
    whole = prepare_dataset("mnist", "mnist", Place("mnist", str(mnist)))
    return whole.images[:count].reshape(count, -1).astype(np.float32) / 255


def make_features(pixels: Array, b: int, n: int, d: int) -> Array:
    """A random layer's relu He's scale, (b, n, d) float32."""
    size = pixels.shape[1]
    weights = np.random.default_rng(1).standard_normal((size, d), np.float32) * np.float32((2 / size) ** 0.5)
    found: Array = np.maximum(pixels[: b * n] @ weights, 0).reshape(b, n, d)
    return found


# --- the other sides -------------------------------------------------------------------------------


def search_sklearn(distances: Array) -> Array:
    """scikit-learn's kernel takes float32 distances."""
    return np.stack([_utils._binary_search_perplexity(each, PERPLEXITY, 0) for each in distances])  # noqa: SLF001


def join_sklearn(values: Array) -> list[Array]:
    """What TSNE(method="exact") does with each batch."""
    return [_t_sne._joint_probabilities(pairwise_distances(each, squared=True), PERPLEXITY, 0) for each in values]  # noqa: SLF001


def search_published(distances: Array) -> Array:
    """The bisection of van der Maaten's `x2p`, row by row: tolerance 1e-5 nats, at most 50 tries."""
    p = np.zeros(distances.shape)
    for batch, d in enumerate(distances):
        for i in range(len(d)):
            others = np.r_[0:i, i + 1 : len(d)]
            beta, low, high = 1.0, -np.inf, np.inf
            for _ in range(51):
                weights = np.exp(-d[i, others] * beta)
                total = weights.sum()
                excess = np.log(total) + beta * (d[i, others] * weights).sum() / total - np.log(PERPLEXITY)
                if abs(excess) < 1e-5:
                    break
                if excess > 0:
                    low, beta = beta, beta * 2 if np.isinf(high) else (beta + high) / 2
                else:
                    high, beta = beta, beta / 2 if np.isinf(low) else (beta + low) / 2
            p[batch, i, others] = weights / total
    return p


def search_torch(distances: torch.Tensor) -> torch.Tensor:
    """All rows of all batches at once, until the last one is within 1e-5 nats."""
    b, n, _ = distances.shape
    beta = torch.ones(b, n, 1, dtype=distances.dtype)
    low, high = torch.zeros_like(beta), torch.full_like(beta, torch.inf)
    diagonal = torch.eye(n, dtype=torch.bool)
    for _ in range(50):
        weights = torch.exp(-distances * beta).masked_fill(diagonal, 0)
        total = weights.sum(2, keepdim=True)
        excess = total.log() + beta * (distances * weights).sum(2, keepdim=True) / total - np.log(PERPLEXITY)
        if excess.abs().max() < 1e-5:
            break
        low, high = torch.where(excess > 0, beta, low), torch.where(excess > 0, high, beta)
        beta = torch.where(high.isinf(), beta * 2, (low + high) / 2)
    return weights / total


def search_opentsne(distances: Array) -> Array:
    """The kernel of openTSNE takes the distances (not squared) to the neighbours alone."""
    p = np.zeros(distances.shape)
    for batch, d in enumerate(distances):
        n = len(d)
        rest = ~np.eye(n, dtype=bool)
        found = opentsne.compute_gaussian_perplexity(
            np.sqrt(d[rest].reshape(n, n - 1)), np.array([PERPLEXITY]), num_threads=1
        )
        p[batch][rest] = np.asarray(found).ravel()
    return p


@njit(nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def spin(count: int) -> float:
    """Arithmetic that shares nothing: what two threads can gain at all just now."""
    value = 0.0
    for number in range(count):
        value = value * 0.999 + number
    return value


def spin_in_threads(count: int, work: int) -> None:
    """Spin, the work divided."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(spin, [work // count] * count))


# --- measuring -------------------------------------------------------------------------------------


def measure_error(p: Array) -> float:
    """The largest relative error of a row's perplexity, from its probabilities."""
    p = np.asarray(p, np.float64)
    reached = 2 ** -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)
    return float(np.abs(reached / PERPLEXITY - 1).max())


def compare(title: str, sides: Sides, batches: int, repeats: int, goals: Mapping[str, float]) -> Iterator[Row]:
    """A row of each side, with its ratio to the first one."""
    found = interleave({name: partial(seconds, side) for name, side in sides.items()}, repeats)
    first = next(iter(found.values()))
    for name, each in found.items():
        values = {
            "times the first": ratios(first, each),
            "microseconds a batch": Spread.of(1e6 * one / batches for one in each),
        }
        goal = Goal(at_least=goals[name]) if name in goals else None
        yield Row(labels={"what": title, "side": name}, values=values, goal=goal)


def list_searches(distances: Array) -> Sides:
    """The search alone, from squared distances that are there already."""
    single = distances.astype(np.float32)
    tensors = torch.from_numpy(distances), torch.from_numpy(single)
    sides: Sides = {
        "scikit-learn": lambda: search_sklearn(single),
        "this, float64": lambda: conditional_from_distances(distances, PERPLEXITY, threads=1).p,
        "this, float32": lambda: conditional_from_distances(distances, PERPLEXITY, dtype="float32", threads=1).p,
        "torch, batched bisection, float64": lambda: search_torch(tensors[0]).numpy(),
        "torch, batched bisection, float32": lambda: search_torch(tensors[1]).numpy(),
    }
    if opentsne is not None:
        sides["openTSNE"] = lambda: search_opentsne(distances)
    return sides


def list_slow_searches(distances: Array) -> Sides:
    """Those that take too long for all batches."""
    single = distances.astype(np.float32)
    return {
        "scikit-learn": lambda: search_sklearn(single),
        "van der Maaten's x2p, numpy": lambda: search_published(distances),
    }


def measure_searches(values: Array, repeats: int) -> Iterator[tuple[str, Row]]:
    """Times and errors."""
    distances = squared_distances(values, threads=1)
    sides, slow = list_searches(distances), list_slow_searches(distances[:2])
    rows = compare("search", sides, len(values), repeats, {"this, float64": 12, "this, float32": 20})
    yield from (("times", row) for row in rows)
    yield from (("times", row) for row in compare("search, 2 batches", slow, 2, min(repeats, FEW), {}))
    goals = {"this, float64": Goal(at_most=1e-6), "this, float32": Goal(at_most=2e-4)}
    for name, side in (sides | slow).items():
        error = measure_error(np.asarray(side()))
        yield "errors", Row(labels={"search": name}, values={"worst error": error}, goal=goals.get(name))


def list_joints(values: Array) -> Sides:
    """Features to joint probabilities, ours into memory that is there, as a dump does it."""
    n = values.shape[1]
    wide, narrow = (np.empty((len(values), n, n), dtype) for dtype in ("float64", "float32"))
    doubles = values.astype(np.float64)
    return {
        "scikit-learn": lambda: join_sklearn(values),
        "this, float64": lambda: joint_probabilities(values, PERPLEXITY, threads=1, out=wide),
        "this, float32": lambda: joint_probabilities(values, PERPLEXITY, dtype="float32", threads=1, out=narrow),
        "the Gram matrices alone": lambda: np.matmul(doubles, doubles.transpose(0, 2, 1), out=wide),
    }


def measure_joints(pixels: Array, b: int, repeats: int) -> Iterator[Row]:
    """Small batches in two widths, then larger ones."""
    for d, goal in ((50, 25), (512, 12)):
        sides, goals = list_joints(make_features(pixels, b, 100, d)), {"this, float64": goal, "this, float32": goal}
        yield from compare(f"features to joint, d = {d}", sides, b, repeats, goals)
    for n in (128, 256, 512, 1000):
        count = min(2000, len(pixels)) // n
        sides = list_joints(make_features(pixels, count, n, 50))
        yield from compare(f"features to joint, n = {n}, d = 50", sides, count, min(repeats, FEW), {})


def measure_threads(values: Array, title: str, repeats: int) -> Iterator[Row]:
    """Two threads against one; beside it, two threads that share nothing."""
    out = np.empty((len(values), values.shape[1], values.shape[1]))
    joint = partial(joint_probabilities, values, PERPLEXITY, out=out)
    sides: Sides = {"one thread": partial(joint, threads=1), "two threads": partial(joint, threads=2)}
    yield from compare(title, sides, len(values), repeats, {"two threads": 1.8})
    spins: Sides = {name: partial(spin_in_threads, count, 20_000_000) for count, name in enumerate(sides, 1)}
    yield from compare("no work but spinning", spins, 1, repeats, {})


def measure_first_calls(repeats: int) -> Iterator[Row]:
    """Seconds of the import and of the first call, in fresh processes, the kernels on the disk."""
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True)
        found.append([float(each) for each in done.stdout.split()])
    for what, values in zip(
        ("import of `pipeline.perplexity`", "first call after it"), zip(*found, strict=True), strict=True
    ):
        yield Row(labels={"in a fresh process": what}, values={"s": Spread.of(values)})


def measure(pixels: Array, b: int, repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows."""
    print(f"compiled or loaded in {compile_kernels():.1f} s")
    yield from (("first_calls", row) for row in measure_first_calls(min(repeats, 5)))
    yield from measure_searches(make_features(pixels, b, 100, 512), repeats)
    yield from (("times", row) for row in measure_joints(pixels, b, repeats))
    for d in (50, 512):
        for count in (b, 10 * b):
            title = f"features to joint, d = {d}, {count} batches"
            rows = measure_threads(make_features(pixels, count, 100, d), title, repeats)
            yield from (("threads", row) for row in rows)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--mnist", type=Path, help="the folder of MNIST's idx files")
    options.add_argument("--batches", type=int, default=60)
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = measure(read_images(given.mnist, 10 * given.batches * 100), given.batches, given.repeats)
    shown = "digits with noise" if given.mnist is None else "mnist"
    libraries = ["numpy", "numba", "scikit-learn", "torch", "openTSNE"]
    record("perplexity", rows, given, libraries, images=shown, batches=given.batches)


if __name__ == "__main__":
    main()
