"""Where the tensors live."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.base.errors import InputError
from pipeline.base.ranks import find_ranks
from pipeline.base.sizes import format_size

LOG = logging.getLogger(__name__)
NAMES = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?", re.ASCII)
# How torch's warnings begin; that of attention comes once a process unless it is told otherwise.
NONDETERMINISTIC = (
    r"(?P<name>\S+(?= does not have a deterministic implementation)"
    r"|[\w ]+(?= defaults to a non-deterministic algorithm))"
)
TF32_SINCE = (8, 0)  # compute capability


def resolve_device(device: str) -> torch.device:
    """Return the device named `auto` (the GPU where there is one), `cpu`, `cuda` or `cuda:1`.

    A GPU is tried with one small allocation, so that what ails it is told before anything begins.

    Raises:
        InputError: no such device here, or one that does not work.
    """
    found = _find_device(device)
    if found.type == "cuda":  # where there is none, nothing was chosen
        card = torch.cuda.get_device_properties(found)
        LOG.info("on %s: %s, %s of memory", found, card.name, format_size(card.total_memory))
    return found


def describe_device(device: torch.device) -> str:
    """A device for cards, metrics and manifests: what kind, and of a GPU which; a processor is just that."""
    return "cpu" if device.type == "cpu" else f"{device.type} ({torch.cuda.get_device_name(device)})"


def describe_execution(device: torch.device, nondeterministic: Sequence[str]) -> dict[str, Any]:
    """What a network's card says of where it was trained, and of what may make another training differ."""
    return {
        "device": describe_device(device),
        **({"nondeterministic": sorted(nondeterministic)} if nondeterministic else {}),
    }


def _find_device(device: str) -> torch.device:
    if not NAMES.fullmatch(device):
        raise InputError("--device", expected="auto, cpu, cuda or cuda:NUMBER", found=device or "nothing")
    if device == "auto":
        return _choose_device()
    if device == "cpu":
        return torch.device(device)
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise InputError(
            f"--device {device}",
            expected=f"one of {torch.cuda.device_count()} CUDA devices",
            found="none such",
            fix="use --device cpu",
        )
    reason = _find_failure(torch.device(device))
    if reason is not None:
        raise InputError(
            f"--device {device}",
            expected="a GPU that works",
            found=reason,
            fix="see `nvidia-smi`: a driver older than this torch, or a card that another process holds; "
            "or use --device cpu",
        )
    return _prepare_gpu(torch.device(device))


def _choose_device() -> torch.device:
    """The GPU where there is one that works, else the processor; a GPU that does not work is told."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    ranks = find_ranks()
    several = ranks.are_several
    device = torch.device("cuda", ranks.local % torch.cuda.device_count()) if several else torch.device("cuda")
    reason = _find_failure(device)
    if reason is None:
        return _prepare_gpu(device)
    LOG.warning("the GPU does not work (%s): the processor is used instead; --device cuda insists on the GPU", reason)
    return torch.device("cpu")


def _find_failure(device: torch.device) -> str | None:
    """What a first tensor on a GPU ends in; None where it is well."""
    try:
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize(device)
    except (RuntimeError, AssertionError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return None


def _prepare_gpu(device: torch.device) -> torch.device:
    """Make the same run give the same bytes twice, in the precision that is asked for."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first call
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A kernel for each new tensor; nothing reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    # Float32 is float32: by default, convolutions would be in TF32, matrix products not.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU rounds the factors of float32 products to 10 bits, from now on."""
    if not torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed:
        # By torch's older switches: after the newer ones its own reading of these fails.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def refuse_tf32(precision: str, device: torch.device, what: str) -> None:
    """Raise InputError where `tf32` is asked of a device that has no such products."""
    if precision != "tf32" or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= TF32_SINCE):
        return
    raise InputError(
        f"{what}: precision tf32",
        expected="a GPU that has it (Ampere or later)",
        found=describe_device(device),
        fix="use float32 or bfloat16, or another --device",
    )


@contextmanager
def collect_nondeterministic() -> Iterator[list[str]]:
    """The operations, as they come, that a GPU computes in another order each time: what is trained may differ then.

    Torch warns of each at every step; here it is said once.
    """
    found: list[str] = []

    def show(message: Warning | str, *where: Any, **how: Any) -> None:
        known = re.match(NONDETERMINISTIC, str(message))
        if known is None:
            show_other(message, *where, **how)
        elif known["name"] not in found:
            found.append(known["name"])
            LOG.warning("%s: not deterministic here; the same run again may end in other last bits", known["name"])

    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("default", NONDETERMINISTIC)
        show_other, warnings.showwarning = warnings.showwarning, show
        torch.set_warn_always(True)
        try:
            yield found
        finally:
            torch.set_warn_always(always)
