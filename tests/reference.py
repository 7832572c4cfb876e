"""Slow, obvious float64 versions of what the library computes fast."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    rows = []
    for row in logits:
        exponentials = [math.exp((value - max(row)) / temperature) for value in row]
        rows.append([value / sum(exponentials) for value in exponentials])
    return np.array(rows)


def ce(student: Array, labels: list[int]) -> Array:
    return np.array([-math.log(row[label]) for row, label in zip(softmax(student), labels, strict=True)])


def soft_targets(student: Array, teacher: Array, temperature: float, form: str, k: int | None = None) -> Array:
    """With k: over k + 1 parts, the teacher's k likeliest classes, and all others as one."""
    losses = []
    for a, p, q in zip(teacher, softmax(teacher, temperature), softmax(student, temperature), strict=True):
        falling = sorted(range(len(a)), key=lambda c: (-a[c], c))
        parts = [[c] for c in falling[:k]] + ([] if k is None else [falling[k:]])
        masses = [(sum(p[c] for c in part), sum(q[c] for c in part)) for part in parts]
        cross = -sum(ours * math.log(theirs) for ours, theirs in masses)
        entropy = -sum(ours * math.log(ours) for ours, _ in masses)
        losses.append(cross - entropy if form == "kl" else cross)
    return np.array(losses)


def logits_mse(student: Array, teacher: Array) -> Array:
    return np.array(
        [sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) for s, t in zip(student, teacher, strict=True)]
    )


def probe_rmse(student: Array, teacher: Array, over_batch: str) -> float:
    """RMSE over the neurons (of maps: channels) that both have: mean of the samples', or one root over the batch."""
    width = min(student.shape[1], teacher.shape[1])
    means = []
    for ours, theirs in zip(student, teacher, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(ours[:width].ravel(), theirs[:width].ravel(), strict=True)]
        means.append(sum(squares) / len(squares))
    if over_batch == "root":
        return math.sqrt(sum(means) / len(means))
    return sum(math.sqrt(mean) for mean in means) / len(means)


def affine(values: Array, weight: Array, bias: Array) -> Array:
    """weight v + bias for each sample's vector; of maps (B, D, H, W) at each place."""
    made = np.zeros((len(values), len(weight), *values.shape[2:]))
    for place in np.ndindex(len(values), *values.shape[2:]):
        sample, *where = place
        v = values[(sample, slice(None), *where)]
        for unit, row in enumerate(weight.reshape(len(weight), -1)):
            made[(sample, unit, *where)] = sum(w * x for w, x in zip(row, v, strict=True)) + bias[unit]
    return made


def hint_mse(student: Array, teacher: Array) -> Array:
    """Squares summed over the units of each sample."""
    return logits_mse(student.reshape(len(student), -1), teacher.reshape(len(teacher), -1))


def log_odds(logits: Array, mean: Array, std: Array, layers: list[tuple[Array, Array]]) -> Array:
    """A discriminator's: inputs scaled, affine layers with relu between them, one number at the end."""
    values = np.array([[(a - m) / s for a, m, s in zip(row, mean, std, strict=True)] for row in logits])
    for number, (weight, bias) in enumerate(layers):
        values = affine(values, weight, bias)
        if number < len(layers) - 1:
            values = np.maximum(values, 0)
    return values[:, 0]


def adversarial(odds: Array, form: str) -> Array:
    """H(0, D) = -log(1 - D), or -H(1, D) = log D, with D = 1 / (1 + exp(-odds))."""
    ours, theirs = ([1 / (1 + math.exp(sign * each)) for each in odds] for sign in (-1, 1))  # D and 1 - D
    return np.array([-math.log(p) for p in theirs] if form == "fool" else [math.log(p) for p in ours])


def mutual_kl(student: Array, peers: Array, temperature: float) -> Array:
    """KL(p_l || p_k), summed over the peers l."""
    summed = np.zeros(len(student))
    for peer in peers:
        summed += soft_targets(student, peer, temperature, "kl")
    return summed


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


# ------------------------------------------------------------------ for gradients: the equations, left to autograd


def naive_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    exponentials = (logits / temperature).exp()
    return exponentials / exponentials.sum(1, keepdim=True)


def naive_ce(student: Tensor, labels: list[int]) -> Tensor:
    p = naive_softmax(student)
    return torch.stack([-p[sample, label].log() for sample, label in enumerate(labels)])


def naive_soft_targets(student: Tensor, teacher: Tensor, temperature: float, form: str, k: int | None = None) -> Tensor:
    p, q = naive_softmax(teacher, temperature), naive_softmax(student, temperature)
    if k is not None:
        falling = teacher.argsort(dim=1, descending=True)
        p, q = (each.gather(1, falling) for each in (p, q))
        p, q = (torch.cat([each[:, :k], each[:, k:].sum(1, keepdim=True)], dim=1) for each in (p, q))
    return (p * (p / q).log()).sum(1) if form == "kl" else -(p * q.log()).sum(1)


def naive_logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return ((student - teacher) ** 2).sum(1)


def naive_probe_rmse(student: Tensor, teacher: Tensor, over_batch: str) -> Tensor:
    width = min(student.shape[1], teacher.shape[1])
    squares = (student[:, :width] - teacher[:, :width]).flatten(1) ** 2
    return squares.mean().sqrt() if over_batch == "root" else squares.mean(1).sqrt().mean()


def naive_affine(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("ud,bd...->bu...", weight.flatten(1), values) + bias.reshape(-1, *[1] * (values.dim() - 2))


def naive_hint_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return ((student - teacher) ** 2).flatten(1).sum(1)


def naive_log_odds(logits: Tensor, mean: Tensor, std: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    values = (logits - mean) / std
    for weight, bias in layers[:-1]:
        values = naive_affine(values, weight, bias).clamp(min=0)
    return naive_affine(values, *layers[-1])[:, 0]


def naive_adversarial(odds: Tensor, form: str) -> Tensor:
    return (1 + odds.exp()).log() if form == "fool" else -(1 + (-odds).exp()).log()


def naive_mutual_kl(student: Tensor, peers: Tensor, temperature: float) -> Tensor:
    return torch.stack([naive_soft_targets(student, peer, temperature, "kl") for peer in peers]).sum(0)


def naive_multichannel_bce(scores: Tensor, bits: list[list[int]]) -> Tensor:
    p = 1 / (1 + (-scores.flatten(1)).exp())
    b = torch.tensor(bits, dtype=torch.float64)
    return -(b * p.log() + (1 - b) * (1 - p).log()).sum(1)


def naive_affinities(y: Tensor, dof: float) -> Tensor:
    """Q (n, n), zero on the diagonal."""
    squares = ((y[:, None] - y[None]) ** 2).sum(2)
    kernel = (-squares / 2).exp() if math.isinf(dof) else (1 + squares / dof) ** (-(dof + 1) / 2)
    kernel = kernel * (1 - torch.eye(len(y), dtype=torch.float64))
    return kernel / kernel.sum()


def naive_tsne(p: Tensor, y: Tensor, dof: float, floor: float) -> Tensor:
    apart = ~torch.eye(len(y), dtype=torch.bool)
    ours, theirs = (each[apart].clamp(min=floor) for each in (p, naive_affinities(y, dof)))
    return (torch.xlogy(ours, ours) - ours * theirs.log()).sum()
