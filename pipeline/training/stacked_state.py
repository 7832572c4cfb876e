"""The weights, buffers and optimiser states of several networks, stacked; each network's own are rows of the stacks.

Those of a lone network are its own, as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from pipeline.training import eager_optimizers
from pipeline.training.network_trainer import Trainee

# Optimisers whose step treats every number alike, so that one step serves a stack; no subclass need do so.
ELEMENTWISE = (SGD, Adam, AdamW, eager_optimizers.SGD, eager_optimizers.Adam, eager_optimizers.AdamW)


COUNT = "step"  # the entry of an optimiser's state that is no row of the stack


class Unit(nn.Module):
    """A network and what is trained beside it."""

    def __init__(self, trainee: Trainee) -> None:
        super().__init__()
        self.network, self.learned = trainee.network, trainee.learned


class StackedState:
    """What the steps of several trainees change, as rows of stacked tensors.

    From its making on, the trainees' own weights and buffers are these rows; what is loaded into them is loaded here.

    Args:
        trainees: of networks of one architecture.

    Attributes:
        leaves: by name in `Unit`, what is trained, (K, ...).
        fixed: what is not: frozen weights, and buffers, which a step may change in place, (K, ...).
        shared: buffers that are no part of the weights: those of the first network.
    """

    def __init__(self, trainees: Sequence[Trainee]) -> None:
        self.trainees, self.alone = trainees, len(trainees) == 1
        units = [Unit(trainee) for trainee in trainees]
        kept = units[0].state_dict(keep_vars=True).keys()
        parameters = [dict(unit.named_parameters()) for unit in units]
        buffers = [dict(unit.named_buffers()) for unit in units]
        trained = [name for name, parameter in parameters[0].items() if parameter.requires_grad]
        self.leaves = {name: _stack_rows([each[name] for each in parameters]) for name in trained}
        others = [{**of, **also} for of, also in zip(parameters, buffers, strict=True)]
        self.fixed = {
            name: _stack_rows([each[name] for each in others])
            for name in others[0]
            if name in kept and name not in self.leaves
        }
        self.shared = {name: buffer for name, buffer in buffers[0].items() if name not in kept}
        self._parameters = [[each[name] for name in trained] for each in parameters]
        self._optimizer = trainees[0].options.optimizer(list(self.leaves.values()))
        self._joint = False

    def begin_epoch(self) -> None:
        """Take up the optimisers' states; where all have the same options now, one steps for all."""
        groups = [_read_options(trainee) for trainee in self.trainees]
        alike = type(self._optimizer) in ELEMENTWISE and all(group == groups[0] for group in groups)
        self._joint = alike and not self.alone
        if not self._joint:
            return
        self._optimizer.param_groups[0].update(groups[0])
        self._optimizer.state.clear()
        for number, leaf in enumerate(self.leaves.values()):
            states = [
                trainee.optimizer.state[own[number]]
                for trainee, own in zip(self.trainees, self._parameters, strict=True)
                if own[number] in trainee.optimizer.state
            ]
            if states:
                self._optimizer.state[leaf] = {
                    key: _join_entry(key, [state[key] for state in states]) for key in states[0]
                }

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of the optimisers on gradients of the leaves; what has none is left alone."""
        if self._joint:
            for leaf, gradient in zip(self.leaves.values(), gradients, strict=True):
                leaf.grad = gradient
            self._optimizer.step()
            return
        for row, (trainee, own) in enumerate(zip(self.trainees, self._parameters, strict=True)):
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient if gradient is None or self.alone else gradient[row]
            trainee.optimizer.step()

    def end_epoch(self) -> None:
        """Hand each trainee's optimiser its rows; gradients, which a recorded step may own, are nobody's."""
        for tensor in (*self.leaves.values(), *(parameter for own in self._parameters for parameter in own)):
            tensor.grad = None
        if not self._joint:
            return
        for trainee in self.trainees:
            # As its own step would have said: its schedule warns otherwise.
            trainee.optimizer._opt_called = True  # type: ignore[attr-defined]  # noqa: SLF001
        for number, leaf in enumerate(self.leaves.values()):
            state = self._optimizer.state.get(leaf, {})
            for row, (trainee, own) in enumerate(zip(self.trainees, self._parameters, strict=True)):
                entries = {key: _take_entry(key, value, row) for key, value in state.items()}
                if entries:
                    trainee.optimizer.state[own[number]] = entries


def _stack_rows(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors stacked; from now on each of them is its row. A lone one stays as it is."""
    if len(tensors) == 1:
        return tensors[0].detach()
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, row in zip(tensors, stacked, strict=True):
        tensor.data = row
    return stacked


def _read_options(trainee: Trainee) -> dict[str, Any]:
    """What an optimiser's step depends on beside its state."""
    (group,) = trainee.optimizer.param_groups
    return {key: value for key, value in group.items() if key != "params"}


def _join_entry(key: str, values: Sequence[Any]) -> Any:
    """One entry of the optimisers' states for all: rows stacked, the count of steps as the first has it."""
    first = values[0]
    if isinstance(first, Tensor):
        return first.clone() if key == COUNT else torch.stack(list(values))
    return first


def _take_entry(key: str, value: Any, row: int) -> Any:
    """A trainee's part of an entry."""
    if isinstance(value, Tensor):
        return value.clone() if key == COUNT else value[row]
    return value
