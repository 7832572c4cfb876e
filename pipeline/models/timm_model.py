"""Any model of timm, by its own name (extra `teachercache[timm]`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from pipeline.models.weights import load_into, read_weights
from pipeline.registry import FilePath, unknown


def named(architecture: str) -> Callable[..., nn.Module]:
    """The builder of `timm:<architecture>`.

    Raises:
        ValueError: timm is not installed or has no such model.
    """
    try:
        import timm
    except ImportError:
        raise ValueError(f"model 'timm:{architecture}' needs timm: pip install 'teachercache[timm]'") from None
    if not timm.is_model(architecture):
        raise ValueError(unknown("timm model", architecture, [*timm.list_models()[:12], "..."]))
    return partial(timm_model, architecture)


def timm_model(
    architecture: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    weights: FilePath | None = None,
    new_head: bool = False,
) -> nn.Module:
    """The architecture with random weights, or with those of a local file; nothing is downloaded.

    Arguments as for `torchvision:` models; taps are module paths.
    """
    import timm

    body: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=classes, in_chans=shape[0])
    if weights is not None:
        load_into(body, read_weights(weights), f"weights file {weights}", new_head=new_head)
    return body
