"""Any model of timm, by its own name (extra `teachercache[timm]`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, get_type_hints

import torch
from torch import nn

from pipeline.base.registry import UNSET, AbsentError, FilePath, describe_unknown
from pipeline.models.constructor import NormMomentum, refuse_taken, set_momentum, with_constructor
from pipeline.models.ready_weights import load_ready


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
    return _with_its_options(architecture)


@cache
def _with_its_options(architecture: str) -> Callable[..., nn.Module]:
    return with_constructor(timm_model, architecture, _class(architecture))


def _class(architecture: str) -> type[nn.Module]:
    """What timm makes of that name: as it says itself, or else by making one without weights."""
    import timm

    try:
        said = get_type_hints(timm.models.model_entrypoint(architecture)).get("return")
    except Exception:  # noqa: BLE001 - annotations that name what is not imported
        said = None
    if isinstance(said, type) and said is not nn.Module:
        return said
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
    try:
        body: nn.Module = timm.create_model(architecture, **given)
    except TypeError as error:
        refuse_taken(error, options, f"timm:{architecture}")
        raise
    set_momentum(body, norm_momentum, f"timm:{architecture}")
    if weights is not None:
        load_ready([body], weights, new_head=new_head)
    return body
