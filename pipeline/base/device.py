"""Where the tensors live."""

from __future__ import annotations

import os

import torch

from pipeline.base.errors import InputError


def resolve_device(device: str) -> torch.device:
    """Return the device named `auto` (the GPU where there is one), `cpu`, `cuda` or `cuda:1`.

    Raises:
        InputError: no such device here.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not index.isdecimal()) or (kind == "cpu" and colon):
        raise InputError("--device", expected="auto, cpu, cuda or cuda:NUMBER", found=device)
    if kind == "cuda":
        if int(index or 0) >= torch.cuda.device_count():
            raise InputError(
                f"--device {device}",
                expected=f"one of {torch.cuda.device_count()} CUDA devices",
                found="none such",
                fix="use --device cpu",
            )
        # The same run twice gives the same bytes; cuBLAS reads its variable at its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    return torch.device(name)
