"""A signature beside a cache: a Sigstore bundle around a signed statement (DSSE), by a plain pair of ECDSA keys.

The package `cryptography` does the arithmetic (extra `teachercache[sign]`). Not model-signing itself: it hashes every
file of a folder that lies here, signs no statement but its own, and brings twenty packages, most of them for signing
online. Its command verifies what is written here, and what it signs is verified here: see `statement`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json
from pipeline.cache.manifest import Manifest
from pipeline.cache.signing_keys import choose_algorithm, hash_public_key
from pipeline.cache.statement import describe_statement, states_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True)


class _KeyHint(_Read):
    hint: str | None = None


class _Material(_Read):
    public_key: _KeyHint = Field(alias="publicKey")


class _RawSignature(_Read):
    sig: Base64Bytes


class _Envelope(_Read):
    payload: Base64Bytes
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    signatures: list[_RawSignature] = Field(min_length=1, max_length=1)


class _Bundle(_Read):
    """What is read of a Sigstore bundle by a key; whatever else stands there is not looked at."""

    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = Field(alias="mediaType")
    material: _Material = Field(alias="verificationMaterial")
    envelope: _Envelope = Field(alias="dsseEnvelope")


def sign_manifest(manifest: Manifest, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The bytes of a signature file.

    Args:
        manifest: of the cache.
        name: of its folder.
        key: that signs.
    """
    payload, public = encode_json(describe_statement(manifest, name)), key.public_key()
    signature = key.sign(_encode_envelope(payload), choose_algorithm(public))
    return encode_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hash_public_key(public)}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def names_manifest(data: bytes, manifest: Manifest) -> bool:
    """Whether a signature, by whomever and good or not, claims to be of this very cache."""
    try:
        return states_manifest(_Bundle.model_validate_json(data).envelope.payload, manifest)
    except ValueError:  # pydantic's, too
        return False


def check_signature(data: bytes, manifest: Manifest, key: ec.EllipticCurvePublicKey, where: str) -> None:
    """Raise InputError unless a signature is of this key, and of this very cache.

    Args:
        data: the bytes of a signature file.
        manifest: of the cache.
        key: that must have signed.
        where: the file, for messages.
    """
    from cryptography.exceptions import InvalidSignature

    expected, fix = f"a signature by key {hash_public_key(key)[:12]}", "ask whoever made the cache to sign it again"
    try:
        bundle = _Bundle.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        found = f"no Sigstore bundle: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        raise InputError(where, expected=expected, found=found, fix=fix) from None
    hint, envelope = bundle.material.public_key.hint, bundle.envelope
    if hint not in (None, hash_public_key(key)):
        raise InputError(where, expected=expected, found=f"one by another key, {str(hint)[:12]}")
    try:
        key.verify(envelope.signatures[0].sig, _encode_envelope(envelope.payload), choose_algorithm(key))
    except InvalidSignature:
        found = "one by another key, or a changed one"
        raise InputError(where, expected=expected, found=found, fix=fix) from None
    try:
        is_stated = states_manifest(envelope.payload, manifest)
    except ValueError as error:
        raise InputError(where, expected="a signed statement about a cache", found=str(error), fix=fix) from None
    if not is_stated:
        found = "one of another cache, or of what this one was before it changed"
        raise InputError(where, expected=f"a signature of root {manifest.root[:12]}", found=found, fix=fix)


def _encode_envelope(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload
