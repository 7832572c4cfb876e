"""From a model's parameters to a network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pipeline.base.device import refuse_tf32
from pipeline.base.errors import InputError
from pipeline.base.registry import AbsentError, import_object
from pipeline.base.seeds import fork_seeded_rng
from pipeline.models import MODELS
from pipeline.models.heads import HEADS
from pipeline.models.network import Network


def build_network(
    model: Mapping[str, Any], shape: tuple[int, int, int], classes: int, *, files: bool = True
) -> Network:
    """A network with fresh weights, drawn from torch's global generator (seed it first).

    Args:
        model: `name`, the input scaling `mean` and `std` (per channel, or None), `head` (`name`
            and options), `binary` (options of `pipeline.models.binary.convert.binarise_network`), `computed`
            (`precision`, `layout`) where it has them, and the options of that architecture.
        shape: (C, H, W) of the images.
        classes: outputs.
        files: read the weight files that options name; False when the weights come from
            elsewhere anyway and the files need not be there.
    """
    try:
        MODELS.import_function(model["name"])
    except AbsentError as error:
        raise InputError(str(error)) from None
    options = {key: value for key, value in model.items() if key not in ("name", "mean", "std", "computed")}
    if not files:
        options = {key: value for key, value in options.items() if key not in ("weights", "new_head")}
    mean, std = model.get("mean"), model.get("std")
    for key, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) not in (1, shape[0]):
            raise InputError(
                f"model {model['name']}: {key}", expected=f"{shape[0]} numbers, one a channel", found=str(len(values))
            )
    if mean and std and len(mean) != len(std):
        raise InputError(
            f"model {model['name']}: mean and std", expected="equally many numbers", found=f"{len(mean)} and {len(std)}"
        )
    try:
        body = _build_body(model["name"], options, shape, classes)
        network = Network(body, mean, std)
        network.compute_in(**model.get("computed", {}))
        with torch.no_grad():  # two black images tell whether the options suit the shape
            probe = network.eval()(torch.zeros((2, *shape), dtype=torch.uint8))
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"model {model['name']}", expected=f"options that suit images of {shape}", found=str(error)
        ) from None
    if probe.shape != (2, classes):
        raise InputError(f"model {model['name']}", expected=f"logits (2, {classes})", found=str(tuple(probe.shape)))
    return network.train()


def draw_network(
    model: Mapping[str, Any], shape: tuple[int, int, int], classes: int, *, seed: int, device: torch.device
) -> Network:
    """A network on the device, with initial weights that the seed alone decides; other arguments as above.

    Raises:
        InputError: also where the device has no such precision.
    """
    refuse_tf32(model.get("computed", {}).get("precision", ""), device, f"model {model['name']}")
    with fork_seeded_rng(seed, device):
        return build_network(model, shape, classes).to(device)


def _build_body(name: str, options: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The architecture with its head, if it has one, and with binary inner layers, if `binary` is stated."""
    function, plain = MODELS.import_function(name), dict(options)
    # A user's own architecture may have an option of these names: then it is none of ours.
    own = inspect.signature(function).parameters
    head, binary = (None if key in own else plain.pop(key, None) for key in ("head", "binary"))
    if head is None:
        made: nn.Module = function(shape, classes, **plain)
    else:
        own_options = {key: value for key, value in head.items() if key != "name"}
        made = HEADS.import_function(head["name"])(
            lambda outputs: function(shape, outputs, **plain), shape, classes, **own_options
        )
    if binary is None:
        return made
    # By name, like models and heads: networks without binary layers do not depend on that file.
    body: nn.Module = import_object("pipeline.models.binary.convert:binarise_network")(made, shape, **binary)
    return body
