"""A trained network on disk: `weights.safetensors` and `card.json`, which rebuild it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pipeline.base.errors import InputError
from pipeline.base.files import hash_file, read_json, write_bytes, write_json
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.models.weights import load_into, read_weights


def save_network(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """Write the weights and, last, the card.

    Args:
        folder: receives both files.
        state: the network's state dict.
        card: JSON values; `model`, `shape` and `classes` must be those given to `models.build_network`.

    Returns:
        The SHA-256 of the weights file, which the card holds as `weights_sha256`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # No metadata: safetensors writes its keys in an order that varies from save to save.
    write_bytes(folder / "weights.safetensors", to_safetensors(tensors))
    digest = hash_file(folder / "weights.safetensors")
    write_json(folder / "card.json", {**card, "weights_sha256": digest})
    return digest


def load_network(folder: Path, device: torch.device, fix: str) -> tuple[Network, dict[str, Any]]:
    """The network, in evaluation mode on `device`, and its card.

    Raises:
        InputError: no network there, or its weights are not those of the card; `fix` says how
            to make it.
    """
    card = read_json(folder / "card.json", fix, keys=("model", "shape", "classes", "weights_sha256"))
    weights = folder / "weights.safetensors"
    # A file that lacks is told by `read_weights`; one that is damaged by its digest, and so with what makes it anew.
    if weights.is_file() and hash_file(weights) != card["weights_sha256"]:
        raise InputError(str(weights), expected=f"SHA-256 {card['weights_sha256'][:12]}...", found="another", fix=fix)
    state = read_weights(weights)
    with limit_parameters(2 * sum(tensor.numel() for tensor in state.values()) + ROOM, str(folder / "card.json")):
        network = build_network(card["model"], tuple(card["shape"]), len(card["classes"]), files=False)
    load_into(network, state, str(weights))
    return network.to(device).eval(), card


ROOM = 1 << 24  # numbers; some architectures make a last layer of many classes before their own


@contextmanager
def limit_parameters(numbers: int, what: str) -> Iterator[None]:
    """Refuse, while it is open, to build modules with more than so many parameters in all.

    A stranger's card may name any width. Parameters are registered before they are filled, so that
    those that are too large have taken no memory yet.
    """
    made = 0

    def count(_module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += 0 if parameter is None else parameter.numel()
        if made > numbers:
            raise InputError(what, expected="an architecture as large as its weights", found=f"a larger one at {name}")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
