"""Architectures from elsewhere: torchvision's, timm's, and the user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

from pipeline.base.registry import AbsentError


def find_external_model(name: str) -> Callable[..., Any] | None:
    """The function behind `torchvision:NAME`, `timm:NAME` or the user's own `package.module:function`; else None."""
    module, colon, attribute = name.partition(":")
    if not colon:
        return None
    if module in ("torchvision", "timm"):
        library = importlib.import_module(f"pipeline.models.{module}_model")
        return cast("Callable[..., Any]", library.find_builder(attribute))
    users = _import_module(module, name)
    function: Callable[..., Any] | None = getattr(users, attribute, None)
    if function is None:
        where = getattr(users, "__file__", None)
        raise ValueError(
            f"cannot import model {name!r}: {module} has no {attribute!r}; expected package.module:function"
            + (f" (imported from {where}; where you mean another module, rename yours)" if where else "")
        )
    if not inspect.isfunction(function):
        raise ValueError(f"model {name!r} is no function; expected package.module:function")
    return function


def _import_module(module: str, model: str) -> ModuleType:
    """The user's module that a model is in; AbsentError where there is none, ValueError where it does not run."""
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        # A module that is there and does not run is a mistake, for whoever uses the study.
        kind = AbsentError if isinstance(error, ImportError) else ValueError
        advice = "expected package.module:function, and the module beside params.yaml or on PYTHONPATH"
        top = sys.modules.get(module.partition(".")[0])
        hidden = f" ({top.__name__} is imported from {top.__file__}; rename yours)" if top and top.__file__ else ""
        raise kind(f"cannot import model {model!r}: {reason}; {advice}{hidden}") from None
