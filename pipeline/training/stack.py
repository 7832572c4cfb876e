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
from pipeline.training.recorded_graph import record
from pipeline.training.run import Plan, Run
from pipeline.training.sample_order import PlannedOrder
from pipeline.training.stacked_state import StackedState, Unit
from pipeline.training.traced_graph import Trace, trace

# On a processor a step of a small network is mostly the cost of calling operations, which a stack shares; that of a
# large one is arithmetic, and products of stacks are slower than one after the other.
MOST_WEIGHTS_ON_CPU = 100_000
FEWEST_STEPS = 2_000  # of a lone run: a trace costs as much as some hundred steps, and saves less than half of each
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NETWORK = "network."  # how the names of a network's own weights begin, in a `Unit`
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
    reason = find_untraceable(plans)
    return reason or (_find_processor_obstacle(plans[0].members[0].network) if device.type == "cpu" else None)


def find_untraceable(plans: Sequence[Plan]) -> str | None:
    """Why the runs' steps are not traced, as a clause; None where nothing speaks against it so far."""
    members = [member for plan in plans for member in plan.members]
    if plans[0].ranks.are_several:
        return "several processes train it, each its rows of every batch"
    if len(members) > len(plans):
        return "networks that learn from each other are stepped in turn"
    if not all(isinstance(member.objective, Stackable) for member in members):
        return "an objective that is no pure function of tensors"
    network = members[0].network
    foreign = next((type(each) for each in network.modules() if type(each).__module__.split(".")[0] not in KNOWN), None)
    if foreign is not None:
        return f"layer {foreign.__name__} of {foreign.__module__} may do what a trace does not see"
    return None


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
        self._reached: dict[tuple[str, ...], list[bool]] = {}  # by terms: of each leaf, whether they depend on it

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
            NotStackableError: a network or a term does what cannot be traced.
        """
        samples = len(self.runs[0].order)
        planned = isinstance(self.runs[0].order, PlannedOrder)
        ids = self.runs[0].order.ids(0) if planned else torch.arange(samples)
        ids = ids if self.shared_rows else ids.expand(len(self.runs), -1)
        with closing(self._iterate(ids, 0, 1)) as batches:
            batch = next(batches)
        for epoch in range(self.runs[0].epochs):
            names = self._list_names(epoch)
            if names not in self._reached:
                self._reached[names] = self._find_reached(batch, names)
        names = self._list_names(0)
        network = [name.startswith(NETWORK) for name in self.state.leaves]
        if not any(reached and its for reached, its in zip(self._reached[names], network, strict=True)):
            raise NotStackableError("at first no loss depends on the part of the network that is trained")
        self._find_trace(*self._list_inputs(batch, self._weigh(0, names)), names)

    def train_epoch(self) -> None:
        """One pass over the data by all runs; a run whose epoch ends in NaN goes back, and tries again, alone."""
        before = [run.remember() for run in self.runs]
        self.state.begin_epoch()
        self.run_steps()
        self.state.end_epoch()
        for run, its in zip(self.runs, before, strict=True):
            run.end_epoch(its)

    def run_steps(self) -> None:
        """The epoch's batches: all runs step on each, or on their own of that number."""
        run = self.runs[0]
        epoch, first_step = run.epoch, run.first_step
        names = self._list_names(epoch)
        weights = self._weigh(epoch, names)
        self.first.network.set_products(self.device)
        ids = [each.order.ids(epoch) for each in self.runs]
        steps = run.options.count_steps(epoch, len(run.order))
        losses: list[Tensor] = []
        made = self._iterate(ids[0] if self.shared_rows else torch.stack(ids), epoch, steps)
        with closing(made) as batches, torch.no_grad():
            for batch in batches:
                self.masks.begin_step(first_step + batch.number)
                losses.append(self._step(batch, names, weights))
        self._note_losses(torch.stack(losses), names)

    def _iterate(self, ids: Tensor, epoch: int, steps: int) -> Generator[Batch, None, None]:
        data, size = self.data, self.runs[0].options.batch_size
        return iterate_batches(data.train, ids, size, steps, epoch, views=data.views, streams=data.streams)

    def _list_weights(self, epoch: int) -> list[dict[str, float]]:
        """For each run, the weights of its terms in an epoch."""
        return [
            {**objective.weights(epoch), **_l1(each)}
            for objective, each in zip(self.objectives, self.trainees, strict=True)
        ]

    def _list_names(self, epoch: int) -> tuple[str, ...]:
        """The terms that weigh something in an epoch."""
        weights = self._list_weights(epoch)
        return tuple(name for name in weights[0] if any(each[name] for each in weights))

    def _weigh(self, epoch: int, names: tuple[str, ...]) -> Tensor:
        """The weights of these terms in an epoch: (K, T), or (T,)."""
        dtype = next(self.first.network.parameters()).dtype
        weights = [[each[name] for name in names] for each in self._list_weights(epoch)]
        table = torch.tensor(weights, device=self.device, dtype=dtype)
        return table[0] if self.alone else table

    def _step(self, batch: Batch, names: tuple[str, ...], weights: Tensor) -> Tensor:
        """One step of every run; their weighted terms, (K, T), or (T,) of one run."""
        inputs, targets = self._list_inputs(batch, weights)
        *found, losses = self._find_trace(inputs, targets, names)(*inputs)
        gradients = iter(found)
        self.state.step([next(gradients) if reached else None for reached in self._reached[names]])
        made: Tensor = losses
        return made.clone() if self.device.type == "cuda" else made  # a replay overwrites it

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
            made = self._trace(inputs, targets, names)
            state = self.state
            kept = len(state.leaves) + len(state.fixed) + len(state.shared)
            recordable = self.device.type == "cuda" and not made.draws
            self._traced[shape] = record(made.run, inputs, kept) if recordable else made.run
        return self._traced[shape]

    def _find_reached(self, batch: Batch, names: Sequence[str]) -> list[bool]:
        """Of each leaf, whether these terms depend on it: a step leaves the others alone, decay included."""
        unit = Unit(self.first)
        parameters = dict(unit.named_parameters())
        # In training mode, whose layers may go another way; its statistics, and what it draws, are none of the run's.
        buffers = {name: buffer.clone() for name, buffer in unit.named_buffers()}
        rows = batch.images, batch.labels, self.objectives[0].read_targets(batch)
        self.first.network.train()
        with (
            torch.enable_grad(),
            fork_seeded_rng(0, self.device),
            replaced_dropout(self.layers, lambda _, inputs: inputs),
        ):
            values = functional_call(_Terms(self.first, names), {**parameters, **buffers}, rows)
            total = torch.stack([*values.values()]).sum() if values else None
        shrunk = ["l1" in names and name.startswith(NETWORK) for name in self.state.leaves]
        if total is None or not total.requires_grad:
            return shrunk
        found = torch.autograd.grad(total, [parameters[name] for name in self.state.leaves], allow_unused=True)
        return [gradient is not None or small for gradient, small in zip(found, shrunk, strict=True)]

    def _trace(self, inputs: Sequence[Tensor], targets: Targets, names: tuple[str, ...]) -> Trace:
        """The step of all runs, from the inputs to the gradients and the weighted terms (K, T)."""
        leaves, fixed, shared = (list(each) for each in (self.state.leaves, self.state.fixed, self.state.shared))
        masks = len(self.calls)
        counts = [len(leaves), len(fixed), len(shared), 1, masks]
        rows = len(inputs) - sum(counts)
        reached = dict(zip(leaves, self._reached[names], strict=True))

        def step_one(*given: Tensor) -> tuple[Tensor, ...]:
            parts = _cut(given, [*counts, rows])
            trained = dict(zip(leaves, parts[0], strict=True))
            others = {name: leaf for name, leaf in trained.items() if not reached[name]}
            others |= {**dict(zip(fixed, parts[1], strict=True)), **dict(zip(shared, parts[2], strict=True))}
            loss = grad(partial(self._loss, weights=parts[3][0], masks=parts[4], names=names), has_aux=True)
            images, labels, *others_of_batch = parts[5]
            rows_of_one = images, labels, _name_tensors(targets, others_of_batch)
            differentiated = {name: leaf for name, leaf in trained.items() if reached[name]}
            if not differentiated:  # which `grad` does not take
                return (self._loss({}, others, rows_of_one, weights=parts[3][0], masks=parts[4], names=names)[1],)
            gradients, weighted = loss(differentiated, others, rows_of_one)
            return *gradients.values(), weighted

        stacked: list[int | None] = [0] * (len(leaves) + len(fixed))
        in_dims = (*stacked, *[None] * len(shared), 0, *[0] * masks, *[None if self.shared_rows else 0] * rows)
        self.first.network.train()
        try:
            # What the trace itself draws is no draw of the run.
            with torch.enable_grad(), fork_seeded_rng(0, self.device):
                step = step_one if self.alone else vmap(step_one, in_dims=in_dims)
                return trace(step, inputs, compiled=self.runs[0].options.compile)
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
            trained = [leaf for name, leaf in leaves.items() if name.startswith(NETWORK)]
            values = {**values, "l1": torch.stack([leaf.abs().sum() for leaf in trained]).sum()}
        weighted = weights * torch.stack([values[name] for name in names]) if names else weights.new_zeros(0)
        return weighted.sum(), weighted

    def _note_losses(self, losses: Tensor, names: Sequence[str]) -> None:
        """Hand each run its losses, (steps, K, names); a term that is not among the names weighed nothing."""
        terms = list(self._list_weights(0)[0])
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
