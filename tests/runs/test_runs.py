"""What the commands call, called from Python: from any folder, and with values for what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import cache, runs
from pipeline.base.errors import InputError
from pipeline.base.files import work_in
from tests.conftest import Capture, Run, write_study
from tests.data_files import png

DUMP = "data/cache/big-logits"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder than any study's, where the process is."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_study_is_driven_from_another_folder(copy_of: Path, elsewhere: Path) -> None:
    study = runs.open_study(copy_of / "params.yaml")
    root = cache.open(copy_of / DUMP).manifest.root
    assert runs.make_dump(study, "big-logits").values == {"big-logits": root}
    assert runs.plan_dumps(study).values["big-logits"]["students"] == 2
    assert str(runs.export_student(study, "kd", "taken", seed=1)).startswith("taken: student kd, seed 1, weights ")
    assert Path.cwd() == elsewhere
    assert {path.name for path in elsewhere.iterdir()} == {"taken"}


def test_predictions_are_numbers_answers_and_a_table(copy_of: Path, elsewhere: Path) -> None:
    for name in ("a.png", "b.png"):
        (elsewhere / name).write_bytes(png(np.full((1, 8, 8), 90, np.uint8)))
    found = runs.predict_images("kd", ["a.png", "b.png"], params=copy_of / "params.yaml")
    assert found.logits.shape == (2, 10)
    answers = [*found.answers()]
    assert [each["class"] for each in answers] == [found.classes[each] for each in found.logits.argmax(1)]
    assert len(answers[0]["probabilities"]) == 10
    assert found.table().columns == ("file", "class", "probability", "runner-up")
    assert found.table(1).columns == ("file", "class", "probability")
    assert str(found.table(1)).splitlines()[1].startswith(f"a.png  {answers[0]['class']}")


def test_damage_is_a_value_and_a_copy_without_it_is_made_from_anywhere(copy_of: Path, elsewhere: Path) -> None:
    whole = runs.verify_cache(copy_of / DUMP)
    whole.refuse_damage()
    assert whole.values["problems"] == []
    assert str(runs.repair_cache(whole, elsewhere / "new")).startswith("nothing to repair")
    chunk = next(
        path for path in (copy_of / DUMP / "data.zarr/logits").rglob("*") if path.is_file() and path.name == "0"
    )
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    found = runs.verify_cache(copy_of / DUMP)
    assert not found.values["whole"]
    assert len(found.values["problems"]) == len(found.text) == 2
    with pytest.raises(InputError, match="damaged chunks: 1"):
        found.refuse_damage()
    assert runs.repair_cache(found, Path("new"), copy_of / "params.yaml").values == {"root": whole.manifest.root}
    assert runs.verify_cache(elsewhere / "new").values["whole"]


def test_what_differs_is_a_value(copy_of: Path, elsewhere: Path) -> None:
    made = runs.convert_cache(copy_of / DUMP, Path("other"), store="hdf5", dtype="float16")
    assert made.values["same_values"] is False
    found = runs.diff_caches(copy_of / DUMP, "other")
    assert found.values["same_values"] is False
    assert json.loads(json.dumps(found.values)).keys() >= {"entries", "arrays", "same_numbers"}
    assert str(found).startswith("manifest\nentry ")


def test_an_inspection_prints_what_the_command_does(run: Run, capsys: Capture, copy_of: Path) -> None:
    found = runs.inspect_cache(copy_of / DUMP)
    assert run(copy_of, "cache", "inspect", DUMP, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.values))
    assert "agreement with the labels" in str(found)


def test_a_result_shows_what_is_noted_and_warned_of() -> None:
    table = runs.Table("both", ("a", "long name"), [(1, "x"), (22, "y")])
    made = runs.Result({}, text=("done", table), notes=("left out: b",), warnings=("at chance",))
    assert str(made).splitlines() == [
        "note: left out: b", "warning: at chance", "done", "both", "a   long name", "1   x", "22  y",
    ]  # fmt: skip


@pytest.mark.parametrize("gone", ["before", "meanwhile"])
def test_a_run_needs_no_folder_to_go_back_to(copy_of: Path, elsewhere: Path, gone: str) -> None:
    if gone == "before":
        elsewhere.rmdir()
    study = runs.open_study(copy_of / "params.yaml")
    with work_in(copy_of):
        if gone == "meanwhile":
            elsewhere.rmdir()
    assert Path.cwd() == copy_of.resolve()
    assert runs.prepare_dataset(study, "digits").values["samples"]["train"] == 200


def test_a_study_in_a_folder_that_is_not_there_is_refused_by_its_path(copy_of: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(copy_of)
    with pytest.raises(InputError, match=r"nowhere/params.yaml: expected a study's parameters, found no such file"):
        runs.open_study("nowhere/params.yaml")


def test_what_is_doubtful_is_said_before_hours_are_spent(
    copy_of: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, run: Run
) -> None:
    card = json.loads((copy_of / "data/teachers/big/card.json").read_text())
    (copy_of / "data/teachers/big/card.json").write_text(json.dumps({**card, "doubt": "is no better than chance"}))

    def stop(*_: Any, **__: Any) -> None:
        raise InputError("stopped")

    monkeypatch.setattr("pipeline.runs.dumps.dump_fields", stop)
    assert run(copy_of, "dump-logits", "big-logits") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == ["warning: 'big', dumped as big-logits, is no better than chance", "error: stopped"]


def test_each_study_finds_its_own_modules(copy_of: Path, tmp_path: Path, study: dict[str, Any]) -> None:
    code = "from torch import nn\n\n\ndef net(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, {}), nn.Linear({}, 10))\n"
    study["students"] = {"own": {**study["students"]["baseline"], "seeds": 1, "model": {"name": "own_net:net"}}}
    found = {}
    for name, width in (("a", 3), ("b", 5), ("a", 3)):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(copy_of, folder)
            write_study(folder, study)
            (folder / "own_net.py").write_text(code.format(width, width))
        opened = runs.open_study(folder / "params.yaml")
        found[name] = runs.train_student(opened, "own").values["parameters"]
        assert found[name] == 65 * width + 10 * (width + 1)
    assert found["a"] != found["b"]


def test_parameters_may_be_a_link(copy_of: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared"
    elsewhere.mkdir()
    (copy_of / "params.yaml").rename(elsewhere / "base.yaml")
    (copy_of / "params.yaml").symlink_to(elsewhere / "base.yaml")
    study = runs.open_study(copy_of / "params.yaml")
    assert (study.folder, study.file) == (copy_of.resolve(), "params.yaml")
