"""Names of torchvision's and timm's architectures, read from the libraries' files: importing these takes seconds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.base.light_modules import read_outline

LIBRARIES = ("torchvision", "timm")
REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def outline_library_model(name: str, keys: Collection[str]) -> Callable[..., Any] | None:
    """A function with our own options of `torchvision:NAME` or `timm:NAME`, for its signature.

    None: only the library can say. The name is none that is seen in its files, or some key is an option of the
    architecture itself.
    """
    library, _, architecture = name.partition(":")
    if library not in LIBRARIES or architecture not in list_architectures(library):
        return None
    function = _outline_own_options(library)
    return function if {*keys} <= inspect.signature(function).parameters.keys() else None


@cache
def list_architectures(library: str) -> frozenset[str]:
    """The names that the library's files register, as far as they are written there; none where it is not installed."""
    spec = find_spec(library)
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else Path()
    files = folder.glob("*.py") if spec else ()
    return frozenset(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8")))


@cache
def _outline_own_options(library: str) -> Callable[..., Any]:
    function = read_outline(f"pipeline.models.{library}_model:{library}_model")
    known = inspect.signature(function).parameters.values()
    # Those of the architecture's constructor come as one mapping, which nobody writes.
    own = inspect.Signature([each for each in known if each.name != "options"])
    function.__signature__ = own  # type: ignore[attr-defined]
    return function
