"""The terms that a command is given for a cache: licence, citation, contact."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from pipeline.base.errors import InputError
from pipeline.cache.manifest import SharingInfo


def read_terms(terms: Mapping[str, str | None] | None, kept: SharingInfo | None = None) -> SharingInfo | None:
    """What a cache's manifest is to say; see `SharingInfo.from_terms`.

    Raises:
        InputError: a term of that name is none, or too long, empty or of several lines.
    """
    if unknown := sorted((terms or {}).keys() - SharingInfo.model_fields.keys()):
        raise InputError("terms", expected=", ".join(SharingInfo.model_fields), found=unknown[0])
    try:
        return SharingInfo.from_terms(terms or {}, kept)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        expected = "some text of at most 4000 letters" if name == "citation" else "one line of at most 200 letters"
        raise InputError(name, expected=expected, found=repr((terms or {})[name])) from None
