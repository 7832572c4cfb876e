"""A network that has learnt nothing is told of, where it is trained, dumped and reported; an ordinary one is not."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from torch import Tensor

from pipeline.base.plain_text import escape_code
from pipeline.models.build import build_network
from pipeline.report.notes import write_notes
from pipeline.report.page import Report
from pipeline.training.chance_level import find_doubt, join_doubts
from tests.conftest import Capture, Run, write_study

NAMES = tuple("abcdefghij")


def rows(*counts: int) -> Tensor:
    """Labels of so many rows of each class."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def said(labels: Tensor, answers: Tensor | int) -> str | None:
    return find_doubt(labels == answers, labels, NAMES[: int(labels.max()) + 1])


def mixed(labels: Tensor, share: float, classes: int, seed: int = 0) -> Tensor:
    """Answers of a network that knows a share of the rows and guesses the others."""
    generator = torch.Generator().manual_seed(seed)
    guesses = torch.randint(0, classes, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < share, labels, guesses)


@pytest.mark.parametrize("counts", [(36,) * 10, (5, 5, 5), (900, 100), (20, 20)], ids=str)
def test_one_class_whatever_it_sees(counts: tuple[int, ...]) -> None:
    labels = rows(*counts)
    others = len(labels) - counts[1]
    assert said(labels, 1) == (
        f"says 'b' whatever it is shown: right for all {counts[1]} test images of that class, and for none of the "
        f"{others} others"
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("counts", "classes"), [((36,) * 10, 10), ((50, 50), 2), ((400, 100, 100), 3), ((30,) * 5, 5)])
def test_ordinary_networks_raise_no_doubt(counts: tuple[int, ...], classes: int, seed: int) -> None:
    labels = rows(*counts)
    assert said(labels, mixed(labels, 0.4, classes, seed)) is None


@pytest.mark.parametrize(("counts", "classes"), [((36,) * 10, 10), ((400, 400), 2), ((30,) * 5, 5), ((4,) * 10, 10)])
def test_guesses_do(counts: tuple[int, ...], classes: int) -> None:
    labels = rows(*counts)
    found = [said(labels, mixed(labels, 0.0, classes, seed)) for seed in range(40)]
    assert sum(each is not None for each in found) > 32  # one in twenty guesses well
    text = next(filter(None, found))
    assert text.startswith("is no better than chance: right for ")
    assert text.endswith(f" of {len(labels)} test images, where always saying the commonest class is for {max(counts)}")


def test_one_that_finds_the_rare_class_knows_something() -> None:
    labels = rows(900, 100)
    answers = labels.clone()
    answers[:90], answers[900:920] = 1, 0  # accuracy 0.89, below the commonest class's share
    assert said(labels, answers) is None
    assert said(labels, torch.zeros(1000, dtype=torch.int64)) is not None


@pytest.mark.parametrize(
    ("labels", "answers"),
    [
        (rows(3, 3), 0),  # too few
        (rows(1, 0, 2), 0),
        (rows(*[1] * 10), 4),
        (rows(30), 0),  # one class alone
        (rows(8, 8), torch.arange(16) % 2),
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
    ],
)
def test_few_rows_prove_nothing(labels: Tensor, answers: Any) -> None:
    assert find_doubt(labels == answers, labels, NAMES) is None


def test_one_that_is_never_right_is_at_chance_too() -> None:
    labels = rows(*[10] * 10)
    assert str(said(labels, (labels + 1) % 10)).startswith("is no better than chance: right for 0 of 100")


def test_names_are_shown_on_one_line() -> None:
    labels = rows(10, 10)
    for name, shown in (("`b`\n\x1b", r"`b`\n\x1b"), ("a\\b", r"a\b"), ("it's", "it's"), ("_x_", "_x_"), ("猫", "猫")):
        text = str(find_doubt(labels == 1, labels, ("a", name)))
        assert text.startswith(f"says '{shown}' whatever it is shown: right for all 10 test images")


@pytest.mark.parametrize("name", ["a\\b", "it's", "_x_", "*", "<b>", "猫", "$1", "a\nb", "`b`", "``", "`<i>` or _`_"])
def test_the_report_shows_the_name(name: str) -> None:
    labels = rows(10, 10)
    text = str(find_doubt(labels == 1, labels, ("a", name)))
    student: dict[str, Any] = {
        "rule": "the last", "doubts": {"seed 0": text}, "test_accuracy_per_peer": None, "prepared": {}, "restores": [0],
    }  # fmt: skip
    lines = tuple(line for line in write_notes({"kd": student}, (), {"big": {"doubt": text}}) if "Doubtful" in line)
    written = escape_code(name)  # a backquote would begin code of ours
    assert [line.partition(" whatever")[0] for line in lines] == [
        f"Doubtful: teacher big says '{written}'", f"Doubtful: kd says '{written}'"
    ]  # fmt: skip
    report = Report((), lines, (), {}, {})
    page = html.unescape(MarkdownIt("commonmark").render(report.markdown()))
    assert page.count(f"says '{written}' whatever it is shown: right for all 10 test images") == 2
    assert html.unescape(report.html()).count(f"says '{written}' whatever it is shown") == 2


def test_runs_are_told_together() -> None:
    assert join_doubts({"seed 0": "says 'a'", "seed 2, peer 1": "says 'b'"}) == "says 'a' (seed 0, seed 2, peer 1)"


# ------------------------------------------------------------------ the commands


@pytest.fixture
def collapsed(tmp_path: Path, study: dict[str, Any]) -> Path:
    """A study with a teacher from a file that says 3 whatever it sees, an ensemble of it, and a student at rest."""
    net = build_network({"name": "mlp", "widths": [4]}, (1, 8, 8), 10).body
    state = net.state_dict()
    state["logits.bias"] = torch.eye(10)[3] * 1e6
    torch.save(state, tmp_path / "three.pt")
    study["teachers"] |= {
        "three": {"model": {"name": "mlp", "widths": [4]}, "weights": "three.pt"},
        "both": {"members": ["big", "three"], "average": "probabilities"},
    }
    study["teachers"]["big"]["epochs"] = study["students"]["baseline"]["epochs"] = 40
    study["dumps"] = {"three-logits": {"field": "logits", "of": "three"}}
    study["students"]["kd"] |= {"losses": {"ce": {}}, "optimizer": {"name": "sgd", "lr": 1e-12}}
    return write_study(tmp_path, study)


def test_it_is_said_at_the_training_at_the_dump_and_in_the_report(run: Run, collapsed: Path, capsys: Capture) -> None:
    def told(*command: str) -> str:
        capsys.readouterr()
        assert run(collapsed, *command) == 0
        return capsys.readouterr().err

    told("prepare", "digits")
    assert told("train-teacher", "big") == ""
    whatever = "says '3' whatever it is shown: right for all "
    first = told("train-teacher", "three")
    assert first.startswith(f"warning: teacher 'three' {whatever}")
    assert first.endswith("; its mean, std and order of classes must be those that it was trained with\n")
    both = told("train-teacher", "both")
    assert both.startswith(f"warning: teacher 'both' averages 'three', which {whatever}")
    assert both.endswith("; train its members again\n")
    assert told("dump-logits", "three-logits").startswith(f"warning: 'three', dumped as three-logits, {whatever}")
    assert told("train-student", "baseline") == ""
    student = told("train-student", "kd")
    assert student.startswith("warning: student 'kd' ")
    assert "(seed 0, seed 1); train it longer" in student
    assert [text.count("\n") for text in (first, student)] == [1, 1]
    said_of_all = told("report").splitlines()
    assert [line.split()[:4] for line in said_of_all] == [
        ["warning:", "teacher", "both", "averages"],
        ["warning:", "teacher", "three", "says"],
        ["warning:", "kd", "is", "no"],
    ]
    page = (collapsed / "data/report/report.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("- Doubtful: ")]
    assert [line.split()[2:4] for line in lines] == [["teacher", "both"], ["teacher", "three"], ["kd", "is"]]
    assert "doubt" not in json.loads((collapsed / "data/metrics/teachers/big.json").read_text())
    assert "doubts" not in json.loads((collapsed / "data/metrics/students/baseline.json").read_text())


def test_reports_without_doubts_say_nothing_of_them() -> None:
    assert not [line for line in write_notes({}, (), {"big": {"restores": 0}}) if "Doubtful" in line]
