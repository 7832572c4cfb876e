"""The folder of an exported student: written whole or not at all, and refused unless it is as it was written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_file, hash_json, hold_lock, remove_path, write_bytes
from pipeline.base.registry import AbsentError
from pipeline.export.card import CARD, FORMAT, GRAPH, PAGE, VERSION, WEIGHTS, format_card, is_own_code
from pipeline.models import MODELS
from pipeline.models.network import Network
from pipeline.models.network_files import load_network

MOST_BYTES = 8 << 20  # of a card
DEEPEST = 16  # nested values in it
MOST_VALUES = 1 << 28  # of one image
FIX = "get the folder again from who exported it"


def write_exported(target: Path, weights: Path, card: Mapping[str, Any], graph: bytes | None = None) -> None:
    """Write an exported student; the card comes last, with the digest of every other file and of itself.

    Args:
        target: a new folder, or an empty one.
        weights: the student's file; its bytes are taken as they are.
        card: what `card.described` gives.
        graph: of ONNX, where asked for.

    Raises:
        InputError: something is at the target, or the weights are not those of the card.
    """
    with create_folder(target) as folder:
        write_bytes(folder / WEIGHTS, weights.read_bytes())
        if graph is not None:
            write_bytes(folder / GRAPH, graph)
        write_bytes(folder / PAGE, format_card(card).encode())
        files = {path.name: hash_file(path) for path in folder.iterdir()}
        if files[WEIGHTS] != card["weights_sha256"]:
            raise InputError(str(weights), expected=f"SHA-256 {card['weights_sha256'][:12]}...", found="another")
        entries = {**card, "files": files}
        write_bytes(folder / CARD, encode_json({**entries, "root": hash_json(entries)}))


@contextmanager
def create_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the target when the block ends; after an error nothing is left of it.

    A killed process leaves its work, hidden beside the target, to the next one.

    Raises:
        InputError: something is at the target, or another process writes it.
    """
    target = refuse_occupied(target)
    work = target.parent / f".{target.name}.work"
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            str(target), expected="a folder that can be made", found=str(error.strerror), fix="choose another"
        ) from None
    with hold_lock(work / "lock"):
        remove_path(work / "out")
        (work / "out").mkdir()
        try:
            yield work / "out"
            refuse_occupied(target)
            (work / "out").rename(target)  # which fails where somebody has put something since
        finally:
            remove_path(work)


def refuse_occupied(target: Path) -> Path:
    """The target's absolute path.

    Raises:
        InputError: something is there, or it lies inside a cache or a network's folder, which hold their own files
            and nothing else.
    """
    fix = "choose another, or remove what is there"
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(str(target), expected="a new folder", found="something that is there", fix=fix)
    if target.is_dir() and any(target.iterdir()):
        raise InputError(str(target), expected="a new folder", found="one that is not empty", fix=fix)
    whole = target.resolve()
    for folder in whole.parents:
        if (folder / "manifest.json").exists() or (folder / CARD).exists():
            raise InputError(
                str(target), expected="a place of its own", found=f"the inside of {folder}", fix="choose another"
            )
    return whole


def load_exported(folder: Path, device: torch.device, *, own_code: bool = False) -> tuple[Network, dict[str, Any]]:
    """The network of an exported folder, in evaluation mode on `device`, and its card.

    Args:
        folder: which `write_exported` made; perhaps a stranger's.
        device: where the network goes.
        own_code: import an architecture that is its author's own function, and call it.

    Raises:
        InputError: no such folder, any byte of it is another than was written, or code that is not trusted.
    """
    card = read_card(folder)
    if is_own_code(card["model"]["name"]) and not own_code:
        raise InputError(
            str(folder / CARD),
            expected="an architecture of teachercache, torchvision or timm",
            found=f"code of its author's own: {card['model']['name']}",
            fix="with that module on PYTHONPATH, and if you trust it: --own-code (own_code=True)",
        )
    _refuse_absent(folder, card["model"]["name"])
    try:
        return load_network(folder, device, FIX)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - options that a stranger made up may fail anywhere in an architecture
        found = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(str(folder / CARD), expected="an architecture that can be built", found=found) from None


def _refuse_absent(folder: Path, model: str) -> None:
    """Raise InputError where the code of an architecture cannot be imported here."""
    try:
        MODELS.import_function(model)
    except AbsentError as error:
        raise InputError(
            str(folder / CARD),
            expected=f"module {model.partition(':')[0]!r}, which holds the student's architecture, to be importable",
            found=str(error).partition("; expected")[0],
            fix="install it, or put the folder that it lies in on PYTHONPATH",
        ) from None
    except ValueError:
        return  # no such name: said where the network is built


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an exported folder, all of whose files are as they were written.

    Raises:
        InputError: it is not.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(
            str(folder), expected="a folder made by `teachercache export`", found=f"no {CARD} in it", fix="name another"
        )
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        card = json.loads(data)
        _refuse_deep(card)
        _refuse_malformed(card)
        entries = {key: value for key, value in card.items() if key != "root"}
        unchanged = data == encode_json(card) and hash_json(entries) == card.get("root")
    except (ValueError, RecursionError) as error:
        raise InputError(
            str(path), expected="the card of an exported student", found=str(error)[:200], fix=FIX
        ) from None
    if not unchanged:
        raise InputError(str(path), expected="the bytes that were exported", found="a card changed since", fix=FIX)
    _refuse_other_files(folder, card["files"])
    return dict(card)


def _refuse_deep(value: Any, left: int = DEEPEST) -> None:
    """Raise ValueError for values nested so deep that writing them out would take far more room."""
    if not left:
        raise ValueError(f"values nested more than {DEEPEST} deep")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_deep(part, left - 1)


def _refuse_malformed(card: Any) -> None:
    """Raise ValueError for a card that no export has written."""
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError("a card of something else; name a student, or export it first")
    if card.get("version") != VERSION:
        raise ValueError(f"version {card.get('version')!r}, this teachercache reads {VERSION}")
    shape, classes, model, files = (card.get(key) for key in ("shape", "classes", "model", "files"))
    if not _is_shape(shape):
        raise ValueError("shape: expected three positive numbers")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: expected names")
    if len(set(classes)) != len(classes):
        raise ValueError("classes: expected names that differ")
    named = {WEIGHTS, PAGE, *([GRAPH] if "onnx" in card else [])}
    if not isinstance(files, dict) or files.keys() != named or card.get("weights_sha256") != files[WEIGHTS]:
        raise ValueError(f"files: expected {', '.join(sorted(named))}")
    if not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError("files: expected digests")
    if not isinstance(model, dict) or type(model.get("name")) is not str:
        raise ValueError("model: expected an architecture")


def _is_shape(value: Any) -> bool:
    """Whether this is (C, H, W) of an image that fits into memory."""
    sides = isinstance(value, list) and len(value) == 3 and all(type(side) is int and side > 0 for side in value)
    return sides and math.prod(value) <= MOST_VALUES


def _refuse_other_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, digest in sorted(files.items()):
        if not (folder / name).is_file():
            raise InputError(str(folder / name), expected="a file", found="nothing", fix=FIX)
        if hash_file(folder / name) != digest:
            raise InputError(str(folder / name), expected=f"SHA-256 {digest[:12]}...", found="another", fix=FIX)
