"""Parts of a dump that share no disk: joined they are the bytes of one process, and nothing else is joined."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import runs
from pipeline.base.errors import InputError
from pipeline.base.files import hash_file
from pipeline.dumps.parts import PART_FILE, Part
from tests.conftest import Capture, Run, refused, write_study
from tests.scenes import tree

STUDY: dict[str, Any] = {
    "datasets": {"digits": {"source": "digits"}},
    "views": {"policy": "crop_flip", "count": 2, "padding": 1},
    "teachers": {"big": {"model": {"name": "mlp", "widths": [6, 700]}, "epochs": 1}},
    "dumps": {
        "logits": {"field": "logits", "of": "big", "batch": 16},
        "top": {"field": "logits", "of": "big", "top_k": 3, "temperature": 4.0, "batch": 16, "format": "hdf5"},
        "hints": {"field": "hints", "of": "big", "taps": ["features"], "batch": 16, "codec": "zstd", "chunk_kib": 16},
        "p": {"field": "affinities", "of": "big", "batch": 16, "batch_size": 50, "perplexity": 10.0},
    },
    "students": {"kd": {"model": {"name": "mlp", "widths": [8]}, "epochs": 1, "losses": {"ce": {}}}},
}
ROWS = ("logits", "top", "hints")
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its dumps, and three parts of each."""
    folder = write_study(tmp_path_factory.mktemp("parts"), STUDY)
    study = runs.open_study(folder / "params.yaml")
    runs.prepare_dataset(study, "digits")
    runs.train_teacher(study, "big", "cpu")
    runs.make_dumps(study, "big", "cpu", dumps=ROWS)
    for number in (2, 3, 1):
        runs.make_dumps(study, "big", "cpu", dumps=ROWS, part=runs.read_part(f"{number}/3"))
    return folder


@pytest.fixture
def parts(parted: Path, tmp_path: Path) -> list[Path]:
    """Copies of the parts of logits."""
    return [
        Path(shutil.copytree(parted / f"data/cache/logits.part-{number}-of-3", tmp_path / f"part-{number}"))
        for number in (3, 1, 2)
    ]


@pytest.mark.parametrize("name", ROWS)
def test_joined_they_are_the_bytes_of_one_process(parted: Path, tmp_path: Path, name: str) -> None:
    parts = [parted / f"data/cache/{name}.part-{number}-of-3" for number in (3, 1, 2)]
    before = [tree(part) for part in parts]
    made = runs.merge_parts(parts, tmp_path / name)
    assert tree(tmp_path / name) == tree(parted / "data/cache" / name)
    assert made.values["root"] == json.loads((tmp_path / name / "manifest.json").read_text())["root"]
    assert [tree(part) for part in parts] == before
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_part_holds_its_share_alone(parts: list[Path]) -> None:
    sizes = [len(json.loads((part / PART_FILE).read_text())["files"]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert [len([*part.rglob("*.raw")]) for part in parts] == sizes
    names = [set(json.loads((part / PART_FILE).read_text())["files"]) for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]


def damage(part: Path) -> None:
    file = next(iter(sorted(part.rglob("*.raw"))))
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)


def remove(part: Path) -> None:
    next(iter(sorted(part.rglob("*.raw")))).unlink()


def rewrite(part: Path, **entries: Any) -> None:
    file = part / PART_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def lead_out(part: Path) -> None:
    files = json.loads((part / PART_FILE).read_text())["files"]
    rewrite(part, files={"../../x.raw": next(iter(files.values()))})


def shorten(part: Path) -> None:
    file = min(part.rglob("*.raw"))
    file.write_bytes(file.read_bytes()[:-4])
    files = json.loads((part / PART_FILE).read_text())["files"]
    rewrite(part, files={**files, file.relative_to(part).as_posix(): hash_file(file)})


def replace_by_pipe(part: Path) -> None:
    file = min(part.rglob("*.raw"))
    file.unlink()
    os.mkfifo(file)


HOSTILE = {
    "a flipped bit": (damage, "expected SHA-256 .* found another; copy the part again"),
    "a missing file": (remove, "expected a file of the part, found nothing"),
    "no description": (lambda part: (part / PART_FILE).unlink(), r"part\.json.* found nothing; copy the part again"),
    "no JSON": (lambda part: (part / PART_FILE).write_text("{"), "expected JSON"),
    "another dump": (lambda part: rewrite(part, rows=1436), "expected a part of the dump that .* found one of another"),
    "another version": (lambda part: rewrite(part, version=2), r"part\.json: version"),
    "a path that leads out": (lead_out, r"part\.json: files"),
    "an unknown key": (lambda part: rewrite(part, more=1), r"part\.json: more"),
    "a file that it does not list": (lambda part: rewrite(part, files={}), "files: expected those of its segments"),
    "no arrays": (lambda part: rewrite(part, arrays={}), r"part\.json: arrays"),
    "rows of nothing": (
        lambda part: rewrite(part, arrays={"logits": {"row_shape": [0], "dtype": "float16", "codec": "none"}}),
        r"part\.json: arrays",
    ),
    "ten thousand million parts": (lambda part: rewrite(part, count=10**10), r"part\.json: count"),
    "no such description": (lambda part: rewrite(part, description={"field": 1}), r"part\.json: description"),
    "a short piece, vouched for": (shorten, "expected whole pieces"),
    "a pipe": (replace_by_pipe, "expected a file of the part, found a pipe"),
    "a number twice": (lambda part: rewrite(part, number=3), "expected each of 3, once, found no part 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_part_is_refused_and_nothing_is_left(parts: list[Path], tmp_path: Path, case: str) -> None:
    harm, message = HOSTILE[case]
    harm(parts[1])
    with pytest.raises(InputError, match=message):
        runs.merge_parts(parts, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"part-1", "part-2", "part-3"}


def test_parts_of_another_version_of_the_code_are_refused(parts: list[Path], tmp_path: Path) -> None:
    for part in parts:
        rewrite(part, plan="blocks-cpu-0123456789abcdef")
    with pytest.raises(InputError, match="expected parts that this version of teachercache has made"):
        runs.merge_parts(parts, tmp_path / "joined")


def test_a_missing_part_is_named_and_an_old_place_is_left_alone(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected each of 3, once, found no part 2"):
        runs.merge_parts(parts[:2], tmp_path / "joined")
    (tmp_path / "joined").mkdir()
    with pytest.raises(InputError, match="expected a new folder"):
        runs.merge_parts(parts, tmp_path / "joined")


def test_affinities_need_all_rows(parted: Path, run: Run, capsys: Capture) -> None:
    told = refused(run, capsys, parted, "dump", "big", "p", "--part", "1/2", *CPU)
    assert "dump 'p': --part: expected a field with a row a sample" in told


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2", "1/99999", ""])
def test_what_is_no_part_of_a_whole_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--part: expected NUMBER/COUNT"):
        runs.read_part(text)


def test_a_part_of_a_whole() -> None:
    assert runs.read_part("2/3") == Part(2, 3)
    assert str(Part(2, 3)) == "2-of-3"
