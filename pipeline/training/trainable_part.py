"""Which part of a network a phase of its training trains."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.models.network import Network


@dataclass(frozen=True)
class TrainablePart:
    """The part of a network that a phase trains.

    Attributes:
        up_to: all that the activations at this tap depend on.
        only: modules by path or tap; the other of the two is None.
    """

    up_to: str | None = None
    only: tuple[str, ...] | None = None

    def parameter_names(self, network: Network, images: Tensor) -> list[str]:
        """The names of the part's parameters; `images` (B, C, H, W) are passed to see what the tap depends on."""
        names = (
            network.parameters_within(self.only or ())
            if self.up_to is None
            else network.parameters_below(self.up_to, images)
        )
        if not names:
            raise InputError(f"up_to {self.up_to!r}", expected="a tap with weights below it", found="none")
        return names
