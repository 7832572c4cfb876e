"""The teacher's end in the multi-channel study: one filter a class, and each of its positions a channel."""

from __future__ import annotations

from collections import OrderedDict

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.registry import describe_unknown
from pipeline.models.heads import CHANNELS
from pipeline.models.heads.channels import Body, ChannelSums, end_with_channels
from pipeline.models.network import FEATURES, Layers


def multichannel(
    body: Body,
    shape: tuple[int, int, int],
    classes: int,
    *,
    kernel: PositiveInt | None = None,
    stride: PositiveInt | None = None,
    tap: str = "features",
) -> nn.Module:
    """One convolution filter a class over the last hidden representation, without padding.

    Over a map (B, D, H, W) the filters are `kernel` x `kernel` (3, stride 1): an 8x8 map gives 6x6 = 36
    channels. Over a vector (B, D) they slide along its units: `kernel` is D // 4, `stride` kernel // 8, both
    at least 1, which gives 25 channels where 32 divides D. The votes of a class share its filter's weights.

    The layers after the tap are replaced, but for dropout that follows it at once, which acts on the tapped
    values. An architecture that is no row of named layers (torchvision's, timm's, most of one's own) keeps
    all but the linear layer that gives its logits; the filters slide along that layer's inputs.

    Args:
        body: the architecture.
        shape: (C, H, W) of the images.
        classes: outputs of the whole network, and filters.
        kernel, stride: of the filters.
        tap: the hidden representation.

    Taps: the architecture's own up to there, and `channels`, the filters' values as (B, classes, K).

    Raises:
        InputError: no such layer to cut at or to replace, or filters larger than what they slide over.
    """
    made = body(classes).eval()
    if isinstance(made, Layers):
        trunk = _cut_after(made, tap)
        hidden = _hidden_shape(trunk, shape)
        names = {name for name, _ in trunk.named_children()}
        taps = {name: path for name, path in made.taps.items() if path.partition(".")[0] in names}
        return end_with_channels(dict(trunk.named_children()), taps, build_filters(hidden, classes, kernel, stride))
    if tap != "features":
        raise InputError(
            "head multichannel: tap",
            expected="features, the inputs of the output layer: this model is no row of named layers",
            found=repr(tap),
            fix="leave tap out",
        )
    path, inputs = _find_output_layer(made, shape)
    own = {FEATURES: nn.Identity()} if FEATURES not in dict(made.named_modules()) else {}
    ending = {**own, CHANNELS: build_filters((inputs,), classes, kernel, stride), "sums": ChannelSums()}
    parent, _, name = path.rpartition(".")
    setattr(made.get_submodule(parent), name, nn.Sequential(OrderedDict(ending)))
    made.taps = {  # type: ignore[assignment]
        **{tap: f"{path}.{tap}" for tap in own}, **getattr(made, "taps", {}), CHANNELS: f"{path}.{CHANNELS}",
    }  # fmt: skip
    return made


def build_filters(hidden: tuple[int, ...], classes: int, kernel: int | None, stride: int | None) -> nn.Sequential:
    """From hidden values (B, D, H, W) or (B, D) to channel scores (B, classes, K); options as above.

    Raises:
        InputError: a kernel that is larger than the map or the vector, or values of another shape.
    """
    if len(hidden) == 3:
        depth, *sides = hidden
        _refuse_wider_kernel(kernel or 3, min(sides), f"the {sides[0]}x{sides[1]} map")
        return nn.Sequential(nn.Conv2d(depth, classes, kernel or 3, stride or 1), nn.Flatten(2))
    if len(hidden) != 1:
        raise InputError(
            "head multichannel", expected="a tap of maps (D, H, W) or of vectors (D,)", found=f"values {hidden}"
        )
    (units,) = hidden
    width = kernel or max(1, units // 4)
    _refuse_wider_kernel(width, units, f"the vector of {units} units")
    return nn.Sequential(nn.Unflatten(1, (1, units)), nn.Conv1d(1, classes, width, stride or max(1, width // 8)))


def _refuse_wider_kernel(kernel: int, most: int, what: str) -> None:
    if kernel > most:
        raise InputError("head multichannel: kernel", expected=f"at most {most}, to fit {what}", found=str(kernel))


def _cut_after(body: Layers, tap: str) -> Layers:
    """The layers up to a tap, and the dropout that follows it at once."""
    layers = list(body.named_children())
    names = [name for name, _ in layers]
    path = body.taps.get(tap, tap)
    if path not in names:
        raise InputError("head multichannel: " + describe_unknown("tap", tap, {*body.taps, *names}))
    end = names.index(path) + 1
    while end < len(layers) and isinstance(layers[end][1], nn.Dropout):
        end += 1
    return Layers(dict(layers[:end]), {})


@torch.no_grad()
def _hidden_shape(trunk: Layers, shape: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(trunk.eval()(torch.zeros(2, *shape)).shape[1:])


@torch.no_grad()
def _find_output_layer(body: nn.Module, shape: tuple[int, int, int]) -> tuple[str, int]:
    """The linear layer whose output is the body's: its path, and the number of its inputs."""
    given: dict[str, Tensor] = {}
    linear = {path: layer for path, layer in body.named_modules() if path and isinstance(layer, nn.Linear)}
    handles = []
    for path, layer in linear.items():

        def keep(_layer: nn.Module, _inputs: object, output: Tensor, path: str = path) -> None:
            given[path] = output

        handles.append(layer.register_forward_hook(keep))
    try:
        logits = body(torch.zeros(2, *shape))
    finally:
        for handle in handles:
            handle.remove()
    last = [path for path, output in given.items() if output is logits]
    if not last:
        raise InputError(
            "head multichannel",
            expected="a row of named layers (`Layers`), or a model whose logits come straight from a linear layer",
            found=type(body).__name__,
        )
    return last[0], linear[last[0]].in_features
