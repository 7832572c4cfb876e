"""A student's loss: the sum of weighted terms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.losses import TERMS
from pipeline.losses.hooks import TARGET, learned_factory, learns_from_peers, prepared_factory, term_taps
from pipeline.losses.outputs import Outputs, widen
from pipeline.losses.weights import Schedule


@dataclass(frozen=True)
class Term:
    """One weighted term of a recipe.

    Attributes:
        loss: of `TERMS`.
        weight: epoch -> weight; a term of weight 0 is not computed.
        options: the loss's own parameters.
        dumps: the dumps that it reads, by role; one name where it reads one.
        label: what the term is called, where a recipe has a loss twice; else as its loss.
    """

    loss: str
    weight: Schedule
    options: Mapping[str, Any]
    dumps: Mapping[str, str] | str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """What the term is called in curves and messages."""
        return self.label or self.loss

    @property
    def reads(self) -> Mapping[str, str]:
        """The dumps that it reads, by role."""
        if self.dumps is None:
            return {}
        return {TARGET: self.dumps} if isinstance(self.dumps, str) else self.dumps

    @property
    def reads_per_step(self) -> Mapping[str, str]:
        """Those that it reads in each step; none for a term that was prepared from them before."""
        return {} if prepared_factory(self.loss) else self.reads

    def target(self, targets: Mapping[str, Any] | Callable[[str], Any]) -> Any:
        """The target of the term's function: the rows of its one dump, or of several by role; None without one."""
        of = targets if callable(targets) else targets.__getitem__
        rows = {role: of(dump) for role, dump in self.reads_per_step.items()}
        return rows.get(TARGET, rows or None)


@dataclass(frozen=True)
class Recipe:
    """A student's loss: the sum of weighted terms."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if len({term.name for term in self.terms}) < len(self.terms):
            raise ValueError("expected terms of different names; give one that stands twice a label")

    def __call__(self, outputs: Outputs, targets: Mapping[str, Any], epoch: int) -> dict[str, Tensor]:
        """Each term's weight times its value, by name; a term of weight 0 is not computed.

        Args:
            outputs: the student's, for one batch.
            targets: by dump, the batch's rows of the cached field: a float32 tensor, or arrays by name.
            epoch: from 0.
        """
        weights = self.weights(epoch)
        values = self.values(outputs, targets, [name for name, weight in weights.items() if weight])
        # A zero of nothing has a gradient.
        return {
            name: weight * values[name] if weight else widen(outputs.logits[:0]).sum()
            for name, weight in weights.items()
        }

    def weights(self, epoch: int) -> dict[str, float]:
        """Each term's weight in an epoch, from 0."""
        return {term.name: term.weight(epoch) for term in self.terms}

    def values(self, outputs: Outputs, targets: Mapping[str, Any], names: Collection[str]) -> dict[str, Tensor]:
        """The named terms' values, without their weights; arguments as above."""
        return {
            term.name: TERMS.import_function(term.loss)(
                replace(outputs, module=outputs.modules.get(term.name)), term.target(targets), **term.options
            )
            for term in self.terms
            if term.name in names
        }

    def refuse_weightless(self, epochs: int, what: str) -> None:
        """Raise InputError where no term weighs anything in any epoch: nothing would be learned."""
        if not any(term.weight(epoch) for term in self.terms for epoch in range(epochs)):
            raise InputError(
                f"{what}: losses {', '.join(term.name for term in self.terms)}",
                expected="a weight above 0 in some epoch",
                found="none",
                fix="give a term some weight",
            )

    @property
    def taps(self) -> tuple[str, ...]:
        """The student's activations that the terms ask for, each once."""
        return _unique(tap for term in self.terms for tap in term_taps(term.loss, term.options))

    @property
    def is_mutual(self) -> bool:
        """Whether a term learns from the student's peers."""
        return any(learns_from_peers(term.loss) for term in self.terms)

    def build_learned(self, outputs: Outputs, target: Callable[[str], Any]) -> dict[str, nn.Module]:
        """By term, the module that it trains beside the student, built for the shapes of these outputs and targets."""
        made = {
            term.name: maker(outputs, term.target(target), term.options)
            for term in self.terms
            if (maker := learned_factory(term.loss)) is not None
        }
        return {name: module for name, module in made.items() if module is not None}

    def train_prepared(
        self, rows: Callable[[str], Tensor], seed: int, what: str
    ) -> tuple[dict[str, nn.Module], dict[str, dict[str, Any]]]:
        """By term, the module that it needs before the first step, frozen; and what there is to report of it.

        Args:
            rows: all rows (views, samples, ...) of a dump.
            seed: of what is random about it.
            what: names the run in messages.
        """
        modules: dict[str, nn.Module] = {}
        reports: dict[str, dict[str, Any]] = {}
        for term in self.terms:
            maker = prepared_factory(term.loss)
            if maker is None:
                continue
            by_role = {role: rows(dump) for role, dump in term.reads.items()}
            modules[term.name], reports[term.name] = maker(by_role, term.options, seed, f"{what}: {term.name}")
            modules[term.name].requires_grad_(False).eval()
        return modules, reports

    @property
    def dumps(self) -> tuple[str, ...]:
        """The dumps that the terms read in each step, each once."""
        return _unique(dump for term in self.terms for dump in term.reads_per_step.values())


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
