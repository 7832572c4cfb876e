"""Signatures beside caches: who signed is found, and what is missing, foreign, damaged or stale is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

from pipeline import cache, runs
from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import encode_json, hash_json
from pipeline.cache import signature, signing_keys
from pipeline.cache.manifest import Manifest
from pipeline.cache.statement import describe_statement
from tests.cache.test_cache import flip, tree, write
from tests.cache.test_urls import Plain, over_http, with_ranges
from tests.conftest import Capture, Run, refused, shell, write_study

crypto = pytest.importorskip("cryptography", reason="signatures need the package cryptography: teachercache[sign]")
from cryptography.hazmat.primitives import serialization  # noqa: E402 - skipped before where it is not there
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402

PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()
PKCS8, SPKI = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
DUMP = "data/cache/big-logits"


class Pair(NamedTuple):
    private: Path
    public: Path


def write_pair(folder: Path, name: str, key: Any = None, encryption: Any = PLAIN) -> Pair:
    key = key or ec.generate_private_key(ec.SECP256R1())
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.pub")
    pair.private.write_bytes(key.private_bytes(PEM, PKCS8, encryption))
    pair.private.chmod(0o600)
    pair.public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
    return pair


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return write_pair(tmp_path, "mine")


@pytest.fixture
def signed(tmp_path: Path, mine: Pair) -> Path:
    """A cache with a signature beside it."""
    write(tmp_path)
    runs.sign_cache(tmp_path / "dump", mine.private)
    return tmp_path / "dump"


def beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sig.json")


def refusal(folder: Path | str, pair: Pair, *parts: str) -> str:
    """The one line that a cache is refused with for its signature; without a question it is as good as ever."""
    with pytest.raises(InputError) as caught:
        runs.verify_cache(folder, signed_by=pair.public)
    line = str(caught.value)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == [], line
    assert runs.verify_cache(folder).values["whole"]
    return line


def statement_of(folder: Path) -> dict[str, Any]:
    bundle = json.loads(beside(folder).read_bytes())
    made: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return made


def sign_anything(folder: Path, pair: Pair, payload: bytes) -> None:
    """Put a signature beside a cache that is good, whatever it says."""
    key = signing_keys.read_private_key(pair.private)
    made = json.loads(beside(folder).read_bytes())
    raw = key.sign(signature._encode_envelope(payload), signing_keys.choose_algorithm(key.public_key()))
    made["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    made["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(raw).decode(), "keyid": ""}]
    beside(folder).write_bytes(encode_json(made))


# ------------------------------------------------------------------ what is signed


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda each: each.name)
def test_a_signature_says_who_and_what_and_changes_no_byte_of_the_cache(tmp_path: Path, curve: Any) -> None:
    pair = write_pair(tmp_path, "mine", ec.generate_private_key(curve))
    made: Manifest = write(tmp_path)
    before = tree(tmp_path / "dump")
    result = runs.sign_cache(tmp_path / "dump", pair.private)
    key = hashlib.sha256(pair.public.read_bytes()).hexdigest()
    assert result.values == {"signature": str(beside(tmp_path / "dump")), "root": made.root, "key": key}
    assert tree(tmp_path / "dump") == before
    said = statement_of(tmp_path / "dump")
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"][0]["name"] == "dump"
    assert said["predicate"]["root"] == made.root
    assert said["predicate"]["teacher"] == {"name": "big", "weights_sha256": made.teacher.weights_sha256}
    assert said["predicate"]["dataset"] == {"name": "digits", "fingerprint": made.dataset.fingerprint}
    assert said["predicate"]["code"].keys() == {"written_by", "signed_by", "signed_by_sha256"}
    found = runs.verify_cache(tmp_path / "dump", signed_by=pair.public)
    assert found.values["signed_by"] == key
    assert found.text[0] == f"{tmp_path / 'dump'}: root {made.root[:12]} is signed by key {key[:12]}"
    assert found.values["whole"]


def test_openssl_finds_the_same_signature_good(signed: Path, mine: Pair, tmp_path: Path) -> None:
    """So it is what DSSE says, and not what this package happens to read."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    envelope = json.loads(beside(signed).read_bytes())["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    (tmp_path / "pae").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = f"openssl dgst -sha256 -verify {mine.public} -signature sig pae"
    assert "Verified OK" in shell(tmp_path, command)
    flip(tmp_path / "pae", 40)
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0


def test_the_lines_of_the_page_make_a_pair_of_keys(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    write(tmp_path)
    shell(tmp_path, f"{signing_keys.KEY_PAIR} && openssl pkey -in key.pem -pubout -out key.pub")
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    runs.sign_cache(tmp_path / "dump", tmp_path / "key.pem")
    found = runs.verify_cache(tmp_path / "dump", signed_by=tmp_path / "key.pub")
    assert found.values["signed_by"] == hashlib.sha256((tmp_path / "key.pub").read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore")  # of its own packages
def test_model_signing_reads_ours_and_we_read_its(signed: Path, mine: Pair, tmp_path: Path) -> None:
    reason = "the package model-signing (with pyOpenSSL, which it needs and does not ask for) is not here"
    signing = pytest.importorskip("model_signing.signing", reason=reason, exc_type=ImportError)
    verifying = pytest.importorskip("model_signing.verifying", reason=reason, exc_type=ImportError)
    theirs = verifying.Config().use_elliptic_key_verifier(public_key=mine.public).set_ignore_unsigned_files(True)
    theirs.verify(signed, beside(signed))
    flip(signed / "manifest.json", 40)
    with pytest.raises(ValueError, match="ismatch"):
        theirs.verify(signed, beside(signed))
    flip(signed / "manifest.json", 40)
    beside(signed).unlink()
    signing.Config().use_elliptic_key_signer(private_key=mine.private).sign(signed, beside(signed))
    assert runs.verify_cache(signed, signed_by=mine.public).values["signed_by"]
    refusal(signed, write_pair(tmp_path, "other"), "by another key")


# ------------------------------------------------------------------ what is refused


def test_no_signature(signed: Path, mine: Pair) -> None:
    beside(signed).unlink()
    refusal(signed, mine, f"{beside(signed)}: expected the signature of the cache beside it, found nothing")


def test_a_foreign_signature(signed: Path, mine: Pair, tmp_path: Path) -> None:
    other = write_pair(tmp_path, "other")
    refusal(signed, other, "expected a signature by key", "found one by another key, ")
    made = json.loads(beside(signed).read_bytes())
    made["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(other.public.read_bytes()).hexdigest()
    beside(signed).write_bytes(encode_json(made))  # who says that it is by that key has not signed with it
    refusal(signed, other, "found one by another key, or a changed one")
    del made["verificationMaterial"]["publicKey"]["hint"]
    beside(signed).write_bytes(encode_json(made))
    refusal(signed, other, "found one by another key, or a changed one")
    assert runs.verify_cache(signed, signed_by=mine.public).values["whole"]  # a hint decides nothing


def test_a_signature_of_what_the_cache_was_before(signed: Path, mine: Pair, tmp_path: Path) -> None:
    runs.convert_cache(signed, tmp_path / "new", terms={"licence": "MIT"})
    shutil.rmtree(signed)
    (tmp_path / "new").rename(signed)
    root = cache.open(signed).manifest.root
    refusal(signed, mine, f"expected a signature of root {root[:12]}", "what this one was before it changed")
    result = runs.sign_cache(signed, mine.private)
    assert "written, in place of an older one" in str(result.text[0])
    assert runs.verify_cache(signed, signed_by=mine.public).values["whole"]


def test_a_signature_of_another_cache(signed: Path, mine: Pair, tmp_path: Path) -> None:
    write(tmp_path / "b", dtype="float16")
    runs.sign_cache(tmp_path / "b/dump", mine.private)
    shutil.copy(beside(tmp_path / "b/dump"), beside(signed))
    refusal(signed, mine, "found one of another cache")


def test_a_cache_may_be_renamed_with_its_signature(signed: Path, mine: Pair, tmp_path: Path) -> None:
    signed.rename(tmp_path / "elsewhere.v1")
    beside(signed).rename(tmp_path / "elsewhere.v1.sig.json")
    assert runs.verify_cache(tmp_path / "elsewhere.v1", signed_by=mine.public).values["whole"]
    (tmp_path / "link").symlink_to("elsewhere.v1")  # what lies beside the link counts
    refusal(tmp_path / "link", mine, f"{tmp_path / 'link.sig.json'}: expected the signature")


def test_a_changed_signature_never_says_more_than_the_sealed_one(signed: Path, mine: Pair) -> None:
    """One bit of any byte: refused in a line; where it is still good, what was changed says nothing."""
    path, good = beside(signed), beside(signed).read_bytes()
    manifest, key = cache.open(signed).manifest, signing_keys.read_public_key(mine.public)
    passed = 0
    for at in range(len(good)):
        data = bytearray(good)
        data[at] ^= 1
        try:
            signature.check_signature(bytes(data), manifest, key, str(path))
            passed += 1
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - of those that are raised
    # Names of what is not read (tlogEntries, keyid), spaces, and bits of base64 that stand for nothing.
    assert passed < 50 < len(good)
    signature.check_signature(good, manifest, key, str(path))


def break_up(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def broken(data: bytes) -> bytes:
        made = json.loads(data)
        change(made)
        return encode_json(made)

    return broken


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "no JSON": lambda _: b"\xff\x00",
    "a list": lambda _: b"[]",
    "deep": lambda _: b"[" * 100_000,
    "cut": lambda data: data[:-20],
    "nothing in it": lambda _: b"{}",
    "another kind of bundle": break_up(lambda made: made.update(mediaType="application/json")),
    "another kind of payload": break_up(lambda made: made["dsseEnvelope"].update(payloadType="text/plain")),
    "no signature": break_up(lambda made: made["dsseEnvelope"].update(signatures=[])),
    "two signatures": break_up(lambda made: made["dsseEnvelope"].update(signatures=2 * made["dsseEnvelope"]["signatures"])),
    "a signature of a number": break_up(lambda made: made["dsseEnvelope"].update(signatures=[{"sig": 3}])),
    "an empty signature": break_up(lambda made: made["dsseEnvelope"].update(signatures=[{"sig": ""}])),
    "no key": break_up(lambda made: made.update(verificationMaterial={})),
    "a certificate": break_up(lambda made: made.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}})),
    "another statement": break_up(lambda made: made["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode())),
    "a payload of no text": break_up(lambda made: made["dsseEnvelope"].update(payload=[1])),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_signature(signed: Path, mine: Pair, name: str) -> None:
    beside(signed).write_bytes(BROKEN[name](beside(signed).read_bytes()))
    refusal(signed, mine, f"{beside(signed)}: expected a signature by key")


def test_a_signature_that_is_no_file_of_its_size(signed: Path, mine: Pair) -> None:
    beside(signed).write_bytes(b" " * ((1 << 20) + 1))
    refusal(signed, mine, "at most 1 MiB, found a larger file")
    beside(signed).unlink()
    beside(signed).mkdir()
    refusal(signed, mine, "found nothing")
    beside(signed).rmdir()
    os.mkfifo(beside(signed))  # nobody waits for what comes out of it
    refusal(signed, mine, "found nothing")


STATEMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no statement": lambda _: [],
    "another type of statement": lambda made: {**made, "_type": "https://in-toto.io/Statement/v0.1"},
    "another predicate": lambda made: {**made, "predicateType": "https://slsa.dev/provenance/v1"},
    "no resources": lambda made: {**made, "predicate": {"root": made["predicate"]["root"]}},
    "resources without a manifest": lambda made: {**made, "predicate": {"resources": [
        {"name": "x/manifest.json", "algorithm": "sha256", "digest": made["predicate"]["resources"][0]["digest"]},
    ]}},
    "two manifests": lambda made: {**made, "predicate": {"resources": 2 * made["predicate"]["resources"]}},
    "a digest of a number": lambda made: {**made, "predicate": {"resources": [
        {"name": "manifest.json", "algorithm": "sha256", "digest": 3},
    ]}},
}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_good_signature_of_something_else(signed: Path, mine: Pair, name: str) -> None:
    sign_anything(signed, mine, encode_json(STATEMENTS[name](statement_of(signed))))
    refusal(signed, mine, f"{beside(signed)}: expected a signed statement about a cache")


def test_a_digest_of_another_algorithm_is_another_cache(signed: Path, mine: Pair) -> None:
    made = statement_of(signed)
    made["predicate"]["resources"][0]["algorithm"] = "blake3"
    sign_anything(signed, mine, encode_json(made))
    refusal(signed, mine, "found one of another cache")


def test_what_people_are_told_beside_decides_nothing(signed: Path, mine: Pair) -> None:
    """The root in words of another cache: the manifest's digest is what counts."""
    other = describe_statement(cache.open(signed).manifest, "x")
    other["predicate"]["resources"][0]["digest"] = "0" * 64
    sign_anything(signed, mine, encode_json(other))
    refusal(signed, mine, "found one of another cache")


def test_damage_is_found_under_a_good_signature(signed: Path, mine: Pair, run: Run, capsys: Capture) -> None:
    flip(signed / "data.zarr/logits/c/0/0/0", 5)
    command = ("cache", "verify", "dump", "--signed-by", str(mine.public))
    line = refused(run, capsys, signed.parent, *command)
    assert "others: damaged files: 1" in line
    with pytest.raises(InputError, match=r"expected its sealed bytes|expected the chunk"):
        runs.sign_cache(signed, mine.private)


def test_a_forged_manifest_is_found_with_all_its_digests_right(signed: Path, mine: Pair) -> None:
    """Whoever has the folder can make it whole again, but not sign it."""
    entries = json.loads((signed / "manifest.json").read_bytes())
    entries.pop("root")
    entries["teacher"]["test_accuracy"] = 1.0
    (signed / "manifest.json").write_bytes(encode_json({**entries, "root": hash_json(entries)}))
    refusal(signed, mine, "what this one was before it changed")


# ------------------------------------------------------------------ keys


KEYS: dict[str, Callable[[Path], Path]] = {
    "no such file": lambda folder: folder / "none.pem",
    "a folder": lambda folder: folder,
    "no key": lambda folder: _write(folder / "x.pem", b"hello"),
    "a public one": lambda folder: _write(folder / "x.pem", write_pair(folder, "x").public.read_bytes()),
    "with a passphrase": lambda folder: (
        write_pair(folder, "x", encryption=serialization.BestAvailableEncryption(b"secret")).private
    ),
    "of another kind": lambda folder: write_pair(folder, "x", ed25519.Ed25519PrivateKey.generate()).private,
    "RSA": lambda folder: write_pair(folder, "x", rsa.generate_private_key(65537, 2048)).private,
    "of another curve": lambda folder: write_pair(folder, "x", ec.generate_private_key(ec.SECP256K1())).private,
}


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_signs_nothing(tmp_path: Path, run: Run, capsys: Capture, name: str) -> None:
    write(tmp_path)
    key = KEYS[name](tmp_path)
    line = refused(run, capsys, tmp_path, "cache", "sign", "dump", "--key", str(key))
    assert line.startswith(f"error: {key}: expected a")
    assert "secret" not in line
    assert not beside(tmp_path / "dump").exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_that_others_can_read(tmp_path: Path, mine: Pair, mode: int) -> None:
    write(tmp_path)
    mine.private.chmod(mode)
    with pytest.raises(InputError, match=rf"only you can read, found mode {mode:03o}; chmod 600 {mine.private}"):
        runs.sign_cache(tmp_path / "dump", mine.private)
    assert not beside(tmp_path / "dump").exists()
    mine.private.chmod(0o400)
    runs.sign_cache(tmp_path / "dump", mine.private)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda folder, _: folder / "none.pub", "no such file"),
        (lambda folder, _: folder, "a folder"),
        (lambda folder, _: _write(folder / "x", b"hello"), "none"),
        (lambda _, pair: pair.private, "none"),
        (lambda folder, _: write_pair(folder, "x", ed25519.Ed25519PrivateKey.generate()).public, "another kind"),
    ],
)
def test_a_key_that_nobody_signs_with(signed: Path, mine: Pair, make: Callable[[Path, Pair], Path], found: str) -> None:
    path = make(signed.parent, mine)
    refusal(signed, Pair(mine.private, path), f"{path}: expected a", f"found {found}")


def test_without_the_package_a_line_names_the_extra(
    signed: Path, mine: Pair, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Capture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for command in (("sign", "dump", "--key", str(mine.private)), ("verify", "dump", "--signed-by", str(mine.public))):
        line = refused(run, capsys, signed.parent, "cache", *command)
        assert line == (
            "error: signatures: expected the package cryptography, found none; pip install 'teachercache[sign]'\n"
        )
    assert run(signed.parent, "cache", "verify", "dump") == 0


# ------------------------------------------------------------------ as a user has it


def test_a_signed_cache_of_a_study(run: Run, capsys: Capture, copy_of: Path, mine: Pair) -> None:
    before = tree(copy_of / DUMP)
    assert run(copy_of, "cache", "sign", DUMP, "--key", str(mine.private)) == 0
    root = cache.open(copy_of / DUMP).manifest.root
    assert f"{DUMP}.sig.json: written: root {root[:12]} signed with key " in capsys.readouterr().out
    assert tree(copy_of / DUMP) == before
    assert run(copy_of, "cache", "verify", DUMP, "--signed-by", str(mine.public)) == 0
    signed_line, whole_line = capsys.readouterr().out.splitlines()
    assert signed_line.startswith(f"{DUMP}: root {root[:12]} is signed by key ")
    assert whole_line.startswith(f"{DUMP}: whole: ")
    assert run(copy_of, "cache", "verify", DUMP, "--signed-by", str(mine.public), "--sample", "1%", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["signed_by"] == hashlib.sha256(mine.public.read_bytes()).hexdigest()
    assert run(copy_of, "train-student", "kd") == 0  # a signature beside a cache is no file of it
    capsys.readouterr()
    assert run(copy_of, "cache", "verify", DUMP, "--json") == 0
    assert "signed_by" not in json.loads(capsys.readouterr().out)


@contextmanager
def in_memory(folder: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/shared", recursive=True)
    try:
        yield "memory://shared"
    finally:
        memory.rm("/shared", recursive=True)


def test_over_a_url(signed: Path, mine: Pair, tmp_path: Path) -> None:
    other = write_pair(tmp_path, "other")
    (tmp_path / "shared").mkdir()
    shutil.copytree(signed, tmp_path / "shared/dump")
    shutil.copytree(signed, tmp_path / "shared/unsigned")
    shutil.copy(beside(signed), tmp_path / "shared/dump.sig.json")
    write(tmp_path / "b", dtype="float16")
    shutil.copytree(tmp_path / "b/dump", tmp_path / "shared/stale")
    shutil.copy(beside(signed), tmp_path / "shared/stale.sig.json")

    def check(url: str) -> None:
        assert runs.verify_cache(f"{url}/dump", signed_by=mine.public).values["signature"] == f"{url}/dump.sig.json"
        assert runs.verify_cache(f"{url}/dump/", signed_by=mine.public).values["signed_by"]
        refusal(f"{url}/dump", other, "found one by another key")
        refusal(f"{url}/unsigned", mine, f"{url}/unsigned.sig.json: expected the signature", "found nothing")
        refusal(f"{url}/stale", mine, "found one of another cache")
        with pytest.raises(InputError, match="expected a folder of this machine to sign, found a URL"):
            runs.sign_cache(f"{url}/dump", mine.private)

    with in_memory(tmp_path / "shared") as url:
        check(url)
    with with_ranges(tmp_path / "shared") as served:
        check(served.url)
        served.requests.clear()
        with pytest.raises(InputError):
            runs.verify_cache(f"{served.url}/dump", signed_by=other.public)
        assert {each.path for each in served.requests} == {"/dump/manifest.json", "/dump.sig.json"}  # and no data


def test_a_signature_travels_with_its_cache(signed: Path, mine: Pair, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store/dump'}"
    pushed = runs.push_cache(signed, url)
    assert pushed.text[1] == f"{url}.sig.json: its signature was sent, too"
    assert (tmp_path / "store/dump.sig.json").read_bytes() == beside(signed).read_bytes()
    assert runs.verify_cache(url, signed_by=mine.public).values["whole"]
    for number, name in enumerate(["new", "new"]):  # the second time only the signature is missing
        pulled = runs.pull_cache(url, tmp_path / name)
        assert pulled.text[1] == f"{tmp_path / name}.sig.json: its signature was fetched, too"
        assert bool(pulled.values["fetched_bytes"]) == (number == 0)
        assert runs.verify_cache(tmp_path / name, signed_by=mine.public).values["whole"]
        beside(tmp_path / name).unlink()
    (tmp_path / "store/dump.sig.json").unlink()
    assert len(runs.pull_cache(url, tmp_path / "unsigned").text) == 1
    assert not beside(tmp_path / "unsigned").exists()


@pytest.mark.parametrize("data", [b"", b"hello", b" " * ((1 << 20) + 1), b"{}"])
def test_a_signature_of_something_else_stays_where_it_is(signed: Path, mine: Pair, tmp_path: Path, data: bytes) -> None:
    url = f"file://{tmp_path / 'store/dump'}"
    good = beside(signed).read_bytes()
    beside(signed).write_bytes(data)
    assert "it was left behind" in str(runs.push_cache(signed, url).text[1])
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["dump"]
    (tmp_path / "store/dump.sig.json").write_bytes(data)
    assert "it was left behind" in str(runs.pull_cache(url, tmp_path / "new").text[1])
    assert not beside(tmp_path / "new").exists()
    write(tmp_path / "b", dtype="float16")
    shutil.copytree(tmp_path / "b/dump", tmp_path / "other")
    beside(tmp_path / "other").write_bytes(good)
    assert "it was left behind" in str(runs.push_cache(tmp_path / "other", f"{url}2").text[1])


class Silent(Plain):
    """A server that has trouble with signatures alone."""

    def send_head(self) -> Any:
        return self.send_error(503) if "sig" in self.path else super().send_head()


def test_a_server_in_trouble_is_no_missing_signature(
    signed: Path, mine: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cache.remote_errors.time.sleep", lambda _: None)
    with over_http(signed.parent, Silent, []) as served:
        with pytest.raises(NotNowError, match="expected to read it"):
            runs.verify_cache(f"{served.url}/dump", signed_by=mine.public)
        pulled = runs.pull_cache(f"{served.url}/dump", tmp_path / "new")
    assert str(pulled.text[1]).startswith("whether it is signed is not known: ")
    assert cache.open(tmp_path / "new").manifest.root == pulled.values["root"]


def test_git_keeps_signatures(tmp_path: Path, run: Run, study: dict[str, Any]) -> None:
    write_study(tmp_path, study)
    shell(tmp_path, "git init -q")
    assert run(tmp_path, "graph") == 0
    ignored = [
        name for name in ("big-logits", "big-logits.sig.json", "api.dvc")
        if subprocess.run(["git", "check-ignore", "-q", f"data/cache/{name}"], cwd=tmp_path, check=False).returncode == 0
    ]  # fmt: skip
    assert ignored == ["big-logits"]
