"""The perplexity search and the joint probabilities against scikit-learn and others, side by side.

    python benchmarks/perplexity.py [--mnist FOLDER] [--repeats 7] [--batches 60]

Batches of relu features (a fixed random layer on images: MNIST where its folder is given, else the digits
that come with scikit-learn, repeated with noise), perplexity 20. Every repeat runs all sides one behind the
other, in one thread unless said; a ratio is the median of the repeats' ratios.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported: the others have one thread as well

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.manifold import _t_sne, _utils
from sklearn.metrics import pairwise_distances

from pipeline.perplexity import (
    conditional_from_distances,
    joint_probabilities,
    squared_distances,
    warm_up,
)

try:
    from openTSNE import _tsne as opentsne
except ImportError:
    opentsne = None

Array = NDArray[Any]
Side = Callable[[], object]

PERPLEXITY = 20.0
FIRST_CALL = (
    "import time; start = time.perf_counter(); from pipeline import perplexity; "
    "print(time.perf_counter() - start, perplexity.warm_up())"
)


# --- data ------------------------------------------------------------------------------------------


def images(mnist: Path | None, count: int) -> Array:
    """Images (count, pixels) float32 in [0, 1]."""
    if mnist is None:
        generator = np.random.default_rng(0)
        digits = load_digits().data / 16
        values: Array = digits[generator.integers(len(digits), size=count)]
        noisy: Array = values + 0.05 * generator.standard_normal(values.shape)
        return noisy.astype(np.float32)
    with gzip.open(mnist / "train-images-idx3-ubyte.gz") as file:
        content = file.read(16 + count * 784)
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, 784).astype(np.float32) / 255


def features(pixels: Array, b: int, n: int, d: int) -> Array:
    """A random layer's relu He's scale, (b, n, d) float32."""
    size = pixels.shape[1]
    weights = np.random.default_rng(1).standard_normal((size, d), np.float32) * np.float32((2 / size) ** 0.5)
    found: Array = np.maximum(pixels[: b * n] @ weights, 0).reshape(b, n, d)
    return found


# --- the other sides -------------------------------------------------------------------------------


def sklearn_search(distances: Array) -> Array:
    """scikit-learn's kernel takes float32 distances."""
    return np.stack([_utils._binary_search_perplexity(each, PERPLEXITY, 0) for each in distances])  # noqa: SLF001


def sklearn_joint(values: Array) -> list[Array]:
    """What TSNE(method="exact") does with each batch."""
    return [_t_sne._joint_probabilities(pairwise_distances(each, squared=True), PERPLEXITY, 0) for each in values]  # noqa: SLF001


def published(distances: Array) -> Array:
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


def torch_bisection(distances: torch.Tensor) -> torch.Tensor:
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


def opentsne_search(distances: Array) -> Array:
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


def in_threads(count: int, work: int) -> None:
    """Spin, the work divided."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(spin, [work // count] * count))


# --- measuring -------------------------------------------------------------------------------------


def interleaved(sides: dict[str, Side], repeats: int) -> dict[str, list[float]]:
    """Seconds of every side in every repeat; a first round, not counted, warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            found[name].append(time.perf_counter() - start)
    return {name: each[1:] for name, each in found.items()}


def spread(values: list[float], form: str = ".1f") -> str:
    """Median (min to max)."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def worst(p: Array) -> str:
    """The largest relative error of a row's perplexity, from its probabilities."""
    p = np.asarray(p, np.float64)
    reached = 2 ** -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)
    return f"{np.abs(reached / PERPLEXITY - 1).max():.0e}"


def rows(title: str, sides: dict[str, Side], batches: int, repeats: int, errors: dict[str, str]) -> Iterator[str]:
    """A line for each side; ratios to the first one."""
    found = interleaved(sides, repeats)
    first = next(iter(found.values()))
    for name, each in found.items():
        microseconds = spread([1e6 * one / batches for one in each], ".0f")
        ratios = spread([other / one for one, other in zip(each, first, strict=True)], ".3g")
        yield f"| {title} | {name} | {microseconds} | {ratios} | {errors.get(name, '')} |"


def searches(values: Array, repeats: int) -> Iterator[str]:
    """The search alone, from squared distances that are there already."""
    distances = squared_distances(values, threads=1)
    single = distances.astype(np.float32)
    tensors = torch.from_numpy(distances), torch.from_numpy(single)
    sides: dict[str, Side] = {
        "scikit-learn": lambda: sklearn_search(single),
        "this, float64": lambda: conditional_from_distances(distances, PERPLEXITY, threads=1).p,
        "this, float32": lambda: conditional_from_distances(distances, PERPLEXITY, dtype="float32", threads=1).p,
        "torch, batched bisection, float64": lambda: torch_bisection(tensors[0]).numpy(),
        "torch, batched bisection, float32": lambda: torch_bisection(tensors[1]).numpy(),
    }
    if opentsne is not None:
        sides["openTSNE"] = lambda: opentsne_search(distances)
    errors = {name: worst(np.asarray(side())) for name, side in sides.items()}
    yield from rows("search", sides, len(values), repeats, errors)
    few, few_single = distances[:2], single[:2]
    slow: dict[str, Side] = {
        "scikit-learn": lambda: sklearn_search(few_single),
        "van der Maaten's x2p, numpy": lambda: published(few),
    }
    yield from rows("search, 2 batches", slow, 2, 3, {name: worst(np.asarray(side())) for name, side in slow.items()})


def joints(values: Array, title: str, repeats: int) -> Iterator[str]:
    """Features to joint probabilities, ours into memory that is there, as a dump does it."""
    n = values.shape[1]
    wide, narrow = (np.empty((len(values), n, n), dtype) for dtype in ("float64", "float32"))
    sides: dict[str, Side] = {
        "scikit-learn": lambda: sklearn_joint(values),
        "this, float64": lambda: joint_probabilities(values, PERPLEXITY, threads=1, out=wide),
        "this, float32": lambda: joint_probabilities(values, PERPLEXITY, dtype="float32", threads=1, out=narrow),
    }
    yield from rows(title, sides, len(values), repeats, {})


def threads(values: Array, title: str, repeats: int) -> Iterator[str]:
    """Two threads against one; beside it, two threads that share nothing."""
    out = np.empty((len(values), values.shape[1], values.shape[1]))
    sides: dict[str, Side] = {
        "one thread": lambda: joint_probabilities(values, PERPLEXITY, threads=1, out=out),
        "two threads": lambda: joint_probabilities(values, PERPLEXITY, threads=2, out=out),
    }
    yield from rows(title, sides, len(values), repeats, {})
    spins: dict[str, Side] = {
        "one thread": lambda: in_threads(1, 20_000_000),
        "two threads": lambda: in_threads(2, 20_000_000),
    }
    yield from rows("no work but spinning", spins, 1, repeats, {})


def first_calls(repeats: int) -> str:
    """Seconds of the import and of the first call, in fresh processes, the kernels on the disk."""
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True)
        found.append([float(each) for each in done.stdout.split()])
    imports, calls = (list(each) for each in zip(*found, strict=True))
    return f"import {spread(imports, '.2f')} s, first call {spread(calls, '.2f')} s, n = {repeats}"


def machine() -> str:
    """What the numbers were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    libraries = ", ".join(f"{each} {version(each)}" for each in ("numpy", "numba", "scikit-learn", "torch"))
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {libraries}"


def load_now() -> str:
    """The load averages: other work on the machine shows here."""
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def table(options: argparse.Namespace) -> Iterator[str]:
    """All lines."""
    b, repeats = options.batches, options.repeats
    pixels = images(options.mnist, 10 * b * 100)
    yield from searches(features(pixels, b, 100, 512), repeats)
    for d in (50, 512):
        yield from joints(features(pixels, b, 100, d), f"features to joint, d = {d}", repeats)
    for d in (50, 512):
        for count in (b, 10 * b):
            values = features(pixels, count, 100, d)
            yield from threads(values, f"features to joint, d = {d}, {count} batches", repeats)
    for n in (128, 256, 512, 1000):
        count = max(1, 2000 // n)
        yield from joints(features(pixels, count, n, 50), f"features to joint, n = {n}, d = 50", 3)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, help="the folder of train-images-idx3-ubyte.gz")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = "digits with noise" if options.mnist is None else "MNIST"
    print(f"{machine()}\n\nload before: {load_now()}; features of {where}, {options.batches} batches of 100")
    print(f"compiled or loaded in {warm_up():.1f} s; from the disk, in a fresh process: {first_calls(5)}")
    if opentsne is None:
        print("openTSNE is not installed: left out")
    print(f"\nmedians (least to largest) of {options.repeats} repeats, of 3 for n >= 128 and x2p")
    print("worst error: of a row's perplexity, relative\n")
    print("| what | side | microseconds a batch | times the first | worst error |\n|---|---|---|---|---|")
    for line in table(options):
        print(line, flush=True)
    print(f"\nload after: {load_now()}")


if __name__ == "__main__":
    main()
