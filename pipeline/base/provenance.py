"""Which code makes a result."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def hash_code() -> str:
    """SHA-256 over this package's sources and the versions of the libraries that compute.

    Unfinished work of other code is not taken up: it might end otherwise.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy", "numba"))
    digest = hashlib.sha256(f"{versions}\n".encode())
    package = Path(__file__).parent.parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
