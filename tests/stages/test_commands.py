from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from pipeline import cache
from pipeline.base.files import hash_file, hold_lock
from pipeline.datasets.dataset import load_dataset, save_dataset
from stages import cli
from tests.conftest import Capture, Run, programs, refused, warm_python, write_study


def test_the_whole_flow_makes_what_it_says(made: Path) -> None:
    card = json.loads((made / "data/students/kd/seed-1/card.json").read_text())
    metrics = json.loads((made / "data/metrics/students/kd.json").read_text())
    manifest = cache.open(made / "data/cache/big-logits").manifest
    assert metrics["consumed"] == card["consumed"] == {"big-logits": manifest.root}
    assert metrics["test_accuracy"]["n"] == len(metrics["test_accuracy_per_seed"]) == 2
    assert metrics["test_accuracy"]["mean"] == pytest.approx(np.mean(metrics["test_accuracy_per_seed"]))
    assert metrics["test_accuracy"]["std"] == pytest.approx(np.std(metrics["test_accuracy_per_seed"], ddof=1))
    assert metrics["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert metrics["bytes"] == 4 * metrics["parameters"]
    cost = {"multiply_adds": 64 * 8 + 8 * 10, "activation_bytes": 4 * (64 + 8)}
    assert {**metrics, **cost} == metrics
    assert {**card, **cost} == card
    assert metrics["taught_by"] == ["big"]
    assert (
        manifest.teacher.weights_sha256
        == json.loads((made / "data/teachers/big/card.json").read_text())["weights_sha256"]
    )
    rows = (made / "data/students/kd/seed-0/curves/plots/metrics/validation/accuracy.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["step", "accuracy"]
    assert len(rows) == 1 + 2
    assert not (made / ".work/train-student-kd").exists()


def test_students_of_one_seed_start_alike_and_other_seeds_differ(made: Path) -> None:
    states = {
        (name, seed): load_file(made / f"data/students/{name}/seed-{seed}/weights.safetensors")
        for name in ("baseline", "kd") for seed in (0, 1)
    }  # fmt: skip
    first = [state["body.fc1.weight"] for state in states.values()]
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_every_command_answers_help(run: Run, tmp_path: Path, capsys: Capture) -> None:
    for command in ("graph", "prepare", "train-teacher", "dump-logits", "train-student", "report"):
        assert run(tmp_path, command, "--help") == 0
        assert "--params" in capsys.readouterr().out


def test_every_stage_is_a_module_of_its_own(made: Path, copy_of: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stages.graph"], cwd=copy_of, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("prepare digits", "dump_logits big-logits", "report"):
        done = warm_python(copy_of, "-m", *f"stages.{command}".split())
        assert done.returncode == 0, done.stderr


def test_params_may_lie_elsewhere(run: Run, copy_of: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy_of / "data/prepared")
    assert run(tmp_path, "prepare", "digits", "--params", str(copy_of / "params.yaml")) == 0
    assert (copy_of / "data/prepared/digits/dataset.json").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("prepare nobody", "datasets: unknown name 'nobody': expected one of digits"),
        ("train-teacher bug", "teachers: unknown name 'bug': expected one of big; did you mean 'big'?"),
        ("dump-logits nobody", "dumps: unknown name 'nobody'"),
        ("train-student nobody", "students: unknown name 'nobody'"),
        ("train-teacher big --device tpu", "--device: expected auto, cpu, cuda or cuda:NUMBER, found tpu"),
        ("train-teacher big --device cpu:1", "--device: expected"),
        ("train-teacher big --device cpu:", "--device: expected"),
    ],
)
def test_a_name_that_nobody_has(run: Run, capsys: Capture, made: Path, command: str, message: str) -> None:
    assert message in refused(run, capsys, made, *command.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(run: Run, capsys: Capture, made: Path) -> None:
    assert "expected one of 0 CUDA devices" in refused(run, capsys, made, "train-teacher", "big", "--device", "cuda")


@pytest.mark.parametrize(
    ("remove", "command", "message", "under_dvc"),
    [
        ("prepared", "train-teacher big", "run `teachercache prepare digits`", "run `teachercache prepare digits`"),
        ("teachers", "dump-logits big-logits", "run `teachercache train-teacher big`", "run `dvc repro train-teacher-big`"),
        ("cache", "train-student kd", "run `teachercache dump-logits big-logits`", "run `dvc repro dump-logits-big-logits`"),
        ("metrics", "report", "run `teachercache train-teacher big`", "run `dvc repro train-teacher-big`"),
        ("metrics/students", "report", "run `teachercache train-student baseline`", "run `dvc repro train-student-baseline`"),
        ("students", "export kd --to x", "run `teachercache train-student kd`", "run `dvc repro train-student-kd`"),
        ("students", "predict kd params.yaml", "run `teachercache train-student kd`", "run `dvc repro train-student-kd`"),
    ],
)  # fmt: skip
def test_a_stage_says_what_is_missing_and_advises_dvc_only_where_it_is(
    run: Run, capsys: Capture, copy_of: Path, remove: str, command: str, message: str, under_dvc: str
) -> None:
    shutil.rmtree(copy_of / "data" / remove)
    said = refused(run, capsys, copy_of, *command.split())
    assert message in said
    assert "dvc" not in said
    assert run(copy_of, "graph") == 0
    assert message in refused(run, capsys, copy_of, *command.split())  # a graph alone is no DVC
    (copy_of.parent / ".dvc").mkdir()  # the repository lies around the study
    assert under_dvc in refused(run, capsys, copy_of, *command.split())


def change_dataset(folder: Path, run: Run, **options: object) -> None:
    study = study_of(folder)
    study["datasets"]["digits"] |= options
    write_study(folder, study)
    assert run(folder, "prepare", "digits") == 0


def study_of(folder: Path) -> dict[str, Any]:
    study: dict[str, Any] = YAML(typ="safe").load((folder / "params.yaml").read_text())
    return study


def test_a_cache_of_another_order_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    change_dataset(copy_of, run, validation={"first": 101})
    message = refused(run, capsys, copy_of, "train-student", "kd")
    assert "is another one than expected: dataset.fingerprint expected" in message
    assert "run `teachercache dump-logits big-logits`" in message


def test_a_cache_of_other_samples_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["dumps"]["big-logits"]["samples"] = "all"
    write_study(copy_of, study)
    assert "rows expected 660, found 200" in refused(run, capsys, copy_of, "train-student", "kd")
    assert run(copy_of, "dump-logits", "big-logits") == 0
    assert run(copy_of, "train-student", "kd") == 0


def test_a_cache_of_another_teacher_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["teachers"]["big"]["epochs"] = 3
    write_study(copy_of, study)
    assert run(copy_of, "train-teacher", "big") == 0
    assert "teacher.weights_sha256 expected" in refused(run, capsys, copy_of, "train-student", "kd")
    study["teachers"]["big"]["model"]["widths"] = [17]
    write_study(copy_of, study)
    assert "teacher.architecture.widths expected [17]" in refused(run, capsys, copy_of, "train-student", "kd")
    study["teachers"]["other"] = study["teachers"]["big"]
    study["dumps"]["big-logits"]["of"] = "other"
    write_study(copy_of, study)
    assert "teacher.name expected other, found big" in refused(run, capsys, copy_of, "train-student", "kd")


def test_a_cache_of_another_class_count_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    """The same pixels and labels under a class more."""
    folder = copy_of / "data/prepared/digits"
    digits = load_dataset(folder)
    save_dataset(replace(digits, classes=(*digits.classes, "ten")), folder)
    assert "dataset.classes expected ['0', '1'" in refused(run, capsys, copy_of, "train-student", "kd")
    assert "its 10 classes" in refused(run, capsys, copy_of, "dump-logits", "big-logits")


def test_changed_parameters_of_a_dump_are_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["cache"] = {"format": "hdf5", "dtype": "float16"}
    write_study(copy_of, study)
    message = refused(run, capsys, copy_of, "train-student", "kd")
    assert "field.parameters.dtype expected float16, found float32" in message
    assert "store expected hdf5, found zarr" in message
    assert run(copy_of, "dump-logits", "big-logits") == 0
    assert run(copy_of, "train-student", "kd") == 0


def test_nan_weights_are_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    path = copy_of / "data/teachers/big/weights.safetensors"
    state = load_file(path)
    state["body.fc1.weight"][3, 3] = float("nan")
    save_file(state, path)
    message = refused(run, capsys, copy_of, "dump-logits", "big-logits")
    assert "weights.safetensors: expected SHA-256" in message
    card = copy_of / "data/teachers/big/card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "weights_sha256": hash_file(path)}))
    message = refused(run, capsys, copy_of, "dump-logits", "big-logits")
    assert "expected finite numbers as float32, found NaN or inf in 'body.fc1.weight'" in message


def test_other_weights_than_the_card_names_are_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    path = copy_of / "data/teachers/big/weights.safetensors"
    state = load_file(path)
    save_file({name: tensor * 2 for name, tensor in state.items()}, path)
    assert "expected SHA-256" in refused(run, capsys, copy_of, "dump-logits", "big-logits")


def test_logits_beyond_float16_are_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["cache"]["dtype"] = "float16"
    study["teachers"]["loud"] = {"model": {"name": "mlp", "widths": [16]}, "weights": "loud.safetensors"}
    study["dumps"]["loud-logits"] = {"field": "logits", "of": "loud"}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    write_study(copy_of, study)
    state = load_file(copy_of / "data/teachers/big/weights.safetensors")
    save_file({name: tensor * 3000 for name, tensor in state.items()}, copy_of / "loud.safetensors")
    assert run(copy_of, "train-teacher", "loud") == 0
    message = refused(run, capsys, copy_of, "dump-logits", "loud-logits")
    assert "logits of teacher 'loud' for sample 0: expected finite float16 numbers" in message
    assert "dump with dtype: float32" in message
    assert not (copy_of / "data/cache/loud-logits").exists()


def test_a_teacher_from_a_file_and_an_ensemble(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    model = {"name": "mlp", "widths": [16]}
    study["teachers"] |= {"ready": {"model": model, "weights": "ready.pt"}, "both": {"members": ["big", "ready"]}}
    study["dumps"]["both-logits"] = {"field": "logits", "of": "both"}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "both-logits"
    write_study(copy_of, study)
    state = load_file(copy_of / "data/teachers/big/weights.safetensors")
    torch.save({name.removeprefix("body."): tensor for name, tensor in state.items()}, copy_of / "ready.pt")
    for command in ("train-teacher ready", "train-teacher both", "dump-logits both-logits", "train-student kd"):
        assert run(copy_of, *command.split()) == 0
    big, ready, both = (
        json.loads((copy_of / f"data/metrics/teachers/{name}.json").read_text()) for name in ("big", "ready", "both")
    )
    assert big["test_accuracy"] == ready["test_accuracy"] == both["test_accuracy"]
    assert both["multiply_adds"] == 2 * big["multiply_adds"] == 2 * (64 * 16 + 16 * 10)
    assert np.array_equal(
        cache.open(copy_of / "data/cache/both-logits").load(), cache.open(copy_of / "data/cache/big-logits").load()
    )
    study["teachers"]["ready"]["model"] = {"name": "mlp", "widths": [17]}
    write_study(copy_of, study)
    message = refused(run, capsys, copy_of, "train-teacher", "ready")
    assert "expected fc1.bias of shape (17,), found (16,)" in message or "fc1.weight" in message


def test_a_dump_of_a_student(run: Run, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["dumps"]["of-student"] = {"field": "logits", "of": "baseline", "of_seed": 1}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "of-student"
    write_study(copy_of, study)
    assert run(copy_of, "dump-logits", "of-student") == 0
    assert run(copy_of, "train-student", "kd") == 0
    assert cache.open(copy_of / "data/cache/of-student").manifest.teacher.name == "baseline"


def test_a_cache_of_another_seed_of_a_student_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["dumps"]["of-student"] = {"field": "logits", "of": "baseline", "of_seed": 0}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "of-student"
    write_study(copy_of, study)
    assert run(copy_of, "dump-logits", "of-student") == 0
    study["dumps"]["of-student"]["of_seed"] = 1
    write_study(copy_of, study)
    message = refused(run, capsys, copy_of, "train-student", "kd")
    assert "teacher.seed expected 1, found 0" in message
    assert "teacher.weights_sha256 expected" in message


def test_an_ensemble_of_other_images_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["datasets"]["larger"] = {"source": "digits", "size": 12}
    for part in [*study["teachers"].values(), *study["students"].values(), *study["dumps"].values()]:
        part["dataset"] = "digits"
    study["teachers"]["pair"] = {"members": ["big", "big"], "dataset": "larger"}
    write_study(copy_of, study)
    assert run(copy_of, "prepare", "larger") == 0
    assert "member 'big': expected images of (1, 8, 8)" in refused(run, capsys, copy_of, "train-teacher", "pair")


def test_where_weights_lay_is_told_nowhere(run: Run, copy_of: Path) -> None:
    study = study_of(copy_of)
    torch.save(torchvision.models.get_model("squeezenet1_1", num_classes=10).state_dict(), copy_of / "secret.pt")
    model = {"name": "torchvision:squeezenet1_1", "weights": str(copy_of / "secret.pt")}
    study["datasets"]["digits"]["size"] = 32
    study["teachers"]["big"] = {"model": model, "epochs": 1, "batch_size": 100}
    write_study(copy_of, study)
    for command in ("prepare digits", "train-teacher big", "dump-logits big-logits", "train-student kd"):
        assert run(copy_of, *command.split()) == 0
    for path in (copy_of / "data").rglob("*.json"):
        assert "secret" not in path.read_text(), path


def test_a_report_goes_by_the_seeds_that_were_trained(run: Run, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["students"]["kd"]["seeds"] = 3
    write_study(copy_of, study)
    assert run(copy_of, "report") == 0


def test_a_damaged_metrics_file_is_named(run: Run, capsys: Capture, copy_of: Path) -> None:
    (copy_of / "data/metrics/students/kd.json").write_text("{}")
    assert "kd.json: expected the key 'test_accuracy', found none such" in refused(run, capsys, copy_of, "report")


def test_params_that_are_a_folder(run: Run, capsys: Capture, tmp_path: Path) -> None:
    assert "expected a file of parameters, found a folder; name the file itself" in refused(
        run, capsys, tmp_path, "graph", "--params", str(tmp_path)
    )


def test_a_teacher_of_other_images_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["datasets"]["larger"] = {"source": "digits", "size": 12}
    for part in [*study["teachers"].values(), *study["students"].values()]:
        part["dataset"] = "digits"
    study["dumps"]["larger"] = {"field": "logits", "of": "big", "dataset": "larger"}
    write_study(copy_of, study)
    assert run(copy_of, "prepare", "larger") == 0
    message = refused(run, capsys, copy_of, "dump-logits", "larger")
    assert "expected images of (1, 8, 8), as it was trained on, found data set 'larger' with (1, 12, 12)" in message


def test_a_diverging_teacher_names_the_step(run: Run, capsys: Capture, copy_of: Path) -> None:
    study = study_of(copy_of)
    study["teachers"]["big"] |= {"optimizer": {"name": "sgd", "lr": 1e20}}
    write_study(copy_of, study)
    message = refused(run, capsys, copy_of, "train-teacher", "big")
    assert "teacher 'big': loss term 'ce' at step " in message
    assert (copy_of / "data/teachers/big/card.json").exists()  # the old teacher is still there


def as_nobody(action: Callable[[], int]) -> tuple[int, str]:
    """Run an action in a child process of an unprivileged user; its result and standard error."""
    cli.printable("")  # loads what a refusal needs: the user may not be allowed to read our files
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)  # pytest had put its own in its place
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            code = action()
        except Exception:  # noqa: BLE001 - all is told
            traceback.print_exc()
        finally:
            os._exit(code)  # whatever happens, this is no second run of all tests
    os.close(writing)
    with os.fdopen(reading) as pipe:
        output = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("command", ["prepare digits", "dump-logits big-logits", "train-student baseline"])
def test_no_permission_to_write(run: Run, copy_of: Path, command: str) -> None:
    before = {path: path.read_bytes() for path in copy_of.rglob("*") if path.is_file()}
    assert run(copy_of, *command.split()) == 0  # so that the child finds every module loaded
    changed = [path for path, data in before.items() if path.exists() and path.read_bytes() != data]
    assert all(path.name == "timings.json" for path in changed)
    for path in [*copy_of.parents][:4]:
        path.chmod(0o755)
    shutil.rmtree(copy_of / ".work", ignore_errors=True)
    code, error = as_nobody(lambda: run(copy_of, *command.split()))
    assert code == 2, error
    assert "expected permission to read and write here, found Permission denied" in error
    assert error.count("\n") == 1


def test_a_full_disk_in_the_middle_of_a_dump(run: Run, capsys: Capture, copy_of: Path) -> None:
    """The study lies on a file system with room for its files, but not for the dump."""
    small = copy_of.parent / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        folder = Path(shutil.copytree(copy_of, small / "study"))
        shutil.rmtree(folder / "data/cache")
        (small / "filler").write_bytes(b"\0" * (shutil.disk_usage(small).free - 8192))
        assert "disk full while writing" in refused(run, capsys, folder, "dump-logits", "big-logits")
        assert not (folder / "data/cache/big-logits").exists()
        assert "manifest.json" in refused(run, capsys, folder, "train-student", "kd")
        (small / "filler").unlink()
        assert run(folder, "dump-logits", "big-logits") == 0
        assert run(folder, "train-student", "kd") == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "output"), [("train-teacher big", "teachers/big"), ("train-student kd", "students/kd")]
)
def test_a_killed_training_resumes(run: Run, copy_of: Path, command: str, output: str) -> None:
    study = study_of(copy_of)
    for part in (study["teachers"]["big"], study["students"]["kd"]):
        part["epochs"] = 120
    study["dumps"]["big-logits"] |= {"dtype": "float32"}
    write_study(copy_of, study)
    if "student" in command:  # its teacher's dump must be of the longer training
        assert run(copy_of, "train-teacher", "big") == 0
        assert run(copy_of, "dump-logits", "big-logits") == 0
    code = (
        "import os; print(os.getpid(), flush=True); import pipeline.training.fit as fit; "
        "fit.CHECKPOINT_SECONDS = 0; "
        "from stages.main import main; main()"
    )
    python = programs().folder / "python"
    child = subprocess.Popen([python, "-c", code, *command.split()], cwd=copy_of, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    number = int(child.stdout.readline())
    work = copy_of / ".work" / command.replace(" ", "-")
    deadline = time.monotonic() + 60
    while not list(work.glob("*/checkpoint-0.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    checkpoint = next(work.glob("*/checkpoint-0.pt"))
    epochs = len(torch.load(checkpoint, weights_only=True)[0]["trainees"][0]["history"])
    assert 0 < epochs < 120, "it was not killed in the middle"
    assert run(copy_of, *command.split()) == 0
    resumed = tree(copy_of / "data" / output)
    assert not work.exists()
    assert run(copy_of, *command.split()) == 0  # from the start this time
    assert tree(copy_of / "data" / output) == resumed


def test_a_second_run_of_a_stage_is_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    with hold_lock(copy_of / ".work/train-teacher-big.lock"):
        assert "a running process that writes the same output" in refused(run, capsys, copy_of, "train-teacher", "big")


POISONED = """
import importlib.abc, sys
class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("pipeline.teacher", "pipeline.dumps.dump_fields", "stages.dump"):
            raise SystemExit(f"a student reached for {name}")
sys.meta_path.insert(0, Poison())
from stages import cli
from stages.train_student import train_student
cli.main(train_student)
"""


def test_a_student_never_reaches_for_a_teacher(copy_of: Path) -> None:
    shutil.rmtree(copy_of / "data/teachers")
    before = tree(copy_of / "data/students/kd")
    shutil.rmtree(copy_of / "data/students")
    done = subprocess.run(
        [sys.executable, "-c", POISONED, "kd"], cwd=copy_of, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tree(copy_of / "data/students/kd") == before
    reaching = POISONED.replace("from stages import cli", "import pipeline.teacher\nfrom stages import cli")
    done = subprocess.run(
        [sys.executable, "-c", reaching, "kd"], cwd=copy_of, capture_output=True, text=True, check=False
    )
    assert "a student reached for pipeline.teacher" in done.stderr


def test_your_own_images(run: Run, tmp_path: Path, capsys: Capture, study: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 10)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(label * 128, label * 128 + 128, (9, 11, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / f"photos/{part}/{name}/{number}.png")
    study["datasets"] = {"photos": {"source": "imagefolder", "root": "photos", "size": 8, "validation": 0.2}}
    for part in (study["teachers"]["big"], study["students"]["kd"]):
        part |= {"epochs": 80, "optimizer": {"name": "adam", "lr": 0.01}}
    write_study(tmp_path, study)
    for command in ("prepare photos", "train-teacher big", "dump-logits big-logits", "train-student kd"):
        assert run(tmp_path, *command.split()) == 0
    assert "photos: 48 train, 12 validation, 20 test images of (3, 8, 8), 2 classes" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "data/metrics/students/kd.json").read_text())
    assert metrics["test_accuracy"]["mean"] > 0.9
    shutil.rmtree(tmp_path / "photos/test/light")
    assert (
        "expected the same class folders in train and test, found only in train: light; put images into test/light, or take train/light away"
        in refused(run, capsys, tmp_path, "prepare", "photos")
    )
    assert (tmp_path / "data/prepared/photos/dataset.json").exists()
