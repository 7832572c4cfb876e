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
