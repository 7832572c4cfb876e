"""What a signature says of a cache: an in-toto statement (https://in-toto.io/Statement/v1). Pure; no I/O.

Its kind is that of the package model-signing, so that either reads what the other has signed: the SHA-256 of each file
of a model, here of `manifest.json` alone, whose `root` stands for all others. What is said beside that (root, teacher,
data set, code) is for people and for searches; nothing is decided by it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import __version__
from pipeline.base.provenance import hash_code
from pipeline.cache.cache_paths import MANIFEST_PATH
from pipeline.cache.manifest import Manifest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def describe_statement(manifest: Manifest, name: str) -> dict[str, Any]:
    """The statement about a cache, as plain values.

    Args:
        manifest: of the cache.
        name: of its folder.
    """
    digest = hashlib.sha256(manifest.to_bytes())
    return {
        "_type": STATEMENT_TYPE,
        # The subject's digest is that over the digests of the resources.
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(digest.digest()).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": MANIFEST_PATH, "algorithm": "sha256", "digest": digest.hexdigest()}],
            "root": manifest.root,
            "values": manifest.values,
            "field": manifest.field.name,
            "teacher": {"name": manifest.teacher.name, "weights_sha256": manifest.teacher.weights_sha256},
            "dataset": {"name": manifest.dataset.name, "fingerprint": manifest.dataset.fingerprint},
            "code": {"written_by": manifest.package, "signed_by": __version__, "signed_by_sha256": hash_code()},
        },
    }


class _Read(BaseModel):
    """Whatever else stands there is not looked at."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Resource(_Read):
    name: str
    algorithm: str
    digest: str


class _Predicate(_Read):
    resources: list[_Resource] = Field(max_length=100_000)


class _Statement(_Read):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    predicate: _Predicate


def states_manifest(statement: bytes, manifest: Manifest) -> bool:
    """Whether a statement, whose signature is good, is about this very cache.

    Raises:
        ValueError: it is none of this kind, or none about a cache.
    """
    try:
        resources = _Statement.model_validate_json(statement).predicate.resources
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    stated = [(each.algorithm, each.digest) for each in resources if each.name == MANIFEST_PATH]
    if len(stated) != 1:
        raise ValueError(f"{len(stated)} digests of {MANIFEST_PATH} instead of one")
    return stated == [("sha256", hashlib.sha256(manifest.to_bytes()).hexdigest())]
