"""The studies' READMEs say what their reports say, and every committed study is whole and current."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.graph import stages as graph
from pipeline.study.params_file import load_study, parse_study, read_params

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.parent for path in ROOT.glob("studies/*/params.yaml"))
SOURCED = [study for study in STUDIES if load_study(study / "params.yaml").report.claims]
NAMES = [study.name for study in SOURCED]
NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z0-9]-)\d[\d,]*(?:\.\d+)?(?![\w.]*[a-z])")

readme: Any = runpy.run_path(str(ROOT / "studies/readme.py"))


def test_the_five_studies_of_the_methods_are_there() -> None:
    assert {"adversarial", "mentee", "multichannel", "mutual", "tsnenet"} <= set(NAMES)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").rglob("README.md")), ids=lambda path: path.parent.name)
def test_a_readmes_blocks_are_what_the_reports_say(path: Path) -> None:
    assert readme["filled"](path) == path.read_text()


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_a_study_shows_its_table_its_claims_and_its_minutes(study: Path) -> None:
    text = (study / "README.md").read_text()
    for block in ("report: table", "report: Beside the source", "report: Claims", "minutes"):
        assert f"<!-- {block} -->" in text
    assert "params.full.yaml" in text


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_every_number_of_a_readme_is_in_the_studys_files(study: Path) -> None:
    """Outside of the section on the source; what is said of the full protocol is in that one's parameters."""
    text = readme["BLOCK"].sub("", (study / "README.md").read_text())
    text = re.sub(r"^## The source$.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"```.*?```|`[^`]*[A-Za-z][^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    minutes = json.loads((study / "minutes.json").read_text())
    run = _numbers(study / "params.yaml", study / "data/report/report.md")
    run |= {round(value, 1) for value in (*minutes.values(), sum(minutes.values()))}
    full = _numbers(study / "params.full.yaml")
    for paragraph in text.split("\n\n"):
        told = {float(number.replace(",", "")) for number in NUMBER.findall(paragraph)}
        assert told - (full if paragraph.startswith("[") else run) == set(), paragraph


def _numbers(*files: Path) -> set[float]:
    return {float(number.replace(",", "")) for file in files for number in NUMBER.findall(file.read_text())}


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_minutes_are_of_the_stages_that_ran(study: Path) -> None:
    locked = YAML(typ="safe").load((study / "dvc.lock").read_text())["stages"]
    assert json.loads((study / "minutes.json").read_text()).keys() == locked.keys() - {"graph"}


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_a_readme_shows_every_picture_of_its_report_that_it_names(study: Path) -> None:
    named = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (study / "README.md").read_text())
    assert len(named) >= 2
    assert [name for name in named if not (study / name).exists()] == []


def test_the_table_of_all_claims_has_every_claim() -> None:
    rows = [line for line in (ROOT / "studies/README.md").read_text().splitlines() if line.startswith("| [")]
    claims = {study.name: load_study(study / "params.yaml").report.claims for study in SOURCED}
    assert len(rows) == sum(map(len, claims.values()))
    for study, each in claims.items():
        verdicts = json.loads((ROOT / "studies" / study / "data/report/statistics.json").read_text())["claims"]
        assert verdicts.keys() == each.keys()
        for name, claim in each.items():
            assert any(
                f"[{study}]" in row and claim.text in row and f"**{verdicts[name]['verdict']}" in row for row in rows
            )


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_the_full_protocol_is_a_study_too(study: Path) -> None:
    full, default = load_study(study / "params.full.yaml"), load_study(study / "params.yaml")
    raw = read_params(study / "params.full.yaml")
    assert len(list(graph.compile_stages(parse_study(raw)))) >= 5
    both = full.students.keys() & default.students.keys()
    assert len(both) >= 3
    for name in both:
        mine, theirs = default.students[name], full.students[name]
        assert (mine.epochs is None) == (theirs.epochs is None)
        assert (theirs.epochs or theirs.steps or 0) >= (mine.epochs or mine.steps or 0)
        assert theirs.seeds >= mine.seeds
    assert default.report.published is not None
    assert full.report.published is not None
    published = full.report.published.error | full.report.published.accuracy
    for name, value in (default.report.published.error | default.report.published.accuracy).items():
        assert published.get(name, value) == value


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_studys_lock_is_current(study: Path) -> None:
    """Stages, code, parameters and the files in git are those of the last `dvc repro`."""
    stages, locked = (YAML(typ="safe").load((study / name).read_text())["stages"] for name in ("dvc.yaml", "dvc.lock"))
    raw = read_params(study / "params.yaml")
    assert locked.keys() == stages.keys()
    for name, stage in locked.items():
        assert stage["cmd"] == stages[name]["cmd"]
        assert [each["path"] for each in stage.get("deps", ())] == sorted(stages[name].get("deps", ()))
        for each in (*stage.get("deps", ()), *stage.get("outs", ())):
            path = study / each["path"]
            if path.suffix == ".py" or each["path"].startswith(("data/metrics/", "data/report")):
                assert _md5(path) == each["md5"], (name, each["path"])
        params = stage.get("params", {}).get("params.yaml", {})
        assert set(params) <= set(stages[name].get("params", ()))
        for key in stages[name].get("params", ()):
            assert params.get(key) == _at(raw, key), (name, key)


def _md5(path: Path) -> str:
    """As DVC has it: of a file, or of the list of a folder's files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = sorted(path.rglob("*"))
    listed = [{"md5": _md5(file), "relpath": file.relative_to(path).as_posix()} for file in files if file.is_file()]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def _at(raw: Any, key: str) -> Any:
    for part in key.split("."):
        raw = raw.get(part) if raw else None
    return raw
