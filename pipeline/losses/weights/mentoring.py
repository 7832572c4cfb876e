"""The three ways of mentoring (METHODS: mentee networks), as weights over the share of the training that is over.

The source shows alpha, beta and gamma as curves without numbers: these are readings of its words, and
data. Another reading is `{name: piecewise, unit: share, points: [...]}` in `params.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import NonNegativeFloat

from pipeline.losses.weights import Schedule
from pipeline.losses.weights.schedules import interpolate, phase_share

Of = Literal["labels", "hints", "softmax"]  # alpha, beta, gamma

Points = tuple[tuple[float, float], ...]

# Labels dominate throughout; all weights anneal steadily.
ADAMANT: Mapping[Of, Points] = {
    "labels": ((0.0, 1.0), (1.0, 0.2)),
    "hints": ((0.0, 0.25), (1.0, 0.0)),
    "softmax": ((0.0, 0.25), (1.0, 0.0)),
}
# The mentor's weights start as the stronger ones and anneal; labels start low, grow to a point, then anneal.
OBEDIENT: Mapping[Of, Points] = {
    "labels": ((0.0, 0.1), (0.4, 1.0), (1.0, 0.4)),
    "hints": ((0.0, 1.0), (0.5, 0.1), (1.0, 0.0)),
    "softmax": ((0.0, 1.0), (0.5, 0.1), (1.0, 0.0)),
}
# No label is used: only the probes teach.
GULLIBLE: Mapping[Of, Points] = {
    "labels": ((0.0, 0.0),),
    "hints": ((0.0, 1.0), (1.0, 0.2)),
    "softmax": ((0.0, 1.0), (1.0, 0.2)),
}


def adamant(epochs: int, *, of: Of, scale: NonNegativeFloat = 1.0) -> Schedule:
    """The labels', the hidden probes' or the softmax probe's weight of an adamant mentee, times `scale`."""
    return _build_preset(ADAMANT[of], epochs, scale)


def obedient(epochs: int, *, of: Of, scale: NonNegativeFloat = 1.0) -> Schedule:
    """The labels', the hidden probes' or the softmax probe's weight of an obedient mentee, times `scale`."""
    return _build_preset(OBEDIENT[of], epochs, scale)


def gullible(epochs: int, *, of: Of, scale: NonNegativeFloat = 1.0) -> Schedule:
    """The labels', the hidden probes' or the softmax probe's weight of a gullible mentee, times `scale`."""
    return _build_preset(GULLIBLE[of], epochs, scale)


def _build_preset(points: Points, epochs: int, scale: float) -> Schedule:
    return lambda epoch: scale * interpolate(points, phase_share(epoch, epochs))
