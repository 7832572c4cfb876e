"""What of a training's data lies on the device and what stays on disk: chosen by a budget, and without any result's
depending on it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.base.errors import InputError
from pipeline.base.memory import VARIABLE
from pipeline.base.sizes import format_size
from pipeline.training.feeder import AHEAD

LOG = logging.getLogger(__name__)
IMAGES = "images"


@dataclass(frozen=True)
class Source:
    """Images, or a cached field.

    Attributes:
        name: for people.
        bytes: of all of it.
        batch_bytes: of the rows of the largest batch that is asked of it.
    """

    name: str
    bytes: int
    batch_bytes: int


def plan_memory(sources: Sequence[Source], budget: int) -> frozenset[Source]:
    """The sources that stay on disk, see `choose_streamed`; if there are any, a line says what lies where."""
    streamed = choose_streamed(sources, budget)
    if streamed:
        LOG.warning(describe_choice(sources, streamed))
    return streamed


def choose_streamed(sources: Sequence[Source], budget: int) -> frozenset[Source]:
    """The sources that stay on disk: the smallest come to the device first, and leave room for batches of the others.

    Args:
        sources: all that a training reads.
        budget: bytes of them that may lie on the device.

    Raises:
        InputError: the budget holds less than one batch of what stays on disk.
    """
    ordered = sorted(sources, key=lambda source: source.bytes)
    for count in range(len(ordered), -1, -1):
        streamed = frozenset(ordered[count:])
        if count_held(ordered, streamed) <= budget:
            return streamed
    needed = sum(source.batch_bytes for source in ordered)
    if needed > budget:
        raise InputError(
            f"--memory (or {VARIABLE})",
            expected=f"at least one batch of {', '.join(source.name for source in sources)}: {needed:,} bytes",
            found=f"{budget:,} bytes",
            fix="give it more, or make the batches smaller",
        )
    return frozenset(ordered)


def count_held(sources: Sequence[Source], streamed: frozenset[Source]) -> int:
    """Bytes on the device: of what lies there, and of batches of what is streamed."""
    return sum(AHEAD * source.batch_bytes if source in streamed else source.bytes for source in sources)


def describe_choice(sources: Sequence[Source], streamed: frozenset[Source]) -> str:
    """One line: images 12.3 GB: streamed; big-logits 0.4 GB: on the device."""
    places = {True: "streamed", False: "on the device"}
    return "; ".join(f"{each.name} {format_size(each.bytes)}: {places[each in streamed]}" for each in sources)
