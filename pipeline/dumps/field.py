"""The two kinds of fields: what each reads of a network, and the arrays that it makes of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.block_files import BlockFunction
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.manifest import Axes

if TYPE_CHECKING:  # a student's process reads this module, and must not load a teacher's room
    from pipeline.teacher import TeacherOutputs

EXTERNAL = {"name": "external"}  # the architecture of a network that only its owner knows


@dataclass(frozen=True)
class RowField:
    """A field with a row for each view of each sample.

    Attributes:
        arrays: by name, the shape of a row and the dtype on disk.
        reads: what is asked of the network: "logits", "pixels" (as shown), or taps.
        extract: gives the arrays' rows for an answer's samples.
        parameters: what the network itself decides, for the manifest.
    """

    axes: ClassVar[Axes] = "view, sample"

    arrays: Mapping[str, ArrayPlan]
    reads: tuple[str, ...]
    extract: Callable[[TeacherOutputs], Mapping[str, NDArray[Any]]]
    parameters: Mapping[str, Any] = field(default_factory=dict)


# The rows (n, ...) of sample ids (n,).
Gather = Callable[[NDArray[np.int64]], NDArray[Any]]


@dataclass(frozen=True)
class BatchField:
    """A field with a row for each batch of a plan.

    Attributes:
        arrays: by name, the shape of a row and the dtype on disk.
        plans, batches: their numbers.
        source: the rows that a batch is made from, in one array, in view 0.
        prepare: from those rows to the values of a block of batches.
        parameters: what the network itself decides, for the manifest.
    """

    axes: ClassVar[Axes] = "plan, batch"

    arrays: Mapping[str, ArrayPlan]
    plans: int
    batches: int
    source: RowField
    prepare: Callable[[Gather], BlockFunction]
    parameters: Mapping[str, Any] = field(default_factory=dict)


Field = RowField | BatchField


def select_decisive(options: Mapping[str, Any]) -> dict[str, Any]:
    """A field's options that decide its values, as a manifest states them: compression does not."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items() if key != "codec"}
