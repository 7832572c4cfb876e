"""A student that is trained from a cache at a URL: fetched once, pinned, the same result as from a folder."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.graph.stages import compile_stages
from pipeline.runs import pinned_caches
from pipeline.runs.pinned_caches import fetch_pinned
from pipeline.study.params_file import load_study, parse_study
from tests.cache.test_urls import Ranges, Request, Served, over_http
from tests.conftest import STUDY, Capture, Run, copied, refused, write_study

CPU = ("--device", "cpu")


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are kept."""
    monkeypatch.setenv(pinned_caches.FOLDER, str(tmp_path / "copies"))
    return tmp_path / "copies"


@pytest.fixture
def served(made: Path, tmp_path: Path) -> Iterator[Served]:
    """The study's caches at a URL."""
    shutil.copytree(made / "data/cache", tmp_path / "served")
    requests: list[Request] = []
    with over_http(tmp_path / "served", functools.partial(Ranges, requests=requests), requests) as there:
        yield there


def root_of(made: Path) -> str:
    return cache.open(made / "data/cache/big-logits").manifest.root


def study_at(url: str, made: Path) -> dict[str, Any]:
    """The study of somebody who has neither the teacher nor its dumps."""
    study: dict[str, Any] = copied(STUDY)
    weights = json.loads((made / "data/teachers/big/card.json").read_text())["weights_sha256"]
    study["teachers"] = {"big": {"external": weights, "dataset": "digits"}}
    study["dumps"] = {"big-logits": {"field": "logits", "of": "big", "at": url}}
    study.pop("report", None)
    return study


def somewhere_else(tmp_path: Path, made: Path, url: str) -> Path:
    folder = write_study(tmp_path / "else", study_at(url, made))
    shutil.copytree(made / "data/prepared", folder / "data/prepared")
    return folder


def test_it_is_trained_as_from_a_folder_and_nothing_is_fetched_twice(
    made: Path, served: Served, tmp_path: Path, run: Run
) -> None:
    root = root_of(made)
    folder = somewhere_else(tmp_path, made, f"{served.url}/big-logits#{root[:12]}")
    assert run(folder, "train-student", "kd", *CPU) == 0
    weights = "data/students/kd/seed-0/weights.safetensors"
    assert (folder / weights).read_bytes() == (made / weights).read_bytes()
    manifest = cache.open(made / "data/cache/big-logits").manifest
    size = sum(info.bytes for info in manifest.files.values())
    assert size <= sum(request.sent for request in served.requests) <= 1.2 * size + 100_000
    served.requests.clear()
    shutil.rmtree(folder / "data/students")
    assert run(folder, "train-student", "kd", *CPU) == 0
    assert served.requests == []
    assert not (folder / "data/cache").exists()


def test_the_stage_depends_on_what_params_say_of_it(made: Path) -> None:
    study = parse_study(study_at("https://example.org/big-logits#" + "a" * 64, made))
    (stage,) = (each for each in compile_stages(study) if each.name == "train-student-kd")
    assert "dumps.big-logits" in stage.params
    assert "teachers.big" in stage.params
    assert not any("cache" in str(path) for path in stage.deps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "https://example.org/x"}, "dumps.big-logits.at: expected URL#root"),
        ({"at": "https://example.org/x#abc"}, "dumps.big-logits.at"),
        ({"at": "/a/folder#" + "a" * 64}, "dumps.big-logits.at"),
        ({"batch": 64}, "dumps.big-logits.batch: the cache at the URL has its own"),
        ({"format": "hdf5"}, "dumps.big-logits.format: the cache at the URL has its own"),
    ],
)
def test_what_is_not_pinned_is_refused(made: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    study = study_at("https://example.org/x#" + "a" * 64, made)
    study["dumps"]["big-logits"] |= change
    with pytest.raises(InputError, match=message):
        load_study(write_study(tmp_path, study) / "params.yaml")


def test_a_teacher_that_is_trained_here_has_its_dumps_here(made: Path, tmp_path: Path) -> None:
    study = study_at("https://example.org/x#" + "a" * 64, made)
    study["teachers"] = copied(STUDY["teachers"])
    with pytest.raises(InputError, match=r"dumps\.big-logits\.at: expected a teacher that is known by its outputs"):
        load_study(write_study(tmp_path, study) / "params.yaml")


def test_another_cache_than_is_pinned_is_refused(
    made: Path, served: Served, tmp_path: Path, run: Run, capsys: Capture, copies: Path
) -> None:
    folder = somewhere_else(tmp_path, made, f"{served.url}/big-logits#{'0' * 64}")
    told = refused(run, capsys, folder, "train-student", "kd", *CPU)
    assert "root: expected 000000000000" in told
    assert [path.name for path in copies.iterdir()] == ["room.lock"]


def test_another_cache_in_the_place_of_a_copy_is_refused(
    made: Path, tmp_path: Path, run: Run, capsys: Capture, copies: Path
) -> None:
    root = root_of(made)
    folder = somewhere_else(tmp_path, made, f"https://example.org/big-logits#{root}")
    assert (
        run(folder, "cache", "convert", str(made / "data/cache/big-logits"), str(copies / root), "--codec", "zstd") == 0
    )
    told = refused(run, capsys, folder, "train-student", "kd", *CPU)
    assert "root: expected" in told
    assert f"delete {copies / root}" in told


def test_a_damaged_copy_says_how_to_get_another(
    made: Path, served: Served, tmp_path: Path, run: Run, capsys: Capture, copies: Path
) -> None:
    root = root_of(made)
    folder = somewhere_else(tmp_path, made, f"{served.url}/big-logits#{root}")
    assert run(folder, "train-student", "kd", *CPU) == 0
    (copies / root / "card.md").write_text("another")
    assert f"delete {copies / root}, and it is fetched again" in refused(
        run, capsys, folder, "train-student", "kd", *CPU
    )
    shutil.rmtree(copies / root)
    assert run(folder, "train-student", "kd", *CPU) == 0


def test_a_short_pin_of_two_copies_and_a_limit_that_is_none_are_refused(
    made: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in "ab":
        shutil.copytree(made / "data/cache/big-logits", copies / ("0" * 63 + end))
    with pytest.raises(InputError, match="expected one cache that begins so"):
        fetch_pinned(f"https://example.org/x#{'0' * 12}")
    monkeypatch.setenv(pinned_caches.LIMIT, "much")
    with pytest.raises(InputError, match=pinned_caches.LIMIT):
        fetch_pinned(f"https://example.org/x#{'0' * 12}")


def test_passwords_are_not_told(made: Path, tmp_path: Path) -> None:
    study = study_at("https://me:SECRET@example.org/x#abc", made)
    with pytest.raises(InputError) as refusal:
        load_study(write_study(tmp_path, study) / "params.yaml")
    assert "SECRET" not in str(refusal.value)


@pytest.mark.parametrize("name", ["data.zarr/logits/c/0/0/0", "chunks.bin", "card.md"])
def test_a_changed_object_is_refused_and_no_half_copy_is_there(
    made: Path, served: Served, tmp_path: Path, run: Run, capsys: Capture, copies: Path, name: str
) -> None:
    served.flip(f"big-logits/{name}", 1)
    folder = somewhere_else(tmp_path, made, f"{served.url}/big-logits#{root_of(made)}")
    assert "big-logits" in refused(run, capsys, folder, "train-student", "kd", *CPU)
    assert not (copies / root_of(made)).exists()
    served.flip(f"big-logits/{name}", 1)
    assert run(folder, "train-student", "kd", *CPU) == 0


def test_what_the_study_expects_is_checked_as_ever(
    made: Path, served: Served, tmp_path: Path, run: Run, capsys: Capture
) -> None:
    study = study_at(f"{served.url}/big-logits#{root_of(made)}", made)
    study["teachers"]["big"]["external"] = "0" * 64
    folder = write_study(tmp_path / "else", study)
    shutil.copytree(made / "data/prepared", folder / "data/prepared")
    assert run(folder, "train-student", "kd", *CPU) == 2
    noted, error = capsys.readouterr().err.strip().splitlines()[-2:]
    assert noted.startswith("note: ")
    assert "were fetched" in noted
    assert error.startswith("error: ")
    assert "teacher.weights_sha256 expected 0000" in error


def test_several_that_ask_at_once_fetch_it_once(made: Path, served: Served) -> None:
    url = f"{served.url}/big-logits#{root_of(made)}"
    with ThreadPoolExecutor(6) as pool:
        found = {*pool.map(lambda _: fetch_pinned(url), range(6))}
    assert len(found) == 1
    data = [request for request in served.requests if "/c/0" in request.path]
    assert sum(request.sent for request in data) <= 2 * (found.pop() / "data.zarr/logits/c/0/0/0").stat().st_size


def test_copies_that_nobody_asks_for_make_room(
    made: Path, served: Served, copies: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{served.url}/big-logits#{root_of(made)}"
    monkeypatch.setenv(pinned_caches.LIMIT, "1KB")
    for name, age in (("f" * 64, 2 * pinned_caches.IN_USE), ("e" * 64, 60.0)):
        shutil.copytree(made / "data/cache/big-logits", copies / name)
        os.utime(copies / name, (time.time() - age,) * 2)
    here = fetch_pinned(url)
    assert {path.name for path in copies.iterdir() if path.is_dir()} == {here.name, "e" * 64}
    assert "more than TEACHERCACHE_COPIES_LIMIT=1 kB" in caplog.text
