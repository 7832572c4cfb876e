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

from pipeline import graph
from pipeline.params import load, parse, read_raw

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.parent for path in ROOT.glob("studies/*/params.yaml"))
SOURCED = [study for study in STUDIES if load(study / "params.yaml").report.claims]
NAMES = [study.name for study in SOURCED]
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w.]*[a-z])")
SPELT = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

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
    """Outside of the section that tells what the source did and found."""
    files = ["params.yaml", "params.full.yaml", "data/report/report.md", "minutes.json"]
    known = {_plain(number) for name in files for number in NUMBER.findall((study / name).read_text())}
    known |= {_plain(f"{value:.1f}") for value in _sums(json.loads((study / "minutes.json").read_text()))}
    own = readme["BLOCK"].sub("", (study / "README.md").read_text())
    own = re.sub(r"^## The source$.*?(?=^## )", "", own, flags=re.DOTALL | re.MULTILINE)
    own = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", own, flags=re.DOTALL)
    told = [number for number in NUMBER.findall(own) if _plain(number) not in known]
    assert told == []


def _plain(number: str) -> float:
    return float(number.replace(",", ""))


def _sums(minutes: dict[str, float]) -> list[float]:
    return [sum(minutes.values()), *minutes.values()]


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_a_readme_shows_every_picture_of_its_report_that_it_names(study: Path) -> None:
    named = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (study / "README.md").read_text())
    assert len(named) >= 2
    assert [name for name in named if not (study / name).exists()] == []


def test_the_table_of_all_claims_has_every_claim() -> None:
    rows = [line for line in (ROOT / "studies/README.md").read_text().splitlines() if line.startswith("| [")]
    claims = {study.name: load(study / "params.yaml").report.claims for study in SOURCED}
    assert len(rows) == sum(map(len, claims.values()))
    for study, each in claims.items():
        verdicts = json.loads((ROOT / "studies" / study / "data/report/statistics.json").read_text())["claims"]
        assert verdicts.keys() == each.keys()
        for name, claim in each.items():
            assert any(
                f"[{study}]" in row and claim.says in row and f"**{verdicts[name]['verdict']}" in row for row in rows
            )


@pytest.mark.parametrize("study", SOURCED, ids=NAMES)
def test_the_full_protocol_is_a_study_too(study: Path) -> None:
    full, default = load(study / "params.full.yaml"), load(study / "params.yaml")
    raw = read_raw(study / "params.full.yaml")
    assert len(list(graph.stages(parse(raw), raw))) >= 5
    for name in full.students.keys() & default.students.keys():
        mine, theirs = default.students[name], full.students[name]
        assert (theirs.epochs or theirs.steps or 0) >= (mine.epochs or mine.steps or 0)
        assert theirs.seeds >= mine.seeds


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_studys_lock_is_current(study: Path) -> None:
    """Stages, code, parameters and the files in git are those of the last `dvc repro`."""
    stages, locked = (YAML(typ="safe").load((study / name).read_text())["stages"] for name in ("dvc.yaml", "dvc.lock"))
    raw = read_raw(study / "params.yaml")
    assert list(locked) != []
    assert locked.keys() == stages.keys()
    for name, stage in locked.items():
        assert stage["cmd"] == stages[name]["cmd"]
        for each in (*stage.get("deps", ()), *stage.get("outs", ())):
            path = study / each["path"]
            in_git = path.suffix == ".py" or each["path"].startswith("data/metrics/")
            if in_git and path.name != "params.yaml":
                assert hashlib.md5(path.read_bytes()).hexdigest() == each["md5"], (name, each["path"])
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            assert _at(raw, key) == value, (name, key)


def _at(raw: Any, key: str) -> Any:
    for part in key.split("."):
        raw = raw[part]
    return raw
