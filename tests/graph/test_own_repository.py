"""The study in a repository of the user's own: other parameter files, folders with names of ours, what git must not keep."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.base.errors import InputError
from pipeline.graph import dvc_yaml
from pipeline.graph import git_checkout as room
from pipeline.graph import stages as graph
from pipeline.graph.gitignore import LINES, find_missing_lines
from pipeline.study.params_file import load_study, parse_study
from tests.conftest import ROOT, Capture, Run, refused, shell, write_study


def compiled(folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load((folder / "dvc.yaml").read_text())["stages"]
    return stages


@pytest.fixture
def repository(tmp_path: Path, study: dict[str, Any]) -> Path:
    folder = write_study(tmp_path / "repository", study)
    shell(folder, "git init -q .")
    return folder


@pytest.mark.parametrize("name", ["exp.yaml", "my exp.yaml", "exp (2).yml", "a${b}.yaml", "kätzchen.yaml"])
def test_stages_carry_the_parameters_that_they_were_compiled_from(repository: Path, run: Run, name: str) -> None:
    (repository / "params.yaml").rename(repository / name)
    assert run(repository, "graph", "--params", name) == 0
    assert run(repository, "graph", "--params", name, "--check") == 0
    stages = compiled(repository)
    assert name.replace("${", r"\${") in stages["graph"]["deps"]
    for stage in stages.values():
        assert "--params" in stage["cmd"]
        if "params" in stage:
            assert [*stage["params"][0]] == [name.replace("${", r"\${")]
            assert len(stage["params"]) == 1
    assert stages["train-student-kd"]["params"][0].popitem()[1] == ["seed", "students.kd"]


def test_what_is_wrong_is_said_of_the_file_that_was_given(repository: Path, run: Run, capsys: Capture) -> None:
    (repository / "params.yaml").rename(repository / "exp.yaml")
    assert "found no file; run `teachercache graph --params exp.yaml`" in refused(
        run, capsys, repository, "graph", "--check", "--params", "exp.yaml"
    )
    said = refused(run, capsys, repository, "prepare", "nope", "--params", "exp.yaml")
    assert said.startswith("error: exp.yaml: datasets: unknown name 'nope'")
    said = refused(run, capsys, repository, "dump-logits", "nope", "--params", "exp.yaml")
    assert said.startswith("error: exp.yaml: dumps: unknown name 'nope'")


def test_a_graph_from_other_parameters_says_whose_it_replaces(repository: Path, run: Run, capsys: Capture) -> None:
    assert run(repository, "graph") == 0
    shutil.copy(repository / "params.yaml", repository / "exp.yaml")
    capsys.readouterr()
    assert run(repository, "graph", "--params", "exp.yaml") == 0
    assert "written: 7 stages; before, it was compiled from params.yaml" in capsys.readouterr().out
    assert "found an older or edited file" in refused(run, capsys, repository, "graph", "--check")


def test_a_graph_of_the_users_own_is_never_written_over(repository: Path, run: Run, capsys: Capture) -> None:
    own = "stages:\n  mine: {cmd: make}\n"
    (repository / "dvc.yaml").write_text(own)
    assert "put the study into a folder of its own" in refused(run, capsys, repository, "graph")
    assert (repository / "dvc.yaml").read_text() == own


@pytest.mark.dvc
def test_dvc_runs_a_study_of_odd_names(tmp_path: Path, study: dict[str, Any]) -> None:
    """Templates of DVC's in a path and in the parameters' name, blanks, quotes."""
    folder = write_study(tmp_path / "study", {"seed": 0, "datasets": study["datasets"], "teachers": study["teachers"]})
    (folder / "params.yaml").rename(folder / "it's ${x}.yaml")
    shell(folder, "git init -q . && dvc init -q")
    shell(folder, 'teachercache graph --params "it\'s \\${x}.yaml" && dvc repro prepare-digits')
    assert (folder / "data/prepared/digits/images.npy").exists()
    assert "prepare-digits" not in json.loads(shell(folder, "dvc status --json"))
    (folder / "it's ${x}.yaml").write_text((folder / "it's ${x}.yaml").read_text().replace("first: 200", "first: 150"))
    assert "prepare-digits" in json.loads(shell(folder, "dvc status --json"))


@pytest.mark.parametrize(
    "root", ["a${b}", "$(x)", "#1", "null", "12", "1e3", "- x", "a: b", "yes", "it's", 'a"b', "ä ö"]
)
def test_a_folders_name_reaches_dvc_as_it_is(study: dict[str, Any], tmp_path: Path, root: str) -> None:
    study["datasets"]["digits"] = {"source": "imagefolder", "root": root}
    text = dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(study)), tmp_path)
    found = YAML(typ="safe").load(text)["stages"]["prepare-digits"]["deps"]
    assert [dep.replace(r"\${", "${") for dep in found] == [root]


@pytest.mark.parametrize(
    ("change", "reads", "found"),
    [
        ({"datasets": {"digits": {"source": "imagefolder", "root": "."}}}, "prepare-digits reads .", "inside"),
        ({"datasets": {"digits": {"source": "imagefolder", "root": "data"}}}, "prepare-digits reads data", "inside"),
        ({"datasets": {"digits": {"source": "imagefolder", "root": "./x/../data/"}}}, "data", "inside"),
        ({"datasets": {"digits": {"source": "imagefolder", "root": "data/prepared"}}}, "data/prepared", "inside"),
        ({"datasets": {"digits": {"source": "imagefolder", "root": "data/prepared/digits"}}}, "digits", "there"),
        ({"datasets": {"digits": {"source": "imagefolder", "root": "data/cache/big-logits/x"}}}, "big-logits/x", "there"),
        ({"teachers": {"big": {"model": {"name": "mlp", "widths": [8]}, "weights": "data/students/kd/w.pt"}}}, "w.pt", "there"),
    ],
)  # fmt: skip
def test_a_stage_that_would_read_what_it_writes_is_refused(
    study: dict[str, Any], change: dict[str, Any], reads: str, found: str
) -> None:
    with pytest.raises(InputError, match=r"keep images and weights in a folder of their own") as refusal:
        graph.compile_stages(parse_study(study | change))
    assert reads in str(refusal.value)
    assert found in str(refusal.value)


def test_a_link_to_the_study_itself_is_seen_through(
    study: dict[str, Any], tmp_path: Path, run: Run, capsys: Capture
) -> None:
    study["datasets"]["digits"] = {"source": "imagefolder", "root": "linked"}
    folder = write_study(tmp_path / "study", study)
    (folder / "linked").symlink_to(".")
    assert "stage prepare-digits reads linked" in refused(run, capsys, folder, "graph")
    assert not (folder / "dvc.yaml").exists()


def test_a_root_that_is_a_link_to_itself_is_no_traceback(study: dict[str, Any], tmp_path: Path, run: Run) -> None:
    study["datasets"]["digits"] = {"source": "imagefolder", "root": "loop"}
    folder = write_study(tmp_path / "study", study)
    (folder / "loop").symlink_to("loop")
    assert run(folder, "graph") == 0
    assert run(folder, "prepare", "digits") == 2


@pytest.mark.parametrize("key", ["root", "folder"])
def test_no_name_holds_a_nul(study: dict[str, Any], key: str) -> None:
    study["datasets"]["digits"] = {"source": "imagefolder", key: "a\0b"}
    with pytest.raises(InputError, match="a NUL character"):
        parse_study(study)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link"])
def test_what_stands_where_dvc_yaml_belongs_stays(repository: Path, run: Run, capsys: Capture, kind: str) -> None:
    target = repository / "dvc.yaml"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        if kind == "link":
            assert run(repository, "graph") == 0
            target.rename(repository / "real.yaml")
        target.symlink_to("real.yaml")
    for command in (("graph",), ("graph", "--check")):
        assert "dvc.yaml: expected a file, or none, found " in refused(run, capsys, repository, *command)
    assert target.is_symlink() == kind.endswith("link")
    assert not (repository / ".gitignore").exists() or kind == "link"


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "folder"])
def test_parameters_are_a_file(tmp_path: Path, run: Run, capsys: Capture, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert "expected a file of parameters, found a " in refused(run, capsys, tmp_path, "graph", "--params", name)


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"\x80 not UTF-8"])
def test_a_dvc_yaml_of_other_bytes_is_another_s(repository: Path, run: Run, capsys: Capture, text: bytes) -> None:
    (repository / "dvc.yaml").write_bytes(text)
    assert "put the study into a folder of its own" in refused(run, capsys, repository, "graph")
    assert "found an older or edited file" in refused(run, capsys, repository, "graph", "--check")


def test_images_kept_inside_data_are_no_circle(study: dict[str, Any]) -> None:
    for root in ("data/raw/photos", "photos", "../photos", "data/prepared-by-hand"):
        study["datasets"]["digits"] = {"source": "imagefolder", "root": root}
        assert graph.compile_stages(parse_study(study))


def test_anchors_of_ones_own_stand_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "x-net: &net {name: mlp, widths: [8]}\nx-: 1\n"
        "datasets: {d: {source: digits}}\nteachers: {big: {model: *net, epochs: 1}}\n"
    )
    study = load_study(tmp_path / "params.yaml")
    assert study.teachers["big"].model is not None
    assert study.teachers["big"].model.name == "mlp"
    assert len(graph.compile_stages(study)) == 4


@pytest.mark.parametrize(
    "change", [{"y-net": {}}, {"xnet": {}}, {"X-net": {}}, {"datasets": {"d": {"source": "digits", "x-y": 1}}}]
)
def test_other_keys_are_refused_as_before(study: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="unknown key"):
        parse_study(study | change)


def ignored(folder: Path, path: str) -> bool:
    return subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize(
    "before", [None, "", "*.png", "*.png\n", "x\ny\na\n", "/.work/\n/data/students/\n", "data/\n.work\n"]
)
def test_what_the_stages_make_is_kept_out_of_git(
    repository: Path, run: Run, capsys: Capture, before: str | None
) -> None:
    if before is not None:
        (repository / ".gitignore").write_text(before)
    assert run(repository, "graph") == 0
    said = capsys.readouterr().out
    for path in (
        ".work/x/y",
        "data/timings/a",
        "data/students/kd",
        "data/prepared/d",
        "data/teachers/t",
        "data/cache/c",
    ):
        assert ignored(repository, path), path
    if before != "data/\n.work\n":
        assert ".gitignore: added " in said
        assert not any(
            ignored(repository, path)
            for path in ("data/cache/c.dvc", "data/metrics/kd.json", "data/report/report.md", "dvc.lock")
        )
    text = (repository / ".gitignore").read_text()
    assert text.startswith(before or "")
    assert run(repository, "graph") == 0
    assert ".gitignore" not in capsys.readouterr().out
    assert (repository / ".gitignore").read_text() == text


def test_only_the_lines_that_are_missing_are_added(repository: Path, run: Run) -> None:
    (repository / ".gitignore").write_text("\n".join(line for line in LINES if line != "/data/timings/"))
    assert run(repository, "graph") == 0
    assert (repository / ".gitignore").read_text().splitlines()[-1] == "/data/timings/"
    assert (repository / ".gitignore").read_text().count("/data/students/") == 1


def test_a_study_below_the_repositorys_top_has_lines_of_its_own(
    repository: Path, run: Run, study: dict[str, Any]
) -> None:
    (repository / ".gitignore").write_text("/data/\n")  # of the top, not of what lies below
    below = write_study(repository / "experiments/one", study)
    assert run(below, "graph") == 0
    assert ignored(below, "data/students/kd")
    assert (repository / ".gitignore").read_text() == "/data/\n"


def test_lines_that_another_file_overrules_are_named(repository: Path, run: Run, capsys: Capture) -> None:
    (repository / "data").mkdir()
    (repository / "data/.gitignore").write_text("!timings/\n")
    assert run(repository, "graph") == 0
    assert (
        capsys.readouterr().err == "warning: git may take up what the stages make: see that it ignores /data/timings/\n"
    )


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link", "git is silent"])
def test_lines_that_cannot_be_added_are_named(repository: Path, run: Run, capsys: Capture, kind: str) -> None:
    if kind == "folder":
        (repository / ".gitignore").mkdir()
    elif kind == "pipe":
        os.mkfifo(repository / ".gitignore")
    elif kind == "link":
        (repository / "real").write_text("*.log\n")
        (repository / ".gitignore").symlink_to("real")
    elif kind == "dangling link":
        (repository / ".gitignore").symlink_to("nowhere")
    else:
        (repository / ".git/config").write_text("no configuration")
    assert run(repository, "graph") == 0
    found = capsys.readouterr()
    assert ".gitignore: added" not in found.out
    assert f"see that it ignores {' '.join(LINES)}" in found.err
    assert (repository / ".gitignore").is_symlink() == kind.endswith("link")


def test_data_on_another_disk_still_needs_its_other_lines(repository: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "disk").mkdir()
    (repository / "data").symlink_to(tmp_path / "disk")  # git takes up nothing beyond a link
    assert run(repository, "graph") == 0
    assert (repository / ".gitignore").read_text().splitlines()[1:] == ["/.work/"]


def test_this_repositorys_own_lines_are_those_of_every_study() -> None:
    own = (ROOT / ".gitignore").read_text().splitlines()
    assert [line.replace("/data/", "/**/data/").replace("/.work", "/**/.work") for line in LINES] == [
        line for line in own_with_slash(own) if ".work" in line or "/data/" in line
    ]


def own_with_slash(lines: list[str]) -> list[str]:
    return [line.replace("!**", "!/**") if line.startswith("!") else f"/{line}" for line in lines]


def test_outside_of_a_repository_nothing_is_written(tmp_path: Path, study: dict[str, Any], run: Run) -> None:
    folder = write_study(tmp_path, study)
    assert run(folder, "graph") == 0
    assert not (folder / ".gitignore").exists()
    assert find_missing_lines(folder) == []


OWN = {
    "pipeline/__init__.py": "raise SystemExit('the user s own pipeline')",
    "pipeline/teacher.py": "x = 1",
    "stages/__init__.py": "raise SystemExit('the user s own stages')",
    "stages/report.py": "x = 1",
    "statistics.py": "mean = None",
    "random.py": "raise SystemExit('own random')",
    "utils.py": "raise SystemExit('own utils')",
}


def test_files_of_the_users_own_disturb_nobody(tmp_path: Path, study: dict[str, Any]) -> None:
    folder = write_study(tmp_path / "study", study)
    for name, text in OWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    code = """
import sys
sys.path.remove(sys.path[0])  # a console script does not begin with the folder that it is run in
from stages.main import main
for command in ("graph", "prepare digits"):
    sys.argv[1:] = command.split()
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
import random, statistics
assert statistics.mean([1, 3]) == 2
"""
    (tmp_path / "elsewhere.py").write_text(code)
    shell(folder, f"{sys.executable} {tmp_path / 'elsewhere.py'}", PYTHONPATH=str(ROOT))
    assert (folder / "data/prepared/digits/images.npy").exists()
    assert "pipeline/" not in (folder / "dvc.yaml").read_text()
    assert "stages/" not in (folder / "dvc.yaml").read_text()


def model_of_ones_own(study: dict[str, Any], name: str) -> dict[str, Any]:
    return study | {"students": study["students"] | {"kd": study["students"]["kd"] | {"model": {"name": name}}}}


@pytest.mark.parametrize(
    ("file", "name", "study_folder", "dep"),
    [
        ("nets_a.py", "nets_a:tiny", ".", "nets_a.py"),
        ("nets_b/small.py", "nets_b.small:tiny", ".", "nets_b/small.py"),
        ("src/nets_c/small.py", "nets_c.small:tiny", "experiments/one", "../../src/nets_c/small.py"),
    ],
)  # fmt: skip
def test_a_module_of_the_users_own_is_a_dependency_where_it_really_lies(
    repository: Path,
    study: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    name: str,
    study_folder: str,
    dep: str,
) -> None:
    path = repository / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "from torch import nn\ndef tiny(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(repository / ("src" if file.startswith("src") else "."))
    folder = repository / study_folder
    folder.mkdir(parents=True, exist_ok=True)
    changed = model_of_ones_own(study, name)
    stages = YAML(typ="safe").load(dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(changed)), folder))[
        "stages"
    ]
    assert [each for each in stages["train-student-kd"]["deps"] if each.endswith(".py")] == [dep]


def test_an_installed_package_is_no_dependency_wherever_its_environment_lies(
    repository: Path, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = repository / ".venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (packages / "nets_e.py").write_text("def tiny(shape, classes): ...\n")
    monkeypatch.syspath_prepend(packages)
    changed = model_of_ones_own(study, "nets_e:tiny")
    assert "nets_e" not in dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(changed)), repository)


@pytest.mark.parametrize("name", ["pipeline.gone:tiny", "gone.nets:tiny"])
def test_a_module_that_is_nowhere_is_no_dependency(tmp_path: Path, study: dict[str, Any], name: str) -> None:
    changed = model_of_ones_own(study, name)
    assert "gone" not in dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(changed)), checkout(tmp_path))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def tiny(shape: return\n", "SyntaxError"),
        ("raise RuntimeError('no device')\n", "RuntimeError: no device"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        ("x = 1\n", "has no 'tiny'; expected package.module:function (imported from"),
    ],
)
def test_a_module_that_is_there_and_wrong_is_refused_at_once(
    repository: Path, run: Run, capsys: Capture, study: dict[str, Any], text: str, found: str
) -> None:
    module = f"nets_f{len(text)}"
    (repository / f"{module}.py").write_text(text)
    write_study(repository, model_of_ones_own(study, f"{module}:tiny"))
    assert found in refused(run, capsys, repository, "graph")


def test_a_package_of_ours_that_hides_the_users_is_named(
    repository: Path, run: Run, capsys: Capture, study: dict[str, Any]
) -> None:
    (repository / "pipeline").mkdir()
    (repository / "pipeline/mine.py").write_text("def tiny(shape, classes): ...\n")
    write_study(repository, model_of_ones_own(study, "pipeline.mine:tiny"))
    assert run(repository, "graph") == 0
    assert re.search(r"pipeline is imported from \S+pipeline/__init__.py; rename yours", capsys.readouterr().err)


def test_a_name_that_hides_another_module_is_told_where_it_came_from(
    repository: Path, run: Run, capsys: Capture, study: dict[str, Any]
) -> None:
    (repository / "statistics.py").write_text("def tiny(shape, classes): ...\n")
    write_study(repository, model_of_ones_own(study, "statistics:tiny"))
    said = refused(run, capsys, repository, "graph")
    assert re.search(r"imported from \S+statistics.py; where you mean another module, rename yours", said)


def test_a_module_outside_of_the_repository_is_no_dependency(
    repository: Path, tmp_path: Path, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets_d.py").write_text("def tiny(shape, classes): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    changed = model_of_ones_own(study, "nets_d:tiny")
    assert "nets_d" not in dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(changed)), repository)


def checkout(folder: Path) -> Path:
    """A copy of what a checkout of this project is known by."""
    for package in room.OURS:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


def test_another_checkout_of_this_project_is_refused_while_this_ones_code_runs(
    tmp_path: Path, run: Run, capsys: Capture
) -> None:
    folder = checkout(tmp_path)
    assert run(folder, "graph") == 0  # the same bytes, as in DVC's own copies of a workspace
    assert "pipeline/student.py" in (folder / "dvc.yaml").read_text()
    with (folder / "pipeline/student.py").open("a") as file:
        file.write("# edited\n")
    for command in (("graph",), ("graph", "--check")):
        said = refused(run, capsys, folder, *command)
        assert f"other code running, from {ROOT}" in said
        assert "run `pip install -e .` here, or set PYTHONPATH to this folder" in said


def test_a_project_of_another_name_is_no_checkout_of_ours(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    assert room.is_own_checkout(folder)
    for text in ("[project]\nname = 'mine'\n", "[tool.x]\n", "not toml", "project = 1\n"):
        (folder / "pyproject.toml").write_text(text)
        assert not room.is_own_checkout(folder)
    (folder / "pyproject.toml").unlink()
    assert not room.is_own_checkout(folder)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("students.kd.optimizer.lr=0.01", {"kd"}),
        ("students.kd.epochs=80", {"kd"}),
        ("+students.kd.losses.soft_targets.temperature=10.0", {"kd"}),
        ("students.shared.optimizer.lr=0.01", {"baseline", "shared"}),  # what the page warns of
        ("students.baseline.optimizer.lr=0.01", set()),  # likewise
        ("students.shared.epochs=80", {"shared"}),
        ("students.baseline.epochs=80", {"baseline"}),
    ],
)
def test_an_experiment_changes_what_the_page_says(tmp_path: Path, override: str, changed: set[str]) -> None:
    """The students of docs/experiments.md, and one that shares its blocks; edited as `dvc exp run -S` does it."""
    from dvc.utils.hydra import apply_overrides

    page = (ROOT / "docs/experiments.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    data = "datasets: {d: {source: digits}}\nteachers: {big: {model: {name: mlp, widths: [8]}, epochs: 1}}\n"
    dumps = "dumps: {l: {field: logits, of: big}}\n"
    path = tmp_path / "params.yaml"
    path.write_text(data + dumps + page + "  shared:\n    <<: *small\n    losses: {soft_targets: {}}\n")
    before = load_study(path).students
    assert before.keys() == {"baseline", "kd", "shared"}
    apply_overrides(path, [override])
    after = load_study(path).students
    assert {name for name in before if before[name] != after[name]} == changed
