"""Slow, obvious float64 versions of what the library computes fast."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    rows = []
    for row in logits:
        exponentials = [math.exp((value - max(row)) / temperature) for value in row]
        rows.append([value / sum(exponentials) for value in exponentials])
    return np.array(rows)


def ce(student: Array, labels: list[int]) -> Array:
    return np.array([-math.log(row[label]) for row, label in zip(softmax(student), labels, strict=True)])


def soft_targets(student: Array, teacher: Array, temperature: float, form: str) -> Array:
    losses = []
    for p, q in zip(softmax(teacher, temperature), softmax(student, temperature), strict=True):
        cross = -sum(a * math.log(b) for a, b in zip(p, q, strict=True))
        entropy = -sum(a * math.log(a) for a in p)
        losses.append(cross - entropy if form == "kl" else cross)
    return np.array(losses)


def logits_mse(student: Array, teacher: Array) -> Array:
    return np.array(
        [sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) for s, t in zip(student, teacher, strict=True)]
    )


def top_k_soft_targets(student: Array, teacher: Array, k: int, temperature: float, form: str) -> Array:
    """Soft targets over k + 1 parts: the teacher's k likeliest classes, and all others as one."""
    losses = []
    for a, p, q in zip(teacher, softmax(teacher, temperature), softmax(student, temperature), strict=True):
        top = sorted(range(len(a)), key=lambda c: (-a[c], c))[:k]
        rest = [c for c in range(len(a)) if c not in top]
        parts = [([c], p[c]) for c in top] + [(rest, sum(p[c] for c in rest))]
        cross = -sum(mass * math.log(sum(q[c] for c in classes)) for classes, mass in parts)
        entropy = -sum(mass * math.log(mass) for _, mass in parts)
        losses.append(cross - entropy if form == "kl" else cross)
    return np.array(losses)


def packed(bits: list[list[int]]) -> list[list[int]]:
    """Each row of bits as bytes, the first bit the highest of the first byte, zeros at the end."""
    filled = [row + [0] * (-len(row) % 8) for row in bits]
    return [[int("".join(map(str, row[at : at + 8])), 2) for at in range(0, len(row), 8)] for row in filled]


def multichannel_bce(scores: Array, bits: list[list[int]]) -> Array:
    """Binary cross-entropies, summed over the channels of each sample; bits in the order of the flat scores."""
    losses = []
    for row, wanted in zip(scores.reshape(len(scores), -1), bits, strict=True):
        p = [1 / (1 + math.exp(-score)) for score in row]
        losses.append(-sum(math.log(q) if bit else math.log(1 - q) for q, bit in zip(p, wanted, strict=True)))
    return np.array(losses)


def joint(x: Array, perplexity: float) -> Array:
    """t-SNE's joint P of points (n, d): each row's width by bisection on its logarithm."""
    n = len(x)
    conditional = np.zeros((n, n))
    for i in range(n):
        squares = [sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)) for j in range(n) if j != i]
        nearest, low, high = min(squares), -700.0, 700.0
        for _ in range(200):
            log_beta = (low + high) / 2
            weights = [math.exp(-math.exp(log_beta) * (square - nearest)) for square in squares]
            row = [weight / sum(weights) for weight in weights]
            entropy = -sum(p * math.log(p) for p in row if p > 0)
            low, high = (log_beta, high) if entropy > math.log(perplexity) else (low, log_beta)
        conditional[i, [j for j in range(n) if j != i]] = row
    return (conditional + conditional.T) / (2 * n)


def tsne(p: Array, y: Array, dof: float, floor: float) -> float:
    """KL(P || Q) over ordered pairs of different points."""
    n = len(y)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    squares = {pair: sum((a - b) ** 2 for a, b in zip(y[pair[0]], y[pair[1]], strict=True)) for pair in pairs}
    kernel = {
        pair: math.exp(-square / 2) if math.isinf(dof) else (1 + square / dof) ** (-(dof + 1) / 2)
        for pair, square in squares.items()
    }
    total = sum(kernel.values())
    loss = 0.0
    for pair in pairs:
        ours, theirs = max(p[pair], floor), max(kernel[pair] / total, floor)
        loss += ours * math.log(ours / theirs) if ours > 0 else 0.0
    return loss
