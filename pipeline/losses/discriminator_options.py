"""What a study may say of a discriminator."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.base.registry import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class DiscriminatorOptions(Section):
    """A discriminator's shape and training.

    Attributes:
        widths: hidden layers.
        epochs, batch_size, lr: of its training by Adam.
        held_out: the share of samples that it is tested on instead.
        least_accuracy: on those; a worse discriminator ends the run. 0 goes on with any.
    """

    widths: tuple[PositiveInt, ...] = (64,)
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 256
    lr: PositiveFloat = 0.001
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    least_accuracy: Share = 0.6
