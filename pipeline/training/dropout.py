"""Dropout whose masks are a pure function of (seed, step, layer, sample's place in the batch, unit): Philox's words.

So a network drops the same units whether it is trained alone, beside others, or after a resumed run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.training.shared_batches import SharedBatches
from pipeline.views.counter_random import LOW, mix_counters

CHANNELWISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # drop whole maps
COUNTED = (nn.Dropout, *CHANNELWISE)
HALVES = 8  # numbers of 16 bits in the four words of one counter
MOST_CALLS = 1 << 16  # of one layer in one step
AHEAD = 1 << 18  # numbers that are drawn at once: of several steps, where one step needs few


def list_dropouts(network: nn.Module) -> list[nn.Module]:
    """The layers whose masks are counted, in the order of the network's modules."""
    return [module for module in network.modules() if type(module) in COUNTED]


class Masks:
    """The masks of a network's dropout layers, or of several such networks at once.

    Args:
        layers: of `list_dropouts`.
        seeds: one for each network, in [0, 2^64).
        device: where the masks are wanted.
    """

    def __init__(self, layers: Sequence[nn.Module], seeds: Sequence[int], device: torch.device) -> None:
        self.layers, self.seeds, self.device = layers, seeds, device
        self.shares: SharedBatches | None = None  # where the inputs are one process's rows of a batch
        self._step = 0
        self._calls = [0] * len(layers)
        self._drawn: dict[tuple[int, int], _Drawn] = {}

    def begin_step(self, step: int) -> None:
        """The masks that are asked for from now on are those of step `step` of the training, from 0."""
        self._step, self._calls = step, [0] * len(self.layers)
        if self.shares is not None:
            self.shares.begin_step(step)

    def draw(self, layer: int, shape: torch.Size | tuple[int, ...], call: int) -> Tensor:
        """What the inputs (B, ...) of a layer are multiplied by, (networks, B, ...) float32: 0, or 1 / (1 - p).

        Args:
            layer: its number.
            shape: of the inputs.
            call: the layer's calls in this step before this one.
        """
        samples, *units = shape
        if isinstance(self.layers[layer], CHANNELWISE):
            units = [units[0], *[1] * (len(units) - 1)]
        drawn = self._drawn.get((layer, call))
        if drawn is None or not drawn.covers(self._step, samples, units):
            drawn = self._drawn[layer, call] = self._draw_ahead(layer, call, samples, units)
        return drawn.factors[:, self._step - drawn.first, :samples]

    def apply(self, layer: int, inputs: Tensor) -> Tensor:
        """The layer's output in training mode, of a single network."""
        call = self._calls[layer]
        self._calls[layer] += 1
        if self.shares is None:
            return inputs * self.draw(layer, inputs.shape, call)[0].to(inputs.dtype)
        own, total = self.shares.own, self.shares.total
        each, left = divmod(len(inputs), own.stop - own.start)  # rows of the layer that are of one sample
        if left:
            raise InputError(
                f"a dropout layer of {tuple(inputs.shape)}",
                expected=f"inputs with {own.stop - own.start} samples first, to be shared by processes",
                found="another order of axes",
                fix="train it in one process",
            )
        whole = self.draw(layer, (total * each, *inputs.shape[1:]), call)[0]
        return inputs * whole[own.start * each : own.stop * each].to(inputs.dtype)

    def _draw_ahead(self, layer: int, call: int, samples: int, units: list[int]) -> _Drawn:
        """The factors of this step and of some after it: a hundred tiny operations in every step would cost more."""
        count = math.prod(units)
        steps = max(1, AHEAD // max(1, len(self.seeds) * samples * count))
        words = self._mix_words(layer * MOST_CALLS + call, steps, samples, -(-count // HALVES))
        halves = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=-1)
        rate = float(self.layers[layer].p)  # type: ignore[arg-type]
        kept = halves.flatten(-2)[..., :count] >= round(rate * 2**16)
        factors = kept.to(torch.float32).mul_(1 / (1 - rate) if rate < 1 else 0.0)
        return _Drawn(factors.view(*factors.shape[:-1], *units), self._step)

    def _mix_words(self, layer: int, steps: int, samples: int, counters: int) -> tuple[Tensor, ...]:
        """Words (networks, steps, samples, counters)."""
        places, rows, numbers = (torch.arange(each, device=self.device) for each in (counters, samples, steps))
        key = tuple(
            torch.tensor(half, device=self.device).view(-1, 1, 1, 1)
            for half in ([seed & LOW for seed in self.seeds], [seed >> 32 & LOW for seed in self.seeds])
        )
        number = torch.tensor(layer, device=self.device)
        return mix_counters((places, rows[:, None], (numbers + self._step)[:, None, None], number), (key[0], key[1]))


class _Drawn:
    """Factors (networks, steps, samples, ...) of consecutive steps from `first` on."""

    def __init__(self, factors: Tensor, first: int) -> None:
        self.factors, self.first = factors, first

    def covers(self, step: int, samples: int, units: list[int]) -> bool:
        """Whether a step's are among them."""
        _, steps, rows, *found = self.factors.shape
        return self.first <= step < self.first + steps and samples <= rows and found == units


@contextmanager
def counted_dropout(network: nn.Module, seed: int, device: torch.device) -> Iterator[Masks]:
    """While it is open, the network's dropout layers drop what their masks say; `Masks.begin_step` goes on."""
    layers = list_dropouts(network)
    masks = Masks(layers, [seed], device)
    with replaced_dropout(layers, masks.apply):
        yield masks


@contextmanager
def replaced_dropout(layers: Sequence[nn.Module], apply: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """While it is open, layers in training mode give what `apply` makes of their number and inputs."""
    before = [vars(layer).get("forward") for layer in layers]
    for number, layer in enumerate(layers):
        layer.forward = partial(_drop, layer, number, apply)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _drop(layer: nn.Module, number: int, apply: Callable[[int, Tensor], Tensor], inputs: Tensor) -> Tensor:
    return apply(number, inputs) if layer.training and layer.p else inputs


@torch.no_grad()
def record_calls(network: nn.Module, images: Tensor) -> list[tuple[int, int, torch.Size]]:
    """The calls of a pass's dropout layers that drop something: layer, its calls before, the shape of one sample."""
    calls: list[tuple[int, int, torch.Size]] = []

    def note(number: int, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append((number, sum(number == before for before, *_ in calls), inputs[0].shape[1:]))

    layers = list_dropouts(network)
    handles = [layer.register_forward_pre_hook(partial(note, i)) for i, layer in enumerate(layers) if layer.p]
    was = network.training
    try:
        network.eval()(images)
    finally:
        network.train(was)
        for handle in handles:
            handle.remove()
    return calls
