"""Any model of timm, by its own name (extra `teachercache[timm]`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, get_type_hints

import torch
from torch import nn

from pipeline.base.registry import UNSET, AbsentError, FilePath, describe_unknown
from pipeline.models.constructor_options import NormMomentum, add_constructor_options, build_external


def find_builder(architecture: str) -> Callable[..., nn.Module]:
    """The builder of `timm:<architecture>`.

    Raises:
        AbsentError: timm is not installed.
        ValueError: it has no such model.
    """
    try:
        import timm
    except ImportError:
        raise AbsentError(f"model 'timm:{architecture}' needs timm: pip install 'teachercache[timm]'") from None
    if not timm.is_model(architecture):
        raise ValueError(describe_unknown("timm model", architecture, timm.list_models()))
    return _add_options(architecture)


@cache
def _add_options(architecture: str) -> Callable[..., nn.Module]:
    return add_constructor_options(timm_model, architecture, _find_class(architecture))


def _find_class(architecture: str) -> type[nn.Module]:
    """The class of that model: by timm's annotation, or else by building one without weights."""
    import timm

    try:
        annotated = get_type_hints(timm.models.model_entrypoint(architecture)).get("return")
    except Exception:  # noqa: BLE001 - annotations that name what is not imported
        annotated = None
    if isinstance(annotated, type) and annotated is not nn.Module:
        return annotated
    with torch.device("meta"):
        return type(timm.create_model(architecture))


def timm_model(
    architecture: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    weights: FilePath | None = None,
    new_head: bool = False,
    norm_momentum: Annotated[NormMomentum | None, UNSET] = None,
    options: Mapping[str, Any],
) -> nn.Module:
    """The architecture with random weights, or with those of a local file; nothing is downloaded.

    Arguments as for `torchvision:` models; taps are module paths.
    """
    import timm

    given = {"pretrained": False, "num_classes": classes, "in_chans": shape[0], **options}
    return build_external(
        lambda: timm.create_model(architecture, **given),
        f"timm:{architecture}",
        options,
        norm_momentum=norm_momentum,
        weights=weights,
        new_head=new_head,
    )
