"""What compact logits cost: bytes, the error of the probabilities, and the student's accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.plain_text import escape_prose
from pipeline.base.statistics import FEWEST_VALUES, Difference, compare_pairs, summarize
from pipeline.cache.dtypes import widen_bfloat16
from pipeline.cache.tensors import as_tensor
from pipeline.dumps.logits import LogitsType, plan_top_k_arrays, round_logits, select_top_k
from pipeline.report.percent import format_percent, format_points
from pipeline.training.chance_level import join_doubts


@dataclass(frozen=True)
class Encoding:
    """One way to keep logits: a number format, and all classes or the k largest."""

    dtype: LogitsType
    top_k: int | None = None

    @property
    def name(self) -> str:
        """As a table names it."""
        return self.dtype if self.top_k is None else f"top-{self.top_k}, {self.dtype}"


EXACT = Encoding("float32")


@dataclass(frozen=True)
class EncodedLogits:
    """Logits in one encoding.

    Attributes:
        arrays: by name, (views, samples, ...), as stored.
        dtypes: their number formats.
        bytes: of all of them.
    """

    arrays: Mapping[str, NDArray[Any]]
    dtypes: Mapping[str, str]

    @property
    def bytes(self) -> int:
        return sum(values.nbytes for values in self.arrays.values())

    def tensors(self) -> dict[str, Tensor]:
        """The arrays as a student's targets."""
        return {name: as_tensor(values, self.dtypes[name]) for name, values in self.arrays.items()}


@dataclass(frozen=True)
class SeedAccuracies:
    """What a student makes of targets.

    Attributes:
        accuracies: on the test part, one a seed.
        doubts: by seed, what speaks against its having learnt anything (see `chance_level.find_doubt`).
    """

    accuracies: list[float]
    doubts: dict[str, str] = field(default_factory=dict)


def encode_logits(exact: NDArray[np.float32], encoding: Encoding, temperature: float, teacher: str) -> EncodedLogits:
    """Logits (views, samples, classes) as a dump in this encoding would hold them."""
    views, samples, classes = exact.shape
    flat = exact.reshape(-1, classes)
    if encoding.top_k is None:
        arrays = {"logits": round_logits(flat, encoding.dtype, 0, teacher)}
        dtypes: dict[str, str] = {"logits": encoding.dtype}
    else:
        arrays = select_top_k(flat, encoding.top_k, temperature, dtype=encoding.dtype, first=0, teacher=teacher)
        planned = plan_top_k_arrays(encoding.top_k, classes, encoding.dtype, "none")
        dtypes = {name: array.dtype for name, array in planned.items()}
    return EncodedLogits({name: values.reshape(views, samples, -1) for name, values in arrays.items()}, dtypes)


def compute_kl(exact: NDArray[np.float32], made: EncodedLogits, temperature: float) -> dict[str, float]:
    """KL(P || Q) in nats over all samples: mean, 99th percentile and largest.

    P = softmax(a / temperature) of the exact logits; Q that of the kept ones, a tail's mass spread
    evenly over the classes that it stands for.
    """
    classes = exact.shape[-1]
    p = _log_softmax(exact.reshape(-1, classes).astype(np.float64) / temperature)
    values = {name: widen_bfloat16(array, made.dtypes[name]) for name, array in made.arrays.items()}
    if "logits" in values:
        q = _log_softmax(values["logits"].reshape(-1, classes).astype(np.float64) / temperature)
    else:
        top = values["values"].reshape(len(p), -1).astype(np.float64) / temperature
        parts = _log_softmax(np.concatenate([top, values["tail"].reshape(-1, 1)], axis=1))
        q = np.repeat(parts[:, -1:] - np.log(classes - top.shape[1]), classes, axis=1)
        np.put_along_axis(q, values["indices"].reshape(len(p), -1).astype(np.int64), parts[:, :-1], axis=1)
    divergence = np.maximum((np.exp(p) * (p - q)).sum(1), 0.0)  # below zero by rounding alone
    return {
        "mean": float(divergence.mean()),
        "p99": float(np.quantile(divergence, 0.99)),
        "max": float(divergence.max()),
    }


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max(1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logs


def compare_encodings(
    exact: NDArray[np.float32],
    encodings: Sequence[Encoding],
    *,
    temperature: float,
    teacher: str,
    train: Callable[[Mapping[str, Tensor]], SeedAccuracies],
) -> list[dict[str, Any]]:
    """One row an encoding, the exact one first.

    Args:
        exact: float32 logits (views, samples, classes).
        encodings: to compare with it.
        temperature: of the student's loss.
        teacher: its name.
        train: trains a student from such targets, once a seed; the same seeds each time, so that
            differences are paired.
    """
    rows: list[dict[str, Any]] = []
    reference: list[float] = []
    for encoding in dict.fromkeys([EXACT, *encodings]):
        made = encode_logits(exact, encoding, temperature, teacher)
        reached = train(made.tensors())
        reference = reference or reached.accuracies
        difference: Difference = compare_pairs(reached.accuracies, reference)
        rows.append(
            {
                "encoding": encoding.name,
                "bytes": made.bytes,
                "kl": compute_kl(exact, made, temperature),
                "test_accuracy": asdict(summarize(reached.accuracies)),
                "test_accuracy_per_seed": reached.accuracies,
                "difference": asdict(difference),
                **({"doubts": reached.doubts} if reached.doubts else {}),
            }
        )
    return rows


def describe_doubts(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What speaks against the students' having learnt anything, as a clause that names the encodings."""
    doubtful = [row for row in rows if "doubts" in row]
    if not doubtful:
        return None
    return f"{join_doubts(doubtful[0]['doubts'])} from {'; '.join(row['encoding'] for row in doubtful)}"


def format_comparison(rows: Sequence[Mapping[str, Any]], doubts: Sequence[str] = ()) -> str:
    """The rows as a table; accuracies in percent, differences in points with their 95 % interval; then any doubts."""
    measured = "test accuracy (%, ± std) | difference to float32 (points, 95 % interval)"
    lines = [f"| encoding | bytes | KL mean | KL p99 | KL max | {measured} |", "|---|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        kl, accuracy = row["kl"], row["test_accuracy"]
        spread = "" if accuracy["std"] is None else f" ± {format_percent(accuracy['std'])}"
        lines.append(
            f"| {row['encoding']} | {row['bytes']:,} | {kl['mean']:.2g} | {kl['p99']:.2g} | {kl['max']:.2g} "
            f"| {format_percent(accuracy['mean'])}{spread} | {_format_difference(row['difference'])} |"
        )
    lines += [f"\nDoubtful: {escape_prose(doubt)}." for doubt in doubts]
    return "\n".join(lines) + "\n"


def _format_difference(difference: Mapping[str, Any]) -> str:
    mean = format_points(difference["mean"])
    if difference["low"] is None:
        return f"{mean} (fewer than {FEWEST_VALUES} seeds: no interval)"
    low, high = format_points(difference["low"]), format_points(difference["high"])
    return f"{mean} ({low} to {high}, n = {difference['n']})"
