"""Grids: one section that stands for a student at each point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.base.files import read_json
from pipeline.graph.stages import compile_stages
from pipeline.study.params_file import parse_study
from pipeline.study.sections import Study
from tests.conftest import Capture, Run, refused, write_study

GRID = {"losses.soft_targets.weight": [0.1, 0.5], "optimizer.lr": [0.003, 0.01, 1e-05]}


def with_grid(study: dict[str, Any], grid: Any, **changes: Any) -> dict[str, Any]:
    base = {**study["students"]["kd"], "optimizer": {"name": "adam", "lr": 0.01}, **changes}
    return {**study, "students": {**study["students"], "many": {**base, "grid": grid}}}


def parsed(study: dict[str, Any]) -> Study:
    return parse_study(study)


def test_each_point_is_a_student_of_its_own(study: dict[str, Any]) -> None:
    made = parsed(with_grid(study, GRID))
    names = [f"many-weight-{weight}-lr-{rate}" for weight in ("0_1", "0_5") for rate in ("0_003", "0_01", "1e-05")]
    assert [name for name in made.students if name.startswith("many")] == names
    assert made.list_trained_with("many") == names
    assert made.list_trained_with("kd") == ["kd"]
    assert {made.find_stage_name(name) for name in names} == {"many"}
    last = made.students["many-weight-0_5-lr-1e-05"]
    assert last.losses["soft_targets"].weight == 0.5
    assert last.optimizer.options["lr"] == 1e-05
    assert made.grids["many"][names[0]] == {"losses.soft_targets.weight": 0.1, "optimizer.lr": 0.003}
    written_out = study | {"students": {**study["students"], "lone": {
        **study["students"]["kd"], "optimizer": {"name": "adam", "lr": 0.003},
        "losses": {**study["students"]["kd"]["losses"], "soft_targets": {"weight": 0.1}},
    }}}  # fmt: skip
    ours = made.students[names[0]].model_dump(mode="json")
    ours["losses"]["soft_targets"].pop("temperature", None)
    assert ours["optimizer"] == parsed(written_out).students["lone"].model_dump(mode="json")["optimizer"]


def test_phases_and_words(study: dict[str, Any]) -> None:
    phase = {"losses": {"ce": {}}, "epochs": 1}
    made = parsed(
        with_grid(study, {"pretrain.0.epochs": [1, 2], "model.activation": ["relu", "tanh"]}, pretrain=[phase])
    )
    student = made.students["many-epochs-2-activation-tanh"]
    assert student.pretrain[0].epochs == 2
    assert student.model.model_dump()["activation"] == "tanh"


REFUSED: list[tuple[Any, str]] = [
    ([0.1], "students.many.grid: expected options with their values"),
    ({}, "students.many.grid: expected options with their values"),
    ({"optimizer.lr": 0.1}, "students.many.grid.optimizer.lr: expected a list of values, found 0.1"),
    ({"optimizer.lr": []}, "students.many.grid.optimizer.lr: expected a list of values"),
    ({"optimizer.lr": [[1]]}, "students.many.grid.optimizer.lr: expected numbers, words, true or false"),
    ({"optimizer.lr": [0.1, 0.1]}, "two points called 'many-lr-0_1'"),
    ({"optimzer.lr": [0.1]}, "students.many.grid.optimzer.lr: unknown option 'optimzer'.*optimizer"),
    ({"optimizer.rate": [0.1]}, "students.many-rate-0_1.optimizer.*rate"),
    ({"epochs.x": [1]}, "students.many.grid.epochs.x: expected options to choose from at 'x', found 2"),
    ({"seeds": [1, 2]}, "all points of a grid have the same seeds"),
    ({"init.seed": [1, 2]}, "all points of a grid have the same init"),
    ({"epochs": list(range(1, 300))}, "expected at most 256 points, found 299"),
    ({f"losses.ce.{place}": [*range(10)] for place in range(12)}, "at most 256 points, found 1000000000000"),
    ({"epochs": ["two"]}, "students.many-epochs-two.epochs"),
    ({"pretrain.3.epochs": [1]}, "students.many.grid.pretrain.3.epochs: unknown option 'pretrain'"),
]


@pytest.mark.parametrize(("grid", "message"), REFUSED)
def test_what_is_no_grid_is_refused_by_its_key(study: dict[str, Any], grid: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed(with_grid(study, grid))


def test_two_students_of_one_name_are_refused(study: dict[str, Any]) -> None:
    made = with_grid(study, {"epochs": [3]})
    made["students"]["many-epochs-3"] = study["students"]["kd"]
    with pytest.raises(InputError, match=r"students.many: a member is called 'many-epochs-3', and so is another"):
        parsed(made)


def test_no_member_waits_for_another(study: dict[str, Any]) -> None:
    """Directly, or by way of a student between them: one command trains them all."""
    made = with_grid(study, {"losses.soft_targets.reads": ["big-logits", "own"]})
    first = "many-reads-big-logits"
    made["dumps"]["own"] = {"field": "logits", "of": first}
    made["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    with pytest.raises(InputError, match=f"students.many: expected members that are .* needs '{first}' before"):
        parsed(made)
    made["students"]["kd"]["losses"]["soft_targets"]["reads"] = "own"
    made["dumps"]["own-too"] = {"field": "logits", "of": "kd"}
    made["students"]["many"]["grid"] = {"losses.soft_targets.reads": ["big-logits", "own-too"]}
    with pytest.raises(InputError, match=f"students.many: expected members that are .* needs '{first}' before"):
        parsed(made)


def test_a_grid_is_one_stage(study: dict[str, Any]) -> None:
    stages = {stage.name: stage for stage in compile_stages(parsed(with_grid(study, GRID)))}
    assert [name for name in stages if "many" in name] == ["train-student-many"]
    stage = stages["train-student-many"]
    assert stage.command == "teachercache train-student many"
    assert "students.many" in stage.params
    assert len(stage.outs) == len(stage.outs_in_git) == 6
    assert "data/students/many-weight-0_1-lr-0_01" in stage.outs


def test_a_grid_is_trained_reported_and_drawn(run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any]) -> None:
    grid = {"losses.soft_targets.weight": [0.1, 0.5], "optimizer.lr": [0.003, 0.01]}
    made = with_grid(study, grid)
    made["students"] = {"many": made["students"]["many"], "alone": {
        **made["students"]["many"], "optimizer": {"name": "adam", "lr": 0.003},
    }}  # fmt: skip
    made["students"]["alone"] = {key: value for key, value in made["students"]["alone"].items() if key != "grid"}
    made["students"]["alone"]["losses"] = {**made["students"]["alone"]["losses"], "soft_targets": {
        **made["students"]["alone"]["losses"]["soft_targets"], "weight": 0.1,
    }}  # fmt: skip
    made["report"] = {}
    folder = write_study(tmp_path, made)
    for command in (
        "prepare digits",
        "train-teacher big",
        "dump-logits big-logits",
        "train-student many",
        "train-student alone",
    ):
        assert run(folder, *command.split()) == 0, command
    metrics = {path.stem: read_json(path, "") for path in (folder / "data/metrics/students").glob("*.json")}
    assert len(metrics) == 5
    one, alone = metrics["many-weight-0_1-lr-0_003"], metrics["alone"]
    assert one["losses"] == alone["losses"]
    assert one["best"]["test_accuracy"] == pytest.approx(alone["best"]["test_accuracy"], abs=0.01)
    assert one["consumed"] == alone["consumed"]
    assert (folder / "data/students/many-weight-0_5-lr-0_01/seed-1/weights.safetensors").exists()
    assert not list((folder / ".work").glob("train-student-many*/"))
    teachers = [name for name in made["teachers"] if not (folder / f"data/metrics/teachers/{name}.json").exists()]
    for name in teachers:
        assert run(folder, "train-teacher", name) == 0
    assert run(folder, "report") == 0
    assert (folder / "data/report/sweep-many-weight.png").exists()
    assert (folder / "data/report/sweep-many-lr.png").exists()
    line = refused(run, capsys, folder, "train-student", "many-weight-0_1-lr-0_003")
    assert "train them all: `teachercache train-student many`" in line
    line = refused(run, capsys, folder, "tune", "many-weight-0_1-lr-0_003")
    assert line.endswith("time its first member: `teachercache tune many`\n")
    line = refused(run, capsys, folder, "train-student", "nobody")
    assert line.endswith("students: unknown name 'nobody': expected one of alone, many\n")


def test_a_point_whose_weights_are_all_nothing_is_refused_by_its_key(study: dict[str, Any]) -> None:
    grid = {"losses.ce.weight": [0.5, 0], "losses.soft_targets.weight": [0, 0.5]}
    with pytest.raises(InputError, match=r"students\.many-.*losses: expected a weight above 0, found none"):
        parse_study(with_grid(study, grid))


def test_a_number_of_thousands_of_digits_is_no_traceback(tmp_path: Path, run: Run, capsys: Capture) -> None:
    (tmp_path / "params.yaml").write_text("seed: " + "9" * 5000)
    assert "params.yaml: expected valid YAML" in refused(run, capsys, tmp_path, "graph")
