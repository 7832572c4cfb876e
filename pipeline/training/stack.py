"""Independent runs of one network that are trained together: their weights lie stacked, and a step is one set of
operations for all of them (`torch.func`), each on its own samples, masks and loss weights. A lone run may be traced so,
too: what is left out is the cost of asking modules and autograd for each operation.

A step is traced once into a graph of tensor operations, gradients included, and replayed. Between epochs each run has
its own weights and optimiser again, so that all else - evaluation, the best state, schedules, going back - is done as
for a lone run, and no run's result depends on its company beyond the rounding of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pipeline.base.seeds import fork_seeded_rng
from pipeline.models.network import Network
from pipeline.training.batches import Batch, iterate_batches
from pipeline.training.dropout import Masks, list_dropouts, record_calls, replaced_dropout
from pipeline.training.network_trainer import Trainee
from pipeline.training.run import Plan, Run
from pipeline.training.sample_order import PlannedOrder
from pipeline.training.stacked_state import StackedState, Unit
from pipeline.training.traced_graph import trace

# On a processor a step of a small network is mostly the cost of calling operations, which a stack shares; that of a
# large one is arithmetic, and products of stacks are slower than one after the other.
MOST_WEIGHTS_ON_CPU = 100_000
FEWEST_STEPS = 2_000  # of a lone run: a trace costs as much as some hundred steps, and saves less than half of each
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KNOWN = ("torch", "torchvision", "timm", "pipeline")  # whose layers do nothing that a trace does not see

UNTRACEABLE = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, IndexError, KeyError)

Targets = Mapping[str, Tensor | Mapping[str, Tensor]]  # what terms compare with, or tensors by name of it


@runtime_checkable
class Stackable(Protocol):
    """An objective whose terms are a pure function of tensors, so that one trace of it serves all steps."""

    def read_targets(self, batch: Batch) -> Targets:
        """What the terms compare with: tensors with a row for each sample (or of the whole batch)."""
        ...

    def weights(self, epoch: int) -> Mapping[str, float]:
        """Each term's weight in an epoch, by name."""
        ...

    def values(
        self, network: Network, images: Tensor, labels: Tensor, targets: Targets, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """The named terms' values, without their weights."""
        ...


class NotStackableError(Exception):
    """Why runs cannot be stacked, as a clause."""


def is_worth_tracing(run: Run) -> bool:
    """Whether a lone run has steps enough, small enough, for a trace to pay."""
    device = run.data.train.labels.device
    return run.steps >= FEWEST_STEPS and find_obstacle([run.plan], device) is None


def find_obstacle(plans: Sequence[Plan], device: torch.device) -> str | None:
    """Why runs are not stacked, as a clause; None where nothing speaks against it so far."""
    members = [member for plan in plans for member in plan.members]
    if len(members) > len(plans):
        return "networks that learn from each other are stepped in turn"
    if not all(isinstance(member.objective, Stackable) for member in members):
        return "an objective that is no pure function of tensors"
    network = members[0].network
    foreign = next((type(each) for each in network.modules() if type(each).__module__.split(".")[0] not in KNOWN), None)
    if foreign is not None:
        return f"layer {foreign.__name__} of {foreign.__module__} may do what a trace does not see"
    return _find_processor_obstacle(network) if device.type == "cpu" else None


def _find_processor_obstacle(network: Network) -> str | None:
    if any(isinstance(module, CONVOLUTIONS) for module in network.modules()):
        return "on a processor, convolutions are no faster together"
    count = network.parameter_count()
    return f"on a processor, {count:,} weights are no faster together" if count > MOST_WEIGHTS_ON_CPU else None


@dataclass(frozen=True)
class _Shape:
    """What a trace is made for: the rows of a run's batch, and the terms that weigh something."""

    samples: int
    names: tuple[str, ...]


class Stack:
    """Runs in training, stacked.

    Args:
        runs: alike but for seeds, optimiser options, schedules and loss weights.

    Raises:
        NotStackableError: a network or a term does what cannot be traced.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.data = runs, runs[0].data
        self.trainees = [run.trainees[0] for run in runs]
        self.first = self.trainees[0]
        self.objectives = [_stackable(trainee) for trainee in self.trainees]
        self.device = self.data.train.labels.device
        self.state = StackedState(self.trainees)
        self.alone = len(runs) == 1
        self.shared_rows = self.alone or isinstance(runs[0].order, PlannedOrder)  # all runs see the same batches
        self.layers = list_dropouts(self.first.network)
        self.calls = record_calls(self.first.network, self.data.train.images[:2])
        self.masks = Masks(self.layers, [seed for run in runs for seed in run.dropout_seeds], self.device)
        self._traced: dict[_Shape, Callable[..., Any]] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """While it is open, the networks' chance is that of their runs."""
        with ExitStack() as stack:
            for run in self.runs:
                stack.enter_context(run.open())
            yield

    def prepare(self) -> None:
        """Trace a first step, before anything is trained.

        Raises:
            NotStackableError: a network or a term does what cannot be traced, or leaves something that is
                trained alone.
        """
        samples = len(self.runs[0].order)
        planned = isinstance(self.runs[0].order, PlannedOrder)
        ids = self.runs[0].order.ids(0) if planned else torch.arange(samples)
        ids = ids if self.shared_rows else ids.expand(len(self.runs), -1)
        with closing(self._iterate(ids, 0, 1)) as batches:
            batch = next(batches)
        names, _, weights = self._weigh(0)
        self._require_all_reached(batch)
        self._find_trace(*self._list_inputs(batch, weights), names)

    def train_epoch(self) -> None:
        """One pass over the data by all runs; a run whose epoch ends in NaN goes back, and tries again, alone."""
        before = [run.remember() for run in self.runs]
        self.state.begin_epoch()
        self._run_steps()
        self.state.end_epoch()
        for run, its in zip(self.runs, before, strict=True):
            run.end_epoch(its)

    def _run_steps(self) -> None:
        run = self.runs[0]
        epoch, first_step = run.epoch, run.first_step
        names, terms, weights = self._weigh(epoch)
        ids = [each.order.ids(epoch) for each in self.runs]
        steps = run.options.count_steps(epoch, len(run.order))
        losses: list[Tensor] = []
        made = self._iterate(ids[0] if self.shared_rows else torch.stack(ids), epoch, steps)
        with closing(made) as batches, torch.no_grad():
            for batch in batches:
                self.masks.begin_step(first_step + batch.number)
                losses.append(self._step(batch, names, weights))
        self._note_losses(torch.stack(losses), names, terms)

    def _iterate(self, ids: Tensor, epoch: int, steps: int) -> Generator[Batch, None, None]:
        data, size = self.data, self.runs[0].options.batch_size
        return iterate_batches(data.train, ids, size, steps, epoch, views=data.views, streams=data.streams)

    def _weigh(self, epoch: int) -> tuple[tuple[str, ...], list[str], Tensor]:
        """The terms that weigh something in an epoch, all terms, and their weights: (K, T), or (T,)."""
        weights = [
            {**objective.weights(epoch), **_l1(each)}
            for objective, each in zip(self.objectives, self.trainees, strict=True)
        ]
        names = tuple(name for name in weights[0] if any(each[name] for each in weights))
        dtype = next(self.first.network.parameters()).dtype
        table = torch.tensor([[each[name] for name in names] for each in weights], device=self.device, dtype=dtype)
        return names, list(weights[0]), table[0] if self.alone else table

    def _step(self, batch: Batch, names: tuple[str, ...], weights: Tensor) -> Tensor:
        """One step of every run; their weighted terms, (K, T), or (T,) of one run."""
        inputs, targets = self._list_inputs(batch, weights)
        *gradients, losses = self._find_trace(inputs, targets, names)(*inputs)
        self.state.step(gradients)
        return losses  # type: ignore[no-any-return]

    def _list_inputs(self, batch: Batch, weights: Tensor) -> tuple[list[Tensor], Targets]:
        """What a step takes, one behind the other, its targets the last; and these by name."""
        targets = self.objectives[0].read_targets(batch)
        samples = len(batch.ids) if self.shared_rows else len(batch.ids) // len(self.runs)
        masks = [self.masks.draw(layer, (samples, *shape), call) for layer, call, shape in self.calls]
        if self.alone:
            masks = [mask[0] for mask in masks]
        rows = [batch.images, batch.labels, *_list_tensors(targets)]
        if not self.shared_rows:
            rows = [row.view(len(self.runs), samples, *row.shape[1:]) for row in rows]
        state = self.state
        return [*state.leaves.values(), *state.fixed.values(), *state.shared.values(), weights, *masks, *rows], targets

    def _find_trace(self, inputs: Sequence[Tensor], targets: Targets, names: tuple[str, ...]) -> Callable[..., Any]:
        """The step's graph for so many samples and these terms."""
        shape = _Shape(inputs[-1].shape[: 1 if self.shared_rows else 2].numel(), names)
        if shape not in self._traced:
            self._traced[shape] = self._trace(inputs, targets, names)
        return self._traced[shape]

    def _require_all_reached(self, batch: Batch) -> None:
        """Raise NotStackableError where in some epoch the terms do not reach all that is trained.

        A plain step leaves alone what has no gradient; here it would have one of zeros, and decay and momentum act.
        """
        trainee, objective = self.first, self.objectives[0]
        run = self.runs[0]
        targets = objective.read_targets(batch)
        for names in {self._weigh(epoch)[0] for epoch in range(run.epochs)}:
            trainee.network.eval()
            terms = [name for name in names if name != "l1"]
            with torch.enable_grad():
                values = objective.values(trainee.network, batch.images, batch.labels, targets, terms)
                total = torch.stack([*values.values()]).sum() if values else None
            if total is None or not total.requires_grad:
                raise NotStackableError("in some epoch no loss depends on what is trained")
            found = torch.autograd.grad(total, trainee.parameters, allow_unused=True)
            if any(gradient is None for gradient in found):
                raise NotStackableError("in some epoch the losses do not reach all that is trained")

    def _trace(self, inputs: Sequence[Tensor], targets: Targets, names: tuple[str, ...]) -> Callable[..., Any]:
        """The step of all runs, from the inputs to the gradients and the weighted terms (K, T)."""
        leaves, fixed, shared = (list(each) for each in (self.state.leaves, self.state.fixed, self.state.shared))
        masks = len(self.calls)
        counts = [len(leaves), len(fixed), len(shared), 1, masks]
        rows = len(inputs) - sum(counts)

        def step_one(*given: Tensor) -> tuple[Tensor, ...]:
            parts = _cut(given, [*counts, rows])
            others = {**dict(zip(fixed, parts[1], strict=True)), **dict(zip(shared, parts[2], strict=True))}
            loss = grad(partial(self._loss, weights=parts[3][0], masks=parts[4], names=names), has_aux=True)
            images, labels, *others_of_batch = parts[5]
            rows_of_one = images, labels, _name_tensors(targets, others_of_batch)
            gradients, weighted = loss(dict(zip(leaves, parts[0], strict=True)), others, rows_of_one)
            return *gradients.values(), weighted

        stacked: list[int | None] = [0] * (len(leaves) + len(fixed))
        in_dims = (*stacked, *[None] * len(shared), 0, *[0] * masks, *[None if self.shared_rows else 0] * rows)
        self.first.network.train()
        try:
            # What the trace itself draws is no draw of the run.
            with torch.enable_grad(), fork_seeded_rng(0, self.device):
                return trace(step_one if self.alone else vmap(step_one, in_dims=in_dims), inputs)
        except UNTRACEABLE as error:
            raise NotStackableError((str(error) or type(error).__name__).splitlines()[0]) from error

    def _loss(
        self,
        leaves: dict[str, Tensor],
        others: dict[str, Tensor],
        rows: tuple[Tensor, Tensor, Targets],
        *,
        weights: Tensor,
        masks: Sequence[Tensor],
        names: tuple[str, ...],
    ) -> tuple[Tensor, Tensor]:
        """One run's loss and its weighted terms (T,)."""
        given = iter(masks)
        with replaced_dropout(self.layers, lambda _, inputs: inputs * next(given).to(inputs.dtype)):
            values = functional_call(_Terms(self.first, names), {**leaves, **others}, rows)
        if "l1" in names:
            trained = [leaf for name, leaf in leaves.items() if name.startswith("network.")]
            values = {**values, "l1": torch.stack([leaf.abs().sum() for leaf in trained]).sum()}
        weighted = weights * torch.stack([values[name] for name in names]) if names else weights.new_zeros(0)
        return weighted.sum(), weighted

    def _note_losses(self, losses: Tensor, names: Sequence[str], terms: list[str]) -> None:
        """Hand each run its losses, (steps, K, names); a term that is not among the names weighed nothing."""
        losses = losses[:, None] if self.alone else losses
        nothing = losses.new_zeros(losses.shape[:2])
        columns = [losses[..., names.index(term)] if term in names else nothing for term in terms]
        for row, trainee in enumerate(self.trainees):
            trainee.note_losses(terms, torch.stack([column[:, row] for column in columns], dim=1))


class _Terms(Unit):
    """A trainee's network, what is trained beside it, and the values of its terms, as one module."""

    def __init__(self, trainee: Trainee, names: Sequence[str]) -> None:
        super().__init__(trainee)
        self._objective, self._names = _stackable(trainee), [name for name in names if name != "l1"]

    def forward(self, images: Tensor, labels: Tensor, targets: Targets) -> dict[str, Tensor]:
        return self._objective.values(self.network, images, labels, targets, self._names)


def _stackable(trainee: Trainee) -> Stackable:
    assert isinstance(trainee.objective, Stackable)
    return trainee.objective


def _l1(trainee: Trainee) -> dict[str, float]:
    return {"l1": trainee.options.l1} if trainee.options.l1 else {}


def _list_tensors(targets: Targets) -> Iterator[Tensor]:
    """The tensors of a batch's targets, one behind the other."""
    for target in targets.values():
        if isinstance(target, Tensor):
            yield target
        else:
            yield from target.values()


def _name_tensors(targets: Targets, tensors: Sequence[Tensor]) -> Targets:
    """Such tensors by name again, as in these targets."""
    rest = iter(tensors)
    return {
        name: next(rest) if isinstance(target, Tensor) else {key: next(rest) for key in target}
        for name, target in targets.items()
    }


def _cut(values: Sequence[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    """The values in consecutive parts of these lengths."""
    parts, start = [], 0
    for count in counts:
        parts.append(values[start : start + count])
        start += count
    return parts
