"""What the documents show must work."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from pipeline import losses, runs
from pipeline.losses.outputs import Outputs
from pipeline.study.params_file import parse_study, read_params
from tests.conftest import ROOT, Run, warm_python, write_study


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_python_of_readme_and_page_reads_caches(copy_of: Path, run: Run, study: dict[str, Any]) -> None:
    study["dumps"]["big-hints"] = {"field": "hints", "of": "big"}
    study["dumps"]["big-affinities"] = {"field": "affinities", "of": "big", "batch_size": 50, "perplexity": 15}
    write_study(copy_of, study)
    assert run(copy_of, "dump-hints", "big-hints") == run(copy_of, "dump-affinities", "big-affinities") == 0
    examples = [*blocks("README.md", "python"), *blocks("docs/python.md", "python")]
    examples = [code for code in examples if "runs" not in code]
    assert len(examples) == 6
    code = "\n".join([*examples, "print(tuple(images.shape), tuple(teacher_logits.shape))"])
    done = warm_python(copy_of, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("digits\n(1, 200, 10)\n[[") == 2
    assert "\n(2, 16)\n" in done.stdout
    assert done.stdout.endswith("torch.Size([50, 50])\n(64, 1, 8, 8) (64, 10)\n")


def test_the_notebook_of_the_python_page_drives_a_study(study: dict[str, Any], tmp_path: Path) -> None:
    (code,) = (block for block in blocks("docs/python.md", "python") if "runs.open_study" in block)
    assert len(code.splitlines()) <= 15
    done = warm_python(write_study(tmp_path, study), "-c", code)
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((tmp_path / "data/metrics/students/kd.json").read_bytes())["test_accuracy"]["mean"]
    lines = [line for line in done.stdout.splitlines() if not line.startswith("warning: student ")]
    assert len(lines) < len(done.stdout.splitlines())  # so short a training is hardly ahead of chance, and says so
    assert [line.partition(":")[0] for line in lines[:4]] == ["digits", "teacher big", "big-logits", "student kd"]
    assert lines[4] == str(accuracy)
    assert lines[-2:-1] == ["data/report/report.html"]
    assert lines[-1].startswith("kd-student: student kd, seed 0, weights ")
    assert (tmp_path / "kd-student/weights.safetensors").exists()


def test_the_python_page_names_every_run() -> None:
    page = (ROOT / "docs/python.md").read_text()
    assert [name for name in runs.MODULES if name.islower() and f"`{name}`" not in page] == []


def test_the_schema_is_the_manifests() -> None:
    from pipeline.cache.manifest import Manifest

    shown = json.loads((ROOT / "docs/cache-manifest.schema.json").read_bytes())
    made = Manifest.model_json_schema()
    assert {key: shown[key] for key in made if key != "title"} == {key: made[key] for key in made if key != "title"}
    assert "3" in shown["title"]


def test_the_loss_of_the_extension_guide_is_one_file_and_one_line(
    copy_of: Path, run: Run, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = next(block for block in blocks("docs/extending.md", "python") if "logits_mae" in block)
    (tmp_path / "one_file.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(losses.TERMS.entries, "logits_mae", "one_file:logits_mae")
    logits, target = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    term = losses.TERMS.import_function("logits_mae")
    assert term(Outputs(logits, torch.tensor([0])), target).item() == 2.0
    study["students"]["kd"]["losses"] = {"logits_mae": {"weight": 0.5}}
    write_study(copy_of, study)
    assert run(copy_of, "train-student", "kd") == 0


@pytest.mark.parametrize("number", range(6))
def test_every_example_of_the_extension_guide_is_whole(number: int) -> None:
    code = blocks("docs/extending.md", "python")[number]
    done = warm_python(ROOT, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_study_of_ones_own_images_is_valid() -> None:
    (study,) = (block for block in blocks("docs/images.md", "yaml") if block.startswith("datasets:"))
    parsed = parse_study(YAML(typ="safe").load(study))
    assert parsed.students["kd"].losses["soft_targets"].reads == {"target": "big-logits"}


@pytest.mark.parametrize("study", sorted(path.name for path in (ROOT / "studies").iterdir() if path.is_dir()))
def test_a_studys_readme_shows_its_own_report(study: str) -> None:
    folder = ROOT / "studies" / study
    report = (folder / "data/report/report.md").read_text().partition("## Statistics")[0]
    table = [line for line in report.splitlines() if line.startswith("|")]
    readme = (folder / "README.md").read_text().splitlines()
    assert len(table) >= 6
    assert [line for line in table if line not in readme] == []


def test_every_recipe_stands_in_the_study_that_ran_it() -> None:
    folder = ROOT / "studies/digits-all"
    params, lock = (folder / "params.yaml").read_text(), (folder / "dvc.lock").read_text()
    recipes = blocks("docs/recipes.md", "yaml")
    assert [block for block in recipes if block.removeprefix("students:\n") not in params] == []
    shown = set(re.findall(r"^  ([a-z-]+):", "".join(recipes), re.MULTILINE))
    assert len(shown) >= 17
    assert [name for name in shown if f"train-student-{name}:" not in lock] == []
    used = {
        term.loss
        for student in parse_study(read_params(folder / "params.yaml")).students.values()
        for term in student.terms()
    }
    assert used == set(losses.TERMS.entries)


def test_ci_runs_the_readmes_test_command() -> None:
    commands = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    found = [line for line in commands if re.match(r"^python3 -m venv .*pytest$", line)]
    assert found == ["python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]' && pytest"]


PAGES = [
    ROOT / "README.md",
    *(path for room in ("docs", "data", "benchmarks", "studies") for path in (ROOT / room).glob("*.md")),
    *sorted((ROOT / "studies").glob("*/README.md")),
]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_of_ours_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    examples = re.findall(r"[Ff]or instance\s`([^`]+)`|a command of its own, `([^`]+)`", text)
    named = re.findall(r"`((?:pipeline|stages|tests|docs|benchmarks)/[\w/]+\.(?:py|md))`", text)
    made_up = {name for pair in examples for name in pair}
    assert [name for name in named if "NAME" not in name and name not in made_up and not (ROOT / name).exists()] == []


def test_modules_that_pages_name_can_be_imported() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(pipeline(?:\.[a-z_]+)+)`", page.read_text())}
    assert len(named) >= 3
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name), name
