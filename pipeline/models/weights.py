"""Weight files: safetensors or plain state dicts in; safetensors out. No pickled code, ever."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # only the exception: nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import InputError

FIX = "export the state dict again (safetensors, or torch.save(model.state_dict(), FILE))"

# What `torch.load` raises on damaged or foreign files; its unpickler lets all of these through.
UNREADABLE = (
    SafetensorError,
    UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
    struct.error,
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file, or from a PyTorch file that holds tensors only.

    Raises:
        InputError: missing, damaged, holding anything but tensors, or with NaN or inf inside.
    """
    state = content_of(path)
    if not is_state(state):
        raise InputError(f"weights file {path}", expected="a dict of tensors", found=type(state).__name__, fix=FIX)
    refuse_non_finite(state, path)
    return dict(state)


def content_of(path: Path) -> Any:
    """What is in a file: tensors, and in PyTorch's perhaps plain values.

    Raises:
        InputError: missing, damaged, or pickled objects.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"weights file {path}", expected="a file", found="nothing", fix="correct the path") from None
    except UNREADABLE as error:
        # PyTorch's own words for a refused pickle tell how to load it all the same.
        pickled = isinstance(error, UnpicklingError)
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        objects = f"pickled objects ({named[1]})" if named else "pickled objects"
        found = objects if pickled else str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"weights file {path}", expected="a dict of tensors", found=found, fix=FIX) from None


def is_state(value: Any) -> bool:
    """Whether it is a mapping of tensors."""
    items = value.items() if isinstance(value, Mapping) else [(None, None)]
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in items)


def refuse_non_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError for NaN or inf."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"weights file {path}", expected="finite numbers", found=f"NaN or inf in {name!r}", fix="train it again"
            )


def differences_of(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, new_head: bool
) -> tuple[list[str], list[str]]:
    """The names that only one side has, and those of other shapes but for a last layer that starts afresh."""
    differing = sorted(own.keys() ^ state.keys())
    reshaped = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    heads = {name.rpartition(".")[0] for name in reshaped}
    if new_head and not differing and heads == {list(own)[-1].rpartition(".")[0]}:
        return [], []
    return differing, reshaped


def load_into(module: nn.Module, state: dict[str, Tensor], what: str, *, new_head: bool = False) -> None:
    """Put a state dict into a module of exactly its names and shapes.

    Args:
        module: receives the weights.
        state: name -> tensor.
        what: the file, for messages.
        new_head: the last layer (one weight, one bias) may have another shape; it keeps the
            module's initial values.

    Raises:
        InputError: a name or a shape differs.
    """
    own = module.state_dict()
    differing, reshaped = differences_of(own, state, new_head=new_head)
    if differing:
        raise InputError(
            what,
            expected=f"the {len(own)} tensors of the architecture",
            found=f"{len(differing)} names that only one side has ({', '.join(differing[:3])}, ...)",
            fix="name the architecture that the file was saved from",
        )
    if reshaped:
        name = min(reshaped)
        raise InputError(
            what,
            expected=f"{name} of shape {tuple(own[name].shape)}",
            found=str(tuple(state[name].shape)),
            fix="correct the model's options",
        )
    module.load_state_dict({name: state[name] if state[name].shape == own[name].shape else own[name] for name in own})
