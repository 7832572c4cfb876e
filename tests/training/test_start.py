"""Students that start from another student, and what may be made of that: adversarial distillation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.base.errors import InputError
from pipeline.base.files import read_json, write_json
from pipeline.graph.dvc_yaml import format_dvc_yaml
from pipeline.graph.stages import compile_stages
from pipeline.study.params_file import parse_study
from tests.conftest import Capture, Run, refused, write_study


@pytest.fixture
def started(made: Path, tmp_path: Path, study: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A made study with a student that goes on from the baseline's second seed."""
    folder = Path(shutil.copytree(made, tmp_path / "study"))
    study["students"]["longer"] = {**study["students"]["baseline"], "init": {"student": "baseline", "seed": 1}}
    return write_study(folder, study), study


def weights(folder: Path, student: str, seed: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"data/students/{student}/seed-{seed}/weights.safetensors")


def test_it_starts_from_the_very_weights(run: Run, started: tuple[Path, dict[str, Any]]) -> None:
    folder, study = started
    study["students"]["longer"] |= {"optimizer": {"name": "sgd", "lr": 1e-30}, "epochs": 1}
    write_study(folder, study)
    assert run(folder, "train-student", "longer") == 0
    expected = weights(folder, "baseline", 1)
    for seed in (0, 1):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folder, "longer", seed).items())
    assert not torch.equal(expected["body.fc1.weight"], weights(folder, "baseline", 0)["body.fc1.weight"])


def test_its_seeds_still_differ(run: Run, started: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = started
    assert run(folder, "train-student", "longer") == 0
    first, second = (weights(folder, "longer", seed)["body.fc1.weight"] for seed in (0, 1))
    assert not torch.equal(first, second)  # by the order of the data
    metrics = read_json(folder / "data/metrics/students/longer.json", "")
    digest = read_json(folder / "data/metrics/students/baseline.json", "")["weights_sha256"][1]
    assert metrics["init"] == {"student": "baseline", "seed": 1, "weights_sha256": digest}
    assert read_json(folder / "data/students/longer/seed-0/card.json", "")["init"] == metrics["init"]


def test_the_graph_says_so(study: dict[str, Any]) -> None:
    study["students"] = {"late": {**study["students"]["baseline"], "init": "baseline"}, **study["students"]}
    by_name = {stage.name: stage for stage in compile_stages(parse_study(study))}
    assert "data/students/baseline" in by_name["train-student-late"].deps
    assert "data/students/baseline" not in by_name["train-student-kd"].deps
    names = list(by_name)
    assert names.index("train-student-baseline") < names.index("train-student-late")  # in the order of the flow
    assert "train-student-late" in format_dvc_yaml(by_name.values(), Path())


def test_other_weights_start_another_run(run: Run, started: tuple[Path, dict[str, Any]]) -> None:
    folder, study = started
    assert run(folder, "train-student", "longer") == 0
    before = weights(folder, "longer", 0)
    study["students"]["longer"]["init"] = {"student": "baseline", "seed": 0}
    write_study(folder, study)
    assert run(folder, "train-student", "longer") == 0
    assert not torch.equal(before["body.fc1.weight"], weights(folder, "longer", 0)["body.fc1.weight"])


def test_what_does_not_fit_is_refused(run: Run, capsys: Capture, started: tuple[Path, dict[str, Any]]) -> None:
    folder, study = started
    metrics = folder / "data/metrics/students/baseline.json"
    said = read_json(metrics, "")
    write_json(metrics, {**said, "weights_sha256": ["0" * 64] * 2})
    line = refused(run, capsys, folder, "train-student", "longer")
    assert "student 'baseline', seed 1: expected weights 0000" in line
    assert "teachercache train-student baseline" in line
    write_json(metrics, said)
    study["students"]["longer"]["model"] = {"name": "mlp", "widths": [9]}
    line = refused(run, capsys, write_study(folder, study), "train-student", "longer")
    assert "weights to start from: expected body.fc1.bias of shape (9,), found (8,)" in line
    shutil.rmtree(folder / "data/students/baseline")
    assert "teachercache train-student baseline" in refused(run, capsys, folder, "train-student", "longer")
    assert not (folder / "data/students/longer").exists()


def test_another_scaling_of_the_images_is_refused(study: dict[str, Any]) -> None:
    study["students"]["late"] = {**study["students"]["baseline"], "init": "baseline"}
    study["students"]["late"]["model"] = {"name": "mlp", "widths": [8], "mean": [0.3]}
    with pytest.raises(InputError, match=r"students\.late\.model\.mean: expected None, as student 'baseline' has it"):
        parse_study(study)


def adversarial(folder: Path, study: dict[str, Any], **options: Any) -> Path:
    """A study whose student learns to pass for its teacher."""
    study["dumps"]["initial"] = {"field": "logits", "of": "baseline", "of_seed": 1, "dtype": "float16"}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    study["students"]["fooling"] = {
        **study["students"]["longer"],
        "losses": {"ce": {}, "adversarial": {"weight": 0.1, **options}},
    }
    return write_study(folder, study)


def test_adversarial_distillation_by_the_commands(run: Run, started: tuple[Path, dict[str, Any]]) -> None:
    folder, study = started
    adversarial(folder, study)
    assert parse_study(study).students["fooling"].losses["adversarial"].reads == {
        "teacher": "big-logits",
        "initial": "initial",
    }
    assert run(folder, "dump-logits", "initial") == 0
    assert run(folder, "train-student", "fooling") == 0
    metrics = read_json(folder / "data/metrics/students/fooling.json", "")
    prepared = metrics["prepared"]["adversarial"]
    assert prepared["held_out"] == [40, 40]  # a fifth of 200 samples
    assert len(prepared["discriminator_accuracy"]) == 2  # each seed has its own
    assert min(prepared["discriminator_accuracy"]) > 0.8
    assert set(metrics["consumed"]) == {"big-logits", "initial"}
    assert metrics["taught_by"] == ["baseline", "big"]
    card = read_json(folder / "data/students/fooling/seed-1/card.json", "")
    assert card["prepared"]["adversarial"]["discriminator_accuracy"] == prepared["discriminator_accuracy"][1]
    assert not any("layers" in name and "body" not in name for name in weights(folder, "fooling", 0))


def test_a_poor_discriminator_stops_it_unless_told_otherwise(
    run: Run, capsys: Capture, started: tuple[Path, dict[str, Any]]
) -> None:
    folder, study = started
    poor = {"epochs": 1, "lr": 1e-9, "least_accuracy": 0.99}
    adversarial(folder, study, discriminator=poor)
    assert run(folder, "dump-logits", "initial") == 0
    line = refused(run, capsys, folder, "train-student", "fooling")
    assert (
        "student 'fooling', seed 0: adversarial: discriminator: expected to tell the student from its teacher" in line
    )
    assert "least_accuracy: 0" in line
    assert not (folder / "data/students/fooling").exists()
    adversarial(folder, study, discriminator={**poor, "least_accuracy": 0.0})
    assert run(folder, "train-student", "fooling") == 0


def test_a_student_that_nothing_can_teach_is_refused(
    run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]
) -> None:
    study["students"]["kd"]["losses"] = {"ce": {"weight": {"name": "gullible", "of": "labels"}}}
    line = refused(run, capsys, write_study(copy_of, study), "train-student", "kd")
    assert "student 'kd', seed 0: losses ce: expected a weight above 0 in some epoch, found none" in line
