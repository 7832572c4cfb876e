"""Binary students: which layers of a network become binary. The layers themselves: `pipeline.models.binary.layers`."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.base.errors import InputError
from pipeline.models.binary.layers import Form, Gradient, binarise_layer

# What counts when the first and the last layer are looked for; of these, Conv2d and Linear can be binary.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def binarise_network(
    body: nn.Module,
    shape: tuple[int, int, int],
    *,
    form: Form,
    scale_map: bool = True,
    gradient: Gradient = "paper",
) -> nn.Module:
    """The body, whose Conv2d and Linear layers other than the first and the last become binary in place.

    First and last are told by a pass, not by the order of definition; of a layer used several times its first call
    may be the first, its last one the last. What a pass does not call (weights that `MultiheadAttention` uses itself)
    and other kinds of layers stay real. Layers keep their paths, weights and hooks, and no random number is drawn.

    Args:
        body: float images (B, C, H, W) -> logits, head included.
        shape: (C, H, W) of the images.
        form: `weights`: binary weights, real inputs. `xnor`: batch norm -> sign -> layer with binary weights.
        scale_map: multiply by K, the inputs' mean size; of `xnor` alone.
        gradient: of the real weights: `paper` or `exact`, see `pipeline.models.binary.layers.binary_weights`.

    Raises:
        InputError: no layer in between, or one with a forward pass of its own.
    """
    if form == "weights" and not scale_map:
        raise InputError("binary: scale_map", expected="form: xnor, whose inputs it is of", found="form: weights")
    for layer in _find_inner_layers(body, shape):
        binarise_layer(layer, form=form, scale_map=scale_map, gradient=gradient)
    return body


def _find_inner_layers(body: nn.Module, shape: tuple[int, int, int]) -> list[nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers that a pass calls between its first and its last layer."""
    called = _record_calls(body, shape)
    ends = (called[0], called[-1]) if called else ()
    inner = [layer for layer in dict.fromkeys(called) if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in ends]
    paths = {module: path or "itself" for path, module in body.named_modules()}
    if not inner:
        layers = ", ".join(f"{paths[layer]} ({type(layer).__name__})" for layer in dict.fromkeys(called))
        raise InputError(
            "binary",
            expected="a Conv2d or Linear layer between the first and the last, which stay real",
            found=layers or "no layer that could be binary",
            fix="add a layer to the model or leave binary out",
        )
    for layer in inner:
        if type(layer) not in (nn.Conv2d, nn.Linear):  # how it uses its weights is its own business
            found = type(layer).__name__
            raise InputError(f"binary: layer {paths[layer]}", expected="a plain Conv2d or Linear", found=found)
    return inner


@torch.no_grad()
def _record_calls(body: nn.Module, shape: tuple[int, int, int]) -> list[nn.Module]:
    """The layers with weights in the order in which a pass (evaluation mode, two black images) calls them."""
    called: list[nn.Module] = []
    layers = [module for module in body.modules() if isinstance(module, WEIGHTED)]
    handles = [layer.register_forward_pre_hook(lambda layer, _: called.append(layer)) for layer in layers]
    device = next((parameter.device for parameter in body.parameters()), None)
    training = body.training
    try:
        body.eval()(torch.zeros((2, *shape), device=device))
    finally:
        body.train(training)
        for handle in handles:
            handle.remove()
    return called
