"""A trained student's accuracy, and the metrics of one student over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from torch import Tensor

from pipeline.base.statistics import summarize
from pipeline.training.chance_level import find_doubt
from pipeline.training.network_trainer import FitResult
from pipeline.training.rows import Rows, per_class_accuracy

Select = Literal["best", "last"]


@dataclass(frozen=True)
class TrainedStudent:
    """One student of one seed.

    Attributes:
        fitted: the curves, and the last and best state.
        correct: which test rows it classifies correctly, (n,) bool, by "best" and "last".
        parameters: trainable numbers.
        bits: that the network takes when it is deployed.
        prepared: by loss term, what there is to say of what it was given before (a discriminator's accuracy).
        restores: how often, over all phases, an epoch was taken back.
    """

    fitted: FitResult
    correct: Mapping[Select, Tensor]
    parameters: int
    bits: int
    prepared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    restores: int = 0

    def accuracy(self, select: Select) -> float:
        """Test accuracy in [0, 1]."""
        return float(self.correct[select].double().mean())

    def state(self, select: Select) -> Mapping[str, Tensor]:
        """The state dict of the best or the last epoch."""
        return self.fitted.best if select == "best" else self.fitted.last

    def epoch(self, select: Select) -> int:
        """The number, from 1, of the best or the last epoch."""
        return self.fitted.best_epoch if select == "best" else len(self.fitted.history)

    def find_doubt(self, select: Select, test: Rows, classes: Sequence[str]) -> str | None:
        """The reason to doubt that it has learnt these classes; see `chance_level.find_doubt`."""
        return find_doubt(self.correct[select], test.labels, classes)

    def scores(self, select: Select, test: Rows, classes: Sequence[str]) -> dict[str, Any]:
        """The test accuracy as a network's card holds it."""
        reason = self.find_doubt(select, test, classes)
        scores = {"select": select, "epoch": self.epoch(select), **per_class_accuracy(self.correct[select], test)}
        return {**scores, **({"doubt": reason} if reason else {})}


RULES: dict[Select, str] = {
    "best": "the epoch of best validation accuracy, the earliest of equals; the last where there is no validation part",
    "last": "the last epoch",
}


def student_metrics(runs: Sequence[Sequence[TrainedStudent]], select: Select) -> dict[str, Any]:
    """The metrics of one student over its seeds, as JSON.

    Args:
        runs: for each seed, the student and its peers; the mean over these is one value, since they
            are not independent.
        select: which epoch is reported; the other is given beside it.
    """
    kinds: tuple[Select, ...] = ("best", "last")
    per_peer = {kind: [[peer.accuracy(kind) for peer in cohort] for cohort in runs] for kind in kinds}
    accuracy = {kind: [fmean(cohort) for cohort in per_peer[kind]] for kind in kinds}
    first = runs[0][0]
    return {
        "test_accuracy": asdict(summarize(accuracy[select])),
        "test_accuracy_per_seed": accuracy[select],
        "test_accuracy_per_peer": per_peer[select] if len(runs[0]) > 1 else None,
        "select": select,
        "rule": RULES[select],
        **{
            kind: {
                "test_accuracy": asdict(summarize(accuracy[kind])),
                "epochs": [cohort[0].epoch(kind) for cohort in runs],
            }
            for kind in kinds
        },
        "parameters": first.parameters,
        "bytes": sum(tensor.nbytes for tensor in first.state(select).values()),
        "bits": first.bits,
        "restores": [cohort[0].restores for cohort in runs],
        "prepared": _collect_seeds([cohort[0].prepared for cohort in runs]),
    }


def _collect_seeds(prepared: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By loss term and quantity, a list over the seeds."""
    return {term: {key: [seed[term][key] for seed in prepared] for key in prepared[0][term]} for term in prepared[0]}
