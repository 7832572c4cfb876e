"""Weight files: safetensors or plain state dicts in; safetensors out. No pickled code, ever."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # only the exception: nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.base.errors import InputError, join_names
from pipeline.base.files import refuse_irregular_file

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
SAFETENSORS, PICKLE, ZIP = b"{", b"\x80", b"PK\x03\x04"  # what follows the length of a header; what files begin with
# What a network's float weights may be written as, and its counters.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file, or from a PyTorch file that holds tensors only.

    Raises:
        InputError: no regular file, damaged, or holding anything but dense tensors.
    """
    state = read_content(path)
    if not is_state_dict(state):
        raise InputError(f"weights file {path}", expected="a dict of tensors", found=type(state).__name__, fix=FIX)
    refuse_non_dense(state, f"weights file {path}")
    return dict(state)


def read_content(path: Path) -> Any:
    """What is in a file: tensors, and in PyTorch's perhaps plain values.

    Raises:
        InputError: no regular file, damaged, or pickled objects.
    """
    start = _read_start(path)
    try:
        if start[8:] == SAFETENSORS:
            return load_file(path)
        # A file that is open: of a path, torch believes the suffix.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they are about is refused, or fine
            return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        found = _describe_file(start, error)
        raise InputError(f"weights file {path}", expected="a dict of tensors", found=found, fix=FIX) from None


def _read_start(path: Path) -> bytes:
    """The first bytes of a file that can be read; a pipe or a device would be read for ever."""
    what = f"weights file {path}"
    try:
        refuse_irregular_file(path, "a regular file", what)
        with path.open("rb") as file:
            return file.read(9)
    except FileNotFoundError:
        raise InputError(what, expected="a file", found="nothing", fix="correct the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        found = getattr(error, "strerror", None) or str(error)
        raise InputError(
            what, expected="a file that can be read", found=found, fix="correct the path, or the file's mode"
        ) from None


def _describe_file(start: bytes, error: Exception) -> str:
    """What a file seems to be that cannot be read.

    PyTorch's own words for a refused pickle tell how to load it all the same.
    """
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text)
    pickled = isinstance(error, UnpicklingError) or "magic number" in text
    if named or (pickled and start.startswith((PICKLE, ZIP))):
        return f"pickled objects ({named[1]})" if named else "pickled objects"
    if not start:
        return "an empty file"
    if "TorchScript" in text:
        return "a TorchScript archive"
    told = isinstance(error, SafetensorError) or start.startswith(ZIP)
    reason = text.partition("\n")[0] if told else ""
    return "no file that torch or safetensors reads" + (f" ({reason})" if reason else "")


def is_state_dict(value: Any) -> bool:
    """Whether it is a mapping of tensors."""
    items = value.items() if isinstance(value, Mapping) else [(None, None)]
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in items)


def refuse_non_dense(state: Mapping[str, Tensor], what: str) -> None:
    """Raise InputError for a tensor that is not dense and plain (nested, quantised, sparse, without values)."""
    for name, tensor in state.items():
        odd = _describe_layout(tensor)
        if odd is not None:
            kind, fix = odd
            raise InputError(what, expected="dense tensors", found=f"{name!r}, which is {kind}", fix=fix)


def _describe_layout(tensor: Tensor) -> tuple[str, str] | None:
    """The layout of a tensor that is not dense and plain, and how to mend it; None for a plain one."""
    if tensor.is_nested:
        return "nested", "save it as a tensor of one shape"
    if tensor.is_quantized:
        return f"quantised ({_dtype_name(tensor.dtype)})", "save the weights of the network before it was quantised"
    if tensor.is_meta:
        return "on the meta device, without values", "load the values before saving"
    if tensor.layout != torch.strided:
        return f"sparse ({_dtype_name(tensor.layout)})", "save it dense: tensor.to_dense()"
    return None


def _dtype_name(value: torch.dtype | torch.layout) -> str:
    return str(value).removeprefix("torch.")


def compare_states(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, new_head: bool
) -> tuple[list[str], list[str]]:
    """The names that only one side has, and those of other shapes but for a last layer that starts afresh."""
    differing = sorted(own.keys() ^ state.keys())
    both = own.keys() & state.keys()
    reshaped = [name for name in both if state[name].is_nested or own[name].shape != state[name].shape]
    heads = {name.rpartition(".")[0] for name in reshaped}
    if new_head and not differing and heads == {list(own)[-1].rpartition(".")[0]}:
        return [], []
    return differing, reshaped


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str, *, new_head: bool = False) -> list[str]:
    """Put a state dict into a module of exactly its names and shapes.

    Args:
        module: receives the weights.
        state: name -> dense tensor; floats of 16, 32 or 64 bits become those of the module's, integers stay integers.
        what: the file, for messages.
        new_head: the last layer (one weight, one bias) may have another shape; it keeps the
            module's initial values.

    Returns:
        Which number formats were converted, such as `float16 -> float32`.

    Raises:
        InputError: a name, a shape or the kind of numbers differs, or numbers are not finite as the module holds them.
    """
    own = module.state_dict()
    differing, reshaped = compare_states(own, state, new_head=new_head)
    if differing:
        raise InputError(
            what,
            expected=f"the {len(own)} tensors of the architecture",
            found=_describe_difference(
                [name for name in differing if name in own], [name for name in differing if name in state]
            ),
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
    taken = {name: state[name] for name in own if state[name].shape == own[name].shape}
    held = {name: _convert_tensor(name, value, own[name].dtype, what) for name, value in taken.items()}
    module.load_state_dict({**own, **held})
    pairs = ((value.dtype, own[name].dtype) for name, value in taken.items())
    return sorted({f"{_dtype_name(before)} -> {_dtype_name(after)}" for before, after in pairs if before != after})


def _describe_difference(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """The names that only one side has, and which."""
    parts = [f"{len(missing)} that the file lacks ({join_names(missing)})"] if missing else []
    parts += [f"{len(surplus)} that the architecture does not have ({join_names(surplus)})"] if surplus else []
    return " and ".join(parts)


def _convert_tensor(name: str, value: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """A file's tensor in the number format that the network holds.

    Raises:
        InputError: it is of another kind of numbers, or not finite as they are held.
    """
    allowed = FLOATS if dtype.is_floating_point else INTEGERS if dtype == torch.int64 else (dtype,)
    if value.dtype not in allowed:
        raise InputError(
            what,
            expected=f"{name!r} in {' or '.join(map(_dtype_name, allowed))}",
            found=_dtype_name(value.dtype),
            fix="export the weights in the number format that the architecture has",
        )
    held = value.to(dtype)
    if not held.isfinite().all():
        fits = value.isfinite().all()
        raise InputError(
            what,
            expected=f"finite numbers as {_dtype_name(dtype)}",
            found=f"larger ones in {name!r} ({_dtype_name(value.dtype)})" if fits else f"NaN or inf in {name!r}",
            fix="train it again" + f", within the range of {_dtype_name(dtype)}" * bool(fits),
        )
    return held
