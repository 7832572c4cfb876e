"""Real `dvc` runs of a small study on its own images, in clones that share only a remote."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.conftest import STUDY as DIGITS
from tests.conftest import shell, write_study
from tests.warm import Programs

pytestmark = pytest.mark.dvc

STUDY: dict[str, Any] = {
    "datasets": {"photos": {"source": "imagefolder", "root": "photos", "validation": 0.25}},
    "teachers": {"big": {"model": {"name": "mlp", "widths": [16]}, "epochs": 3}},
    "dumps": {"big-logits": {"field": "logits", "of": "big"}},
    "students": {
        name: {"model": {"name": "mlp", "widths": [4]}, "epochs": 3, "losses": losses}
        for name, losses in {"baseline": {"ce": {}}, "kd": {"soft_targets": {"temperature": 4.0}}}.items()
    },
}


def photos(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, name in enumerate(("dark", "grey", "light")):
            (folder / part / name).mkdir(parents=True)
            for number in range(20):
                pixels = generator.integers(label * 85, label * 85 + 85, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after `dvc repro`, `dvc push` and a commit; its first run's output is kept."""
    base = tmp_path_factory.mktemp("dvc")
    folder = base / "origin"
    photos(folder / "photos")
    write_study(folder, STUDY)
    (folder / ".gitignore").write_text("/photos\n.work/\ndata/timings/\n")
    shell(folder, "git init -q -b main && git config user.name t && git config user.email t@t")
    shell(folder, "dvc init -q && dvc config core.analytics false && dvc config core.check_update false")
    shell(folder, f"dvc remote add -q -d shared {base / 'remote'}")
    shell(folder, "teachercache graph && git add -A && git commit -qm start")
    (base / "first.log").write_text(shell(folder, "dvc repro"))
    shell(folder, "dvc push -q && git add -A && git commit -qm made")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    shell(tmp_path, f"git clone -q {origin} clone")
    shell(tmp_path / "clone", "git config user.name t && git config user.email t@t")
    return tmp_path / "clone"


def lock(folder: Path) -> dict[str, str]:
    stages = YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def ran(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]


def edit(folder: Path, change: Any) -> None:
    study = YAML(typ="safe").load((folder / "params.yaml").read_text())
    change(study)
    write_study(folder, study)


def test_a_second_run_does_nothing(origin: Path) -> None:
    first = (origin.parent / "first.log").read_text()
    assert ran(first)[0] == "graph"
    assert set(ran(first)) == {
        "graph", "prepare-photos", "train-teacher-big", "dump-logits-big-logits", "train-student-baseline",
        "train-student-kd", "report",
    }  # fmt: skip
    again = shell(origin, "dvc repro")
    assert ran(again) == []
    assert "Data and pipelines are up to date." in again


@pytest.fixture
def others() -> Iterator[Programs]:
    """Programs as of another machine: their sets, say, are in another order."""
    with TemporaryDirectory() as folder, closing(Programs(Path(folder))) as programs:
        yield programs


def test_another_clone_makes_the_same_bytes(origin: Path, clone: Path, others: Programs) -> None:
    shutil.copytree(origin / "photos", clone / "photos")
    (clone / "dvc.lock").unlink()
    shutil.rmtree(clone / "data")
    order = "python -c 'print(hash(\"name\"))'"
    assert shell(clone, order) != shell(clone, order, PATH=others.path)
    assert len(ran(shell(clone, "dvc repro", PATH=others.path))) == 7
    assert lock(clone) == lock(origin)
    assert len(lock(clone)) == 10
    report = "data/report/report.html"
    assert (clone / report).read_bytes() == (origin / report).read_bytes()


def nothing_but_the_cache(folder: Path) -> bool:
    return not (folder / "photos").exists() and not list(folder.glob("data/teachers/**/*.safetensors"))


def test_an_edited_student_trains_without_teacher_and_raw_data(origin: Path, clone: Path) -> None:
    edit(clone, lambda study: study["students"]["kd"]["losses"]["soft_targets"].update(temperature=2.0))
    output = shell(clone, "teachercache graph && dvc repro --pull --allow-missing train-student-kd")
    assert ran(output) == ["train-student-kd"]
    assert nothing_but_the_cache(clone)
    metrics, before = (json.loads((folder / "data/metrics/students/kd.json").read_text()) for folder in (clone, origin))
    assert metrics["consumed"] == before["consumed"]
    assert lock(clone)["data/students/kd"] != lock(origin)["data/students/kd"]


def test_a_new_student_trains_without_teacher_and_raw_data(clone: Path) -> None:
    edit(clone, lambda study: study["students"].update(mse={**study["students"]["kd"], "losses": {"logits_mse": {}}}))
    output = shell(clone, "teachercache graph && dvc repro --pull --allow-missing train-student-mse")
    assert ran(output) == ["train-student-mse"]
    assert nothing_but_the_cache(clone)
    assert (clone / "data/students/mse/seed-0/weights.safetensors").exists()


def test_a_student_in_the_lock_trains_again_without_teacher_and_raw_data(origin: Path, clone: Path) -> None:
    shell(clone, "dvc pull -q prepare-photos dump-logits-big-logits")
    assert not list(clone.glob("data/students/**/*.safetensors"))
    assert ran(shell(clone, "dvc repro -f -s train-student-kd")) == ["train-student-kd"]
    assert nothing_but_the_cache(clone)
    assert lock(clone) == lock(origin)


def changed(folder: Path) -> set[str]:
    """The stages that `dvc status` names."""
    return set(json.loads(shell(folder, "dvc status --json")))


def test_only_what_depends_on_a_change_runs_again(clone: Path, origin: Path) -> None:
    shutil.copytree(origin / "photos", clone / "photos")
    shell(clone, "dvc pull -q")
    assert changed(clone) == set()

    edit(clone, lambda study: study["students"]["kd"]["losses"]["soft_targets"].update(temperature=3.0))
    assert changed(clone) == {"graph", "train-student-kd", "report"}
    assert ran(shell(clone, "dvc repro")) == ["graph", "train-student-kd", "report"]

    edit(clone, lambda study: study["students"].update(more=study["students"]["kd"]))
    assert changed(clone) == {"graph", "report"}
    shell(clone, "teachercache graph")
    assert changed(clone) == {"graph", "train-student-more", "report"}
    assert ran(shell(clone, "dvc repro")) == ["graph", "train-student-more", "report"]

    edit(clone, lambda study: study["teachers"]["big"].update(optimizer={"name": "adam", "lr": 0.002}))
    assert changed(clone) == {"graph", "train-teacher-big", "report"}
    assert ran(shell(clone, "dvc repro")) == [
        "graph", "train-teacher-big", "dump-logits-big-logits", "train-student-kd", "train-student-more", "report",
    ]  # fmt: skip

    edit(clone, lambda study: study["students"].pop("more"))
    assert ran(shell(clone, "teachercache graph && dvc repro")) == ["graph", "report"]  # it shows those that are left


def test_a_stale_graph_stops_the_run_at_its_first_stage(clone: Path) -> None:
    edit(clone, lambda study: study["students"].pop("baseline"))
    output = shell(clone, "dvc repro || echo stopped")
    assert "stopped" in output
    assert ran(output) == ["graph"]
    single = shell(clone, "dvc repro -f -s train-student-kd || echo stopped")  # no stage runs on a stale graph
    assert "stopped" in single
    assert "run `teachercache graph`, then `dvc repro`" in single
    assert "found an older or edited file; run `teachercache graph`, then `dvc repro`" in output


def test_a_repository_without_a_commit_and_without_dvc_is_left_alone(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    write_study(tmp_path, STUDY)
    shell(tmp_path, "git init -q && teachercache prepare photos && teachercache train-teacher big")
    assert (tmp_path / "data/teachers/big/curves/plots/metrics/train/loss.tsv").exists()
    assert not (tmp_path / ".dvc").exists()
    assert shell(tmp_path, "git status --porcelain --untracked-files=no") == ""


def test_metrics_and_plots_are_dvcs_too(origin: Path) -> None:
    metrics = json.loads(shell(origin, "dvc metrics show --json"))
    shown = metrics[""]["data"]["data/metrics/report/summary.json"]["data"]
    assert set(shown) == {"teachers", "students"}
    page = shell(origin, "dvc plots show --json")
    assert "accuracy.png" in page


def test_a_stage_of_several_dumps_makes_the_bytes_of_each_alone(origin: Path, clone: Path) -> None:
    hints = {"field": "hints", "of": "big"}
    edit(clone, lambda study: study["dumps"].update({"big-hints": hints}))
    shutil.copytree(origin / "photos", clone / "photos")
    shell(clone, "dvc checkout -q --allow-missing || true")
    together = shell(clone, "teachercache graph && dvc repro --pull dumps-big")
    assert ran(together) == ["dumps-big"]
    assert "dvc commit" not in together
    assert lock(clone)["data/cache/big-logits"] == lock(origin)["data/cache/big-logits"]
    assert (clone / "data/timings/dumps-big/timings.json").is_file()
    made = lock(clone)["data/cache/big-hints"]
    trained = "teachercache graph && dvc repro --pull --allow-missing train-student-kd"
    assert "train-student-kd" not in ran(shell(clone, trained))  # what it reads has the bytes of before
    edit(clone, lambda study: study.update(apart=["big-hints"]))
    apart = shell(clone, "teachercache graph && dvc repro --pull dump-hints-big-hints")
    assert ran(apart) == ["dump-hints-big-hints"]
    assert lock(clone)["data/cache/big-hints"] == made


def test_two_of_a_queue_are_trained_at_a_time_from_the_cache(tmp_path: Path) -> None:
    """As docs/experiments.md has it: neither trains the teacher, each has a result, the workspace stays as it was."""
    folder = write_study(tmp_path / "queue", DIGITS)
    shell(folder, "git init -q -b main && git config user.name t && git config user.email t@t")
    shell(folder, "dvc init -q && dvc config core.analytics false && dvc config core.check_update false")
    shell(folder, "teachercache graph && dvc repro && git add -A && git commit -qm made")
    before = lock(folder)
    for temperature in ("2.0", "8.0"):
        option = f"students.kd.losses.soft_targets.temperature={temperature}"
        shell(folder, f"dvc exp run --queue -n at-{temperature[0]} -S {option}")
    shell(folder, "dvc queue start -j 2")
    deadline = time.monotonic() + 240
    while "Queued" in (told := shell(folder, "dvc queue status")) or "Running" in told:
        assert time.monotonic() < deadline, told
        time.sleep(1.0)
    assert told.count("Success") == 2, told
    assert lock(folder) == before
    weights = {json.loads((folder / "data/metrics/students/kd.json").read_text())["weights_sha256"][0]}
    for name in ("at-2", "at-8"):
        assert "train-teacher-big" not in ran(shell(folder, f"dvc queue logs {name}"))
        metrics = json.loads(shell(folder, f"git show {find_experiment(folder, name)}:data/metrics/students/kd.json"))
        weights.add(metrics["weights_sha256"][0])
    assert len(weights) == 3


def find_experiment(folder: Path, name: str) -> str:
    """The commit in which DVC keeps an experiment."""
    refs = shell(folder, "git for-each-ref --format '%(objectname) %(refname)' refs/exps").splitlines()
    return next(line.split()[0] for line in refs if line.endswith(f"/{name}"))
