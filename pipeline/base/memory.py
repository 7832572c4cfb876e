"""How many bytes of data a device may hold: what the user says, else a share of what is free."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import torch

from pipeline.base.errors import InputError

VARIABLE = "TEACHERCACHE_MEMORY"
SHARE = 0.5  # of what is free, where nobody says: networks, and other programs, need some too
PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE | re.ASCII)
# Of the container that this process runs in, by either version of Linux's control groups.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def find_budget(memory: str | int | None, device: torch.device) -> int:
    """Bytes of images and cached fields that may lie on a device.

    Args:
        memory: a size (see `parse_size`); None for the environment's, else for half of what is free.
        device: where they would lie.

    Raises:
        InputError: it is no size.
    """
    if memory is None and not os.environ.get(VARIABLE):
        return int(SHARE * measure_free(device))
    if memory is None:
        return parse_size(os.environ[VARIABLE], VARIABLE)
    return memory if isinstance(memory, int) else parse_size(memory, "--memory")


def parse_size(text: str, what: str) -> int:
    """The bytes of a size as people write it: "8GB" (10^9 each), "2GiB" (2^30), "500 MB", "4096".

    Args:
        text: the size.
        what: names it in the message.

    Raises:
        InputError: it is none.
    """
    found = SIZE.fullmatch(text)
    if found is None or (found[3] and not found[2]):
        expected = "a size such as 8GB, 500MB, 2GiB, or a number of bytes"
        example = f"{what} 8GB" if what.startswith("-") else f"{what}=8GB"
        raise InputError(what, expected=expected, found=ascii(text), fix=f"write, for instance, {example}")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** PREFIXES[found[2].lower()])


def measure_free(device: torch.device) -> int:
    """Free bytes of a device's memory; of the processor's, no more than this process's container may take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = (_read_number(limit) for limit in LIMITS)
    return min([int(psutil.virtual_memory().available), *(limit for limit in limits if limit is not None)])


def _read_number(path: str) -> int | None:
    """The number in a file; None where there is no file, or no number in it (no limit: `max`)."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
