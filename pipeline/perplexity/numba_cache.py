"""Where compiled code is kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numba

from pipeline.base.user_cache import find_user_folder, is_writable

LOG = logging.getLogger(__name__)
SETTINGS: Any = numba.config


def provide_code_folder(source: Path) -> bool:
    """Whether numba has a folder for the compiled code of a file; where it has none, it is given one, or that is said.

    Its own are NUMBA_CACHE_DIR and the folder beside the file, which an installation may not be written to.
    """
    own = [Path(SETTINGS.CACHE_DIR)] if SETTINGS.CACHE_DIR else []
    if any(map(is_writable, [*own, source.parent / "__pycache__"])):
        return True
    folder = find_user_folder("compiled")
    if folder is None:
        LOG.warning("no folder for compiled code can be written: each process compiles it; NUMBA_CACHE_DIR names one")
        return False
    SETTINGS.CACHE_DIR = str(folder)
    return True
