"""The modules of the user's own that lie beside params.yaml: each study finds its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_folders: set[str] = set()  # of all studies that have been opened
_last: list[str] = []  # that of the last, at the end of sys.path
_added: set[str] = set()  # those that this put there


def find_own_modules_in(folder: Path) -> None:
    """Let imports end with this study's folder, and with no other study's.

    Last: a statistics.py or a pipeline/ of the user's must not stand in for Python's or ours. A module that another
    study has brought, and that this one has too, is imported anew.
    """
    name = str(folder)
    if _last == [name] and name in sys.path:
        return
    for other in _added & {*sys.path}:
        sys.path.remove(other)
    _added.clear()
    if name not in sys.path:
        sys.path.append(name)
        _added.add(name)
    _last[:] = [name]
    _forget_modules_of_others(name)
    _folders.add(name)


def _forget_modules_of_others(folder: str) -> None:
    """Forget the modules that lie in another study's folder and in this one by the same name."""
    own = {entry.name.removesuffix(".py") for entry in os.scandir(folder)}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if not file.startswith(folder + os.sep) and any(file.startswith(other + os.sep) for other in _folders):
            del sys.modules[name]
