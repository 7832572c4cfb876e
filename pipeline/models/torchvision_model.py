"""Any classification model of torchvision, by its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, get_type_hints

import torchvision
from torch import Tensor, nn

from pipeline.base.registry import UNSET, FilePath, describe_unknown
from pipeline.models.constructor_options import NormMomentum, add_constructor_options, build_external

WITH_AUXILIARY_HEADS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


@cache
def find_builder(architecture: str) -> Callable[..., nn.Module]:
    """The builder of `torchvision:<architecture>`.

    Raises:
        ValueError: torchvision has no such classification model.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise ValueError(describe_unknown("torchvision model", architecture, known))
    network = get_type_hints(torchvision.models.get_model_builder(architecture))["return"]
    return add_constructor_options(torchvision_model, architecture, network, WITH_AUXILIARY_HEADS.get(architecture, ()))


def torchvision_model(
    architecture: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    weights: FilePath | None = None,
    new_head: bool = False,
    norm_momentum: Annotated[NormMomentum | None, UNSET] = None,
    options: Mapping[str, Any],
) -> nn.Module:
    """The architecture with random weights, or with those of a local file.

    Args:
        architecture: torchvision's name (`resnet18`).
        shape: (C, H, W); grey images are repeated to three channels.
        classes: outputs.
        weights: a safetensors or state-dict file; nothing is downloaded.
        new_head: the file's last layer has other classes; start that layer afresh.
        norm_momentum: of all its batch normalisations; None: the architecture's own.
        options: of the architecture's constructor (`dropout`, `image_size`), each a key of the model.

    Taps: any module path of the architecture (`layer3`, `features.5`).
    """
    extra: dict[str, Any] = WITH_AUXILIARY_HEADS.get(architecture, {})
    given = {"weights": None, "num_classes": classes, **extra, **options}
    body = build_external(
        lambda: torchvision.models.get_model(architecture, **given),
        f"torchvision:{architecture}",
        options,
        norm_momentum=norm_momentum,
        weights=weights,
        new_head=new_head,
    )
    if shape[0] == 1:
        body.register_forward_pre_hook(_repeat_grey)
    return body


def _repeat_grey(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].expand(-1, 3, -1, -1), *inputs[1:])
