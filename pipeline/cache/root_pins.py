"""`URL#root`: a cache that is pinned by the first digits of its root digest."""

from __future__ import annotations

import re

from pipeline.base.errors import InputError
from pipeline.cache.manifest import Manifest
from pipeline.cache.url_systems import hide_password

PIN_DIGITS = 12  # at the least


def split_pin(url: str) -> tuple[str, str | None]:
    """A URL without its pin, and the pin.

    Raises:
        InputError: what follows the `#` is no beginning of a digest, or too short a one.
    """
    place, mark, pin = url.rpartition("#")
    if not mark or "://" not in place:
        return url, None
    if not re.fullmatch(rf"[0-9a-f]{{{PIN_DIGITS},64}}", pin.lower()):
        expected = f"the first {PIN_DIGITS} or more digits of a cache's root digest after the #"
        raise InputError(
            hide_password(url), expected=expected, found=repr(pin), fix="`teachercache cache inspect` says it"
        )
    return place, pin.lower()


def refuse_other_root(name: str, manifest: Manifest, pin: str | None, fix: str) -> None:
    """Raise InputError unless a cache's root digest begins with the pin, where there is one."""
    if pin is not None and not manifest.root.startswith(pin):
        raise InputError(f"cache {name}: root", expected=pin, found=manifest.root[: max(len(pin), PIN_DIGITS)], fix=fix)
