"""What trained students take, and which is the smallest that is right often enough."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import runs
from pipeline.base.errors import InputError
from pipeline.base.files import read_json, write_json
from pipeline.study.params_file import read_params
from tests.conftest import Capture, Run, copied, shell, write_study

SMALL = {
    "model": {"name": "mlp", "widths": [4]},
    "epochs": 1,
    "batch_size": 50,
    "peers": 2,
    "losses": {"mutual_kl": {}},
}


@pytest.fixture(scope="module")
def several(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder with a smaller student beside its two, and one that is not trained."""
    from tests.conftest import STUDY

    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("several") / "study"))
    study = copied(STUDY)
    study["students"] |= {"small": copied(SMALL), "later": copied(SMALL)}
    write_study(folder, study)
    shell(folder, "teachercache train-student small")
    return folder


@pytest.fixture
def folder(several: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(several, tmp_path / "several"))


def measure(folder: Path, *names: str, **options: Any) -> runs.Result:
    return runs.measure_costs(runs.open_study(folder / "params.yaml"), names, "cpu", repeats=2, **options)


def set_accuracies(folder: Path, accuracies: Mapping[str, float]) -> None:
    for name, mean in accuracies.items():
        path = folder / f"data/metrics/students/{name}.json"
        metrics = read_json(path, "")
        write_json(path, {**metrics, "test_accuracy": {**metrics["test_accuracy"], "mean": mean}})


def test_sizes_are_counted_and_accuracies_are_those_of_the_metrics(folder: Path) -> None:
    found = measure(folder).values["students"]
    assert list(found) == ["baseline", "kd", "small"]
    metrics = {name: json.loads((folder / f"data/metrics/students/{name}.json").read_text()) for name in found}
    for key in ("test_accuracy", "parameters", "bits", "multiply_adds", "activation_bytes"):
        assert {name: each[key] for name, each in found.items()} == {name: each[key] for name, each in metrics.items()}
    assert found["small"]["multiply_adds"] == 64 * 4 + 4 * 10
    assert found["kd"]["test_accuracy"]["n"] == 2


def test_latencies_are_of_one_image_and_of_many(folder: Path) -> None:
    found = measure(folder).values["students"]
    for each in found.values():
        assert each["latency"].keys() == {"1", "128"}
        assert all(0 < latency["low"] <= latency["median"] <= latency["high"] for latency in each["latency"].values())


@pytest.mark.parametrize(
    ("accuracy", "name", "line"),
    [
        (0.95, "small", "smallest that reaches 0.95: small, 0.9500, 296 multiply-adds, 310 parameters"),
        (0.951, "kd", "smallest that reaches 0.951: kd, 0.9800, 592 multiply-adds, 610 parameters"),
        (0.99, None, "none reaches 0.99; the nearest is kd, 0.9800, 0.0100 short of it"),
    ],
)
def test_the_smallest_that_reaches_an_accuracy(folder: Path, accuracy: float, name: str | None, line: str) -> None:
    """Of two students of one size the more accurate."""
    set_accuracies(folder, {"baseline": 0.97, "kd": 0.98, "small": 0.95})
    found = measure(folder, accuracy=accuracy)
    assert found.values["smallest"] == {"digits": name}
    assert found.text[-1] == line


def test_each_data_set_has_its_smallest(folder: Path) -> None:
    from tests.conftest import STUDY

    study = copied(STUDY)
    study["datasets"]["other"] = {**study["datasets"]["digits"], "train": {"first": 150}}
    study["students"] |= {"small": copied(SMALL), "elsewhere": {**copied(SMALL), "dataset": "other"}}
    for section in ("teachers", "students"):
        for each in study[section].values():
            each.setdefault("dataset", "digits")
    write_study(folder, study)
    shell(folder, "teachercache prepare other && teachercache train-student elsewhere")
    set_accuracies(folder, {"baseline": 0.97, "kd": 0.98, "small": 0.95, "elsewhere": 0.9})
    found = measure(folder, accuracy=0.96)
    assert found.values["smallest"] == {"digits": "kd", "other": None}
    assert [str(line) for line in found.text[-2:]] == [
        "smallest that reaches 0.96 on digits: kd, 0.9800, 592 multiply-adds, 610 parameters",
        "none reaches 0.96 on other; the nearest is elsewhere, 0.9000, 0.0600 short of it",
    ]


def test_no_accuracy_is_looked_for_unless_it_is_given(folder: Path) -> None:
    found = measure(folder, "kd")
    assert found.values.keys() == {"machine", "students"}
    assert re.fullmatch(r"latency: median of 2 passes \(quartiles\), cpu, \d+ threads", str(found.text[-1]))


def test_threads_are_those_that_are_asked_for_and_then_as_before(folder: Path) -> None:
    before = torch.get_num_threads()
    assert measure(folder, "kd", threads=before + 1).values["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_who_is_not_trained_is_left_out_and_named(folder: Path) -> None:
    assert measure(folder).notes == ("not trained, and left out: later",)
    with pytest.raises(InputError, match=r"students/later/.*run `teachercache train-student later`"):
        measure(folder, "kd", "later")
    shutil.rmtree(folder / "data/students")
    with pytest.raises(InputError, match=r"params.yaml: students: expected at least one that is trained, found none"):
        measure(folder)


def test_a_grid_s_name_stands_for_its_members(folder: Path) -> None:
    study = read_params(folder / "params.yaml")
    study["students"]["wide"] = {**copied(SMALL), "grid": {"batch_size": [50, 100]}}
    write_study(folder, study)
    shell(folder, "teachercache train-student wide")
    found = measure(folder, "kd", "wide", "wide-batch_size-50").values["students"]
    assert list(found) == ["kd", "wide-batch_size-50", "wide-batch_size-100"]


def test_metrics_of_another_run_are_refused(folder: Path) -> None:
    path = folder / "data/metrics/students/kd.json"
    metrics = read_json(path, "")
    write_json(path, {**metrics, "weights_sha256": ["f" * 64, *metrics["weights_sha256"][1:]]})
    with pytest.raises(InputError, match=r"student 'kd': expected the weights that its metrics name, ffffffffffff"):
        measure(folder, "kd")


def test_the_command(run: Run, capsys: Capture, folder: Path) -> None:
    set_accuracies(folder, {"baseline": 0.97, "kd": 0.98})
    assert run(folder, "cost", "kd", "baseline", "kd", "--accuracy", "0.9", "--repeats", "2", "--threads", "1") == 0
    shown = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:8]] for row in rows] == [
        ["kd", "0.9800", rows[0][2].strip(), "2", "610", "19,520", "592", "288"],
        ["baseline", "0.9700", rows[1][2].strip(), "2", "610", "19,520", "592", "288"],
    ]
    assert shown.endswith("smallest that reaches 0.9: kd, 0.9800, 592 multiply-adds, 610 parameters\n")
    assert run(folder, "cost", "--accuracy", "0.99", "--repeats", "1", "--json") == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["smallest"] == {"digits": None}
    assert answer.err == "note: not trained, and left out: later\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nobody", "students: unknown name 'nobody'"),
        ("later", "run `teachercache train-student later`"),
        ("kd --accuracy 97", "--accuracy"),
        ("kd --repeats 0", "--repeats"),
        ("kd --threads 0", "--threads"),
        ("kd --threads 100000", "--threads"),  # more than a system starts: OpenMP would end the process
        ("kd --device tpu", "--device"),
    ],
)
def test_what_is_refused(run: Run, capsys: Capture, folder: Path, arguments: str, message: str) -> None:
    assert run(folder, "cost", *arguments.split()) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
