"""What a network takes when deployed."""

from __future__ import annotations

from torch import Tensor, nn

NUMBER = 32  # bits of a real number


def count_bits(network: nn.Module) -> int:
    """Bits of everything that a deployed network must hold: 32 a number of its state dict, in whatever dtype.

    Binary layers (`pipeline.models.binary`) hold 1 bit a weight and 32 a filter's scale; their biases and batch norms
    (parameters and running statistics) are real numbers. A tensor that several layers share counts once; integers
    (batch norm's `num_batches_tracked`) are for training and count nothing.
    """
    special: dict[int, int] = {}
    for module in network.modules():
        for name, bits in getattr(module, "stored_bits", {}).items():
            special[id(getattr(module, name))] = bits
    held = {id(value): value for value in network.state_dict(keep_vars=True).values() if isinstance(value, Tensor)}
    return sum(special.get(key, NUMBER * value.numel()) for key, value in held.items() if value.is_floating_point())
