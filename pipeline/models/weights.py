"""Weight files: safetensors or plain state dicts in; safetensors out. No pickled code, ever."""

from __future__ import annotations

import struct
from pathlib import Path
from pickle import UnpicklingError  # only the exception: nothing is unpickled

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import InputError

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
    fix = "export the state dict again (safetensors, or torch.save(model.state_dict(), FILE))"
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"weights file {path}", expected="a file", found="nothing", fix="correct the path") from None
    except UNREADABLE as error:
        # PyTorch's own words for a refused pickle tell how to load it all the same.
        pickled = isinstance(error, UnpicklingError)
        found = "pickled objects" if pickled else str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"weights file {path}", expected="a dict of tensors", found=found, fix=fix) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights file {path}", expected="a dict of tensors", found=type(state).__name__, fix=fix)
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"weights file {path}", expected="finite numbers", found=f"NaN or inf in {name!r}", fix="train it again"
            )
    return state


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
    differing = sorted(own.keys() ^ state.keys())
    reshaped = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    heads = {name.rpartition(".")[0] for name in reshaped}
    if new_head and not differing and heads == {list(own)[-1].rpartition(".")[0]}:
        state = {**state, **{name: own[name] for name in reshaped}}
        reshaped = []
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
    module.load_state_dict(state)
