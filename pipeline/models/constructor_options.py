"""Options of torchvision's and timm's constructors, as far as params.yaml can state them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field
from torch import nn

from pipeline.base.errors import InputError
from pipeline.base.registry import UNSET
from pipeline.models.foreign_weights import load_foreign_weights

# torch's own: statistics move by this share towards those of each batch. 0.01 (some MobileNets) never arrives in a
# short training, and the network then says one class whatever it sees.
NormMomentum = Annotated[float, Field(gt=0, le=1)]
OWN_OPTIONS = {"shape", "classes", "num_classes", "in_chans", "pretrained", "name", "mean", "std", "head", "binary"}


def add_constructor_options(
    function: Callable[..., nn.Module], architecture: str, network: Callable[..., Any], taken: Collection[str] = ()
) -> Callable[..., nn.Module]:
    """A function `(shape, classes, *, ...)` of an architecture, with its constructor's options beside those of ours.

    Args:
        function: (architecture, shape, classes, *, options, ...); `options` are the constructor's that are given.
        architecture: its name.
        network: its class.
        taken: options of the constructor that the function decides itself.
    """
    _, *own = (each for each in inspect.signature(function).parameters.values() if each.name != "options")
    known = {each.name for each in own} | OWN_OPTIONS | set(taken)
    theirs = {name: kind for name, kind in constructor_options(network).items() if name not in known}

    def built(shape: tuple[int, int, int], classes: int, **given: Any) -> nn.Module:
        options = {name: _convert_tuples(given.pop(name)) for name in theirs if given.get(name) is not None}
        ours = {name: value for name, value in given.items() if name not in theirs}
        return function(architecture, shape, classes, **ours, options=options)

    annotations = {name: Annotated[Union[kind, None], UNSET] for name, kind in theirs.items()}  # noqa: UP007 - values
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in theirs]
    built.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    built.__annotations__ = {**get_type_hints(function, include_extras=True), **annotations}
    built.__doc__ = function.__doc__
    return built


def constructor_options(network: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a constructor that are numbers, texts or lists of them, each with its type."""
    constructor = network.__init__ if inspect.isclass(network) else network
    try:
        hints = get_type_hints(constructor)
    except Exception:  # noqa: BLE001 - annotations of a stranger's, which may name what is not imported
        hints = {}
    made: dict[str, Any] = {}
    for name, each in list(inspect.signature(constructor).parameters.items())[inspect.isclass(network) :]:
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            kind = _plain_type(hints.get(name, type(each.default)))
            made |= {} if kind is None else {name: kind}
    return made


def _plain_type(kind: Any) -> Any:
    """The part of a type that params.yaml can state, lists as tuples; None where there is none."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in (bool, int, float, str) or origin is Literal:
        return kind
    if origin in (Union, UnionType):
        parts = [part for part in map(_plain_type, inner) if part is not None]
        return reduce(or_, parts) if parts else None
    if origin in (list, tuple, Sequence) and inner:
        parts = [_plain_type(part) for part in inner if part is not Ellipsis]
        if NoneType in inner or None in parts:
            return None
        fixed = origin is tuple and Ellipsis not in inner
        return tuple.__class_getitem__(tuple(parts) if fixed else (parts[0], ...))
    return None


def _convert_tuples(value: Any) -> Any:
    """The value with lists for tuples: some constructors change theirs."""
    return list(map(_convert_tuples, value)) if isinstance(value, tuple) else value


def build_external(
    create: Callable[[], nn.Module],
    model: str,
    options: Mapping[str, Any],
    *,
    norm_momentum: float | None,
    weights: Path | None,
    new_head: bool,
) -> nn.Module:
    """A library's architecture, with the momentum and the weights that were asked for.

    Args:
        create: makes it, with random weights.
        model: its name, for messages.
        options: of its constructor, which `create` passes on.
        norm_momentum, weights, new_head: as for `torchvision_model`.

    Raises:
        InputError: an option that the architecture fixes, or weights that do not fit.
    """
    try:
        body = create()
    except TypeError as error:
        refuse_fixed_option(error, options, model)
        raise
    set_norm_momentum(body, norm_momentum, model)
    if weights is not None:
        load_foreign_weights([body], weights, new_head=new_head)
    return body


def set_norm_momentum(body: nn.Module, momentum: float | None, model: str) -> None:
    """Give every batch normalisation this momentum; None: leave them.

    Raises:
        InputError: there is none.
    """
    if momentum is None:
        return
    norms = [module for module in body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    if not norms:
        raise InputError(
            f"model {model}: norm_momentum", expected="a model with batch normalisation", found="none in it"
        )
    for norm in norms:
        norm.momentum = momentum


def refuse_fixed_option(error: TypeError, options: Mapping[str, Any], model: str) -> None:
    """Raise InputError where the model's own builder decides an option."""
    name = next((name for name in options if f"{name!r}" in str(error)), None)
    if name is not None:
        raise InputError(
            f"model {model}: {name}", expected="nothing: it is what this model is", found=repr(options[name])
        )
