"""The keys of signatures: ECDSA, in the PEM files that openssl writes (extra `teachercache[sign]`)."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import InputError
from pipeline.base.files import refuse_irregular_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

MAX_KEY_BYTES = 1 << 16
KEY_PAIR = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # the hash that each is used with
KINDS = "an ECDSA key on P-256, P-384 or P-521"


def hash_public_key(key: ec.EllipticCurvePublicKey) -> str:
    """What names a key: SHA-256 of the public one in PEM, as openssl writes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a PEM file that nobody else can read.

    Raises:
        InputError: no such file, one that others can read, or one of no such key.
    """
    _require_package()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected, fix = "a private ECDSA key in PEM, without a passphrase", f"make one: {KEY_PAIR}"
    data = _read_key_file(path, expected, fix)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:  # as ssh has it
        fix = f"chmod 600 {path}"
        raise InputError(str(path), expected="a key that only you can read", found=f"mode {mode:03o}", fix=fix)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise InputError(str(path), expected=expected, found="one with a passphrase", fix=fix) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(str(path), expected=expected, found="none", fix=fix) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise InputError(str(path), expected=KINDS, found="another kind", fix=fix)
    return key


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """The key in a PEM file.

    Raises:
        InputError: no such file, or one of no such key.
    """
    _require_package()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    expected, fix = "a public ECDSA key in PEM", "openssl pkey -in key.pem -pubout -out key.pub"
    data = _read_key_file(path, expected, fix)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(str(path), expected=expected, found="none", fix=fix) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise InputError(str(path), expected=KINDS, found="another kind", fix=fix)
    return key


def _require_package() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise InputError(
            "signatures",
            expected="the package cryptography",
            found="none",
            fix="pip install 'teachercache[sign]'",
        ) from None


def _read_key_file(path: Path, expected: str, fix: str) -> bytes:
    refuse_irregular_file(path, expected)
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except FileNotFoundError:
        raise InputError(str(path), expected=expected, found="no such file", fix=fix) from None
    except OSError as error:
        raise InputError(str(path), expected=expected, found=str(error.strerror)) from None


def choose_algorithm(key: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    """How a key of this curve signs."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    algorithm: Any = getattr(hashes, CURVES[key.curve.name])
    return ec.ECDSA(algorithm())
