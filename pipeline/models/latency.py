"""How long passes of networks take on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.base.progress import track

WARM_UP = 3  # passes of each before any is timed: kernels are chosen, memory is taken

K = TypeVar("K")


@dataclass(frozen=True)
class Latency:
    """Seconds of a pass: the median of its repeats, and the quartiles around it."""

    median: float
    low: float
    high: float


@torch.inference_mode()
def measure_latencies(passes: Mapping[K, tuple[nn.Module, Tensor]], repeats: int) -> dict[K, Latency]:
    """Time a pass of each network `repeats` times, in turn, so that what else the machine does meets all alike.

    Args:
        passes: by any key, a network in evaluation mode, and images (B, C, H, W) uint8 on its device.
        repeats: of each, after the passes that warm up.
    """
    seconds: dict[K, list[float]] = {key: [] for key in passes}
    turns = [*passes.items()] * (WARM_UP + repeats)
    for key, (network, images) in track(turns, "passes", len(turns)):
        seconds[key].append(_time_pass(network, images))
    return {key: _summarise(each[WARM_UP:]) for key, each in seconds.items()}


def _time_pass(network: nn.Module, images: Tensor) -> float:
    _finish(images.device)
    start = time.perf_counter()
    network(images)
    _finish(images.device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    """Wait for what a device has been given to do; the CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summarise(seconds: list[float]) -> Latency:
    low, median, high = map(float, np.quantile(seconds, [0.25, 0.5, 0.75]))
    return Latency(median, low, high)
