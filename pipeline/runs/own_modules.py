"""The modules of the user's own that lie beside params.yaml: each study finds its own."""

from __future__ import annotations

import sys
from pathlib import Path

_opened: list[str] = []  # folders of studies, as they stand at the end of sys.path


def find_own_modules_in(folder: Path) -> None:
    """Let imports end with this study's folder, and with no other study's.

    Last: a statistics.py or a pipeline/ of the user's must not stand in for Python's or ours. A module that another
    study has brought, and that this one has too, is imported anew.
    """
    name = str(folder)
    if _opened[-1:] == [name] and name in sys.path:
        return
    for other in _opened:
        if other in sys.path:
            sys.path.remove(other)
        if other != name:
            _forget_modules(Path(other), folder)
    _opened[:] = [each for each in _opened if each != name] + [name]
    if name not in sys.path:
        sys.path.append(name)


def _forget_modules(other: Path, folder: Path) -> None:
    """Forget the modules that lie in another study's folder and in this one by the same name."""
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        theirs = file and Path(file).is_relative_to(other) and not Path(file).is_relative_to(folder)
        if theirs and ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
            del sys.modules[name]
