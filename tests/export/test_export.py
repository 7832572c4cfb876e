from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_json, write_bytes
from pipeline.export import folder as room
from pipeline.export import onnx_graph
from pipeline.models.build import build_network
from tests.conftest import ROOT, Capture, Run, refused, sweep, warm_python, write_study
from tests.students import CLASSES, network_of, pixels, save_photos, study_of, untrained

SMALL = {"model": {"name": "mlp", "widths": [6], "mean": (0.5,), "std": (0.25,)}}
WHOLE = {"card.json", "card.md", "weights.safetensors"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study with one untrained student."""
    return untrained(tmp_path / "study", {"small": SMALL})


@pytest.fixture
def exported(run: Run, small: Path, tmp_path: Path) -> Path:
    assert run(small, "export", "small", "--to", str(tmp_path / "out")) == 0
    return tmp_path / "out"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")}


def python(code: str, folder: Path) -> str:
    """What another process prints, in a folder that is no study."""
    done = warm_python(folder, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_trained_student_is_handed_on_with_all_that_its_card_says(run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(made, "export", "kd", "--seed", "1", "--to", str(out)) == 0
    assert {path.name for path in out.iterdir()} == WHOLE
    card = json.loads((out / "card.json").read_text())
    own = json.loads((made / "data/students/kd/seed-1/card.json").read_text())
    metrics = json.loads((made / "data/metrics/students/kd.json").read_text())
    assert {key: card[key] for key in own} == own
    assert card["test_accuracy"] == metrics["test_accuracy_per_seed"][1]
    assert card["rule"] == metrics["rule"]
    assert card["parameters"] == metrics["parameters"]
    assert (card["multiply_adds"], card["activation_bytes"]) == (metrics["multiply_adds"], metrics["activation_bytes"])
    assert card["consumed"] == {"big-logits": cache.open(made / "data/cache/big-logits").manifest.root}
    assert (out / "weights.safetensors").read_bytes() == (
        made / "data/students/kd/seed-1/weights.safetensors"
    ).read_bytes()


def test_the_page_says_it_to_people(exported: Path) -> None:
    page, card = (exported / "card.md").read_text(), json.loads((exported / "card.json").read_text())
    for wanted in (
        "# small, seed 0", "| **all** | 50.00 |", "| cat | 25.00 |", "| dog | 75.00 |", "| eel | no test images |",
        "here (B, 1, 8, 8): grey, 8 high, 8 wide", "mean [0.5], std [0.25]", "logits (B, 3)", "a network",
        "labels alone", card["weights_sha256"], card["dataset"]["fingerprint"],
    ):  # fmt: skip
        assert wanted.lower() in page.lower(), wanted
    assert card["preprocessing"]["mean"] == [0.5]
    assert card["preprocessing"]["size"] == [8, 8]
    assert "onnx" not in page


def test_the_same_student_gives_the_same_bytes_wherever_it_lies(run: Run, small: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(small, tmp_path / "elsewhere"))
    shutil.rmtree(elsewhere / "data/prepared")  # weights and params.yaml are enough
    for folder, to in ((small, "a"), (elsewhere, "b")):
        assert run(folder, "export", "small", "--to", str(tmp_path / to)) == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not any(str(tmp_path).encode() in data for data in tree(tmp_path / "a").values())


def test_a_relative_target_starts_where_the_user_stands(run: Run, small: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "export", "small", "--to", "new/out", "--params", str(small / "params.yaml")) == 0
    assert {path.name for path in (tmp_path / "new/out").iterdir()} == WHOLE
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"out"}, "work is left over"


def test_entries_that_nobody_here_knows_are_handed_on(run: Run, small: Path, tmp_path: Path) -> None:
    own = small / "data/students/small/seed-0/card.json"
    more = {"init": {"student": "older", "weights_sha256": "ab" * 32}, "peers": ["x|`y`", "\x1b[2J"]}
    own.write_bytes(encode_json({**json.loads(own.read_text()), **more}))
    assert run(small, "export", "small", "--to", str(tmp_path / "out")) == 0
    card = room.read_card(tmp_path / "out")
    assert {key: card[key] for key in more} == more
    page = (tmp_path / "out/card.md").read_text()
    assert "ab" * 32 in page
    assert "- peers: " in page
    assert "\x1b" not in page


def test_class_names_do_nothing_to_the_page(run: Run, tmp_path: Path) -> None:
    names = ("a|b\n# c", "<img src=x>", "\x1b[2J`", "[d](http://e)")
    folder = untrained(tmp_path / "study", {"small": SMALL}, classes=names)
    assert run(folder, "export", "small", "--to", str(tmp_path / "out")) == 0
    page = (tmp_path / "out/card.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "class" not in line]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3] * 5
    assert "\n# c" not in page
    assert "\\<img" in page
    assert "\\[d\\]" in page
    assert "\x1b" not in page


def test_the_pages_python_runs_anywhere(run: Run, made: Path, tmp_path: Path) -> None:
    assert run(made, "export", "kd", "--to", str(tmp_path / "out"), "--format", "onnx") == 0
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    first, second = re.findall(r"```python\n(.*?)```", (moved / "card.md").read_text(), re.DOTALL)
    name, probability = python(first, moved).split()
    network = network_of(made, "kd")
    with torch.no_grad():
        expected = network(torch.zeros((1, 1, 8, 8), dtype=torch.uint8)).softmax(1)[0]
    assert name == str(int(expected.argmax()))
    assert float(probability) == float(expected.max())
    poisoned = f"import sys; sys.modules['torch'] = sys.modules['pipeline'] = None\n{second}"
    assert python(poisoned, moved) == f"(1, 10) {name}\n"


def test_the_target_is_a_place_of_its_own(run: Run, capsys: Capture, small: Path, exported: Path) -> None:
    def message(to: Path) -> str:
        return refused(run, capsys, small, "export", "small", "--to", str(to))

    base, before = exported.parent, tree(exported)
    (base / "file").write_text("mine")
    (base / "link").symlink_to(base / "nowhere")
    (base / "cache").mkdir()
    (base / "cache/manifest.json").write_text("{}")
    assert "expected a new folder, found one that is not empty" in message(exported)
    assert "choose another, or remove what is there" in message(base / "file")
    assert "found something that is there" in message(base / "link")
    assert "found the inside of" in message(exported / "inner")
    assert "found the inside of" in message(base / "cache/a/b")
    assert "expected a folder that can be made" in message(base / "file/inner")
    assert tree(exported) == before
    assert (base / "file").read_text() == "mine"
    (base / "empty").mkdir()
    assert run(small, "export", "small", "--to", str(base / "empty")) == 0
    assert {path.name for path in (base / "empty").iterdir()} == WHOLE


@pytest.mark.parametrize("point", ["first write", "card", "rename"])
def test_a_killed_export_leaves_nothing_half(run: Run, small: Path, tmp_path: Path, point: str) -> None:
    die = "lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    patch = {
        "first write": f"folder.write_bytes = {die}",
        "card": f"folder.encode_json = {die}",
        "rename": f"pathlib.Path.rename = {die}",
    }[point]
    code = (
        f"import os, pathlib, signal; from pipeline.export import folder; {patch}; from stages.main import main; main()"
    )
    done = warm_python(small, "-c", code, "export", "small", "--to", str(tmp_path / "out"))
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.work").exists(), "it was not killed in the middle"
    assert run(small, "export", "small", "--to", str(tmp_path / "out")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"study", "out"}
    room.read_card(tmp_path / "out")


def test_a_full_disk_leaves_nothing(
    run: Run, capsys: Capture, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "card.md":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_bytes(path, data)

    monkeypatch.setattr(room, "write_bytes", full)
    assert "disk full" in refused(run, capsys, small, "export", "small", "--to", str(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"study"}


def test_who_comes_first_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def raced() -> None:
        with room.create_folder(target) as work:
            (work / "ours").write_text("")
            target.mkdir()
            (target / "theirs").write_text("")

    with pytest.raises(InputError, match="not empty"):
        raced()
    assert [path.name for path in target.iterdir()] == ["theirs"]
    with (
        room.create_folder(tmp_path / "two"),
        pytest.raises(InputError, match="a running process"),
        room.create_folder(tmp_path / "two"),
    ):
        pass


def test_what_is_not_there_or_not_the_studys_is_refused(run: Run, capsys: Capture, small: Path, tmp_path: Path) -> None:
    def message(*arguments: str) -> str:
        return refused(run, capsys, small, "export", *arguments, "--to", str(tmp_path / "out"))

    weights = small / "data/students/small/seed-0/weights.safetensors"
    assert "students: unknown name 'smal'" in message("smal")
    assert "--seed: expected 0 to 0, the seeds of small, found 1" in message("small", "--seed", "1")
    study = study_of({"small": SMALL})
    study["students"]["small"]["model"] = {**SMALL["model"], "widths": [7]}
    write_study(small, study)
    assert "model.widths: expected [7], found [6]; run `teachercache train-student small`" in message("small")
    write_study(small, study_of({"small": SMALL}))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "expected SHA-256" in message("small")
    shutil.rmtree(weights.parent)
    assert "run `teachercache train-student small`" in message("small")
    assert {path.name for path in tmp_path.iterdir()} == {"study"}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_flipped_bit_or_a_lost_byte_is_found(exported: Path, name: str) -> None:
    data = (exported / name).read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for bad in (bytes(changed), data[:-1], data + b"\n", b""):
        (exported / name).write_bytes(bad)
        with pytest.raises(InputError, match="export"):
            room.load_exported(exported, torch.device("cpu"))
    (exported / name).unlink()
    with pytest.raises(InputError, match="export"):
        room.load_exported(exported, torch.device("cpu"))
    (exported / name).write_bytes(data)
    room.load_exported(exported, torch.device("cpu"))


def rename(card: dict[str, Any]) -> None:
    card["classes"] = ["dog", "cat", "eel"]


def test_an_edited_card_is_found(exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text())
    rename(card)
    (exported / "card.json").write_bytes(encode_json(card))
    with pytest.raises(InputError, match="a card changed since"):
        room.read_card(exported)


def sealed_again(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """What somebody writes who knows the format."""
    card = json.loads((folder / "card.json").read_text())
    card.pop("root")
    change(card)
    (folder / "card.json").write_bytes(encode_json({**card, "root": hash_json(card)}))


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "a card of something else"),
        (lambda c: c.update(version=2), "version 2, this teachercache reads 1"),
        (lambda c: c.update(shape=[1, 8]), "shape: expected three positive numbers"),
        (lambda c: c.update(shape=[1, 8, -8]), "shape: expected three"),
        (lambda c: c.update(shape=["sh", "-c", "id"]), "shape: expected three"),
        (lambda c: c.update(shape=[3, 1 << 20, 1 << 20]), "shape: expected three"),
        (lambda c: c.update(shape=[1, 9, 8]), "expected body.fc1.weight of shape"),
        (lambda c: c.update(classes=[1, 2, 3]), "classes: expected names"),
        (lambda c: c.update(classes=["cat", "dog"]), "expected body.logits"),
        (lambda c: c.update(classes=["cat", "cat", "eel"]), "classes: expected names that differ"),
        (lambda c: c.update(model=[]), "model: expected an architecture"),
        (lambda c: c["model"].update(name="nobodys"), "code of its author's own"),
        (lambda c: c["model"].update(widths=["x"]), "options that suit"),
        (lambda c: c["model"].update(activation="x"), "an architecture that can be built, found KeyError"),
        (lambda c: c["model"].update(widths=[10**30]), "options that suit"),
        (lambda c: c["files"].update({"../x": "0" * 64}), "files: expected card.md, weights.safetensors"),
        (lambda c: c.update(files=None), "files: expected"),
        (lambda c: c.update(weights_sha256="0" * 64), "files: expected"),
        (lambda c: c.update(init=nested(20)), "nested more than 16 deep"),
        (lambda c: c["files"].update({"card.md": 5}), "files: expected digests"),
    ],
)  # fmt: skip
def test_a_card_that_was_made_up_is_refused(
    exported: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    sealed_again(exported, change)
    with pytest.raises(InputError, match=re.escape(message)):
        room.load_exported(exported, torch.device("cpu"))


def test_a_strangers_card_runs_no_code(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef net(shape, classes): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    sealed_again(exported, lambda card: card.update(model={"name": "evil:net"}))
    with pytest.raises(InputError, match="--own-code"):
        room.load_exported(exported, torch.device("cpu"))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError):
        room.load_exported(exported, torch.device("cpu"), own_code=True)
    assert (tmp_path / "ran").exists(), "this test cannot fail"


OWN = """
from torch import nn

class Odd(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.layer = nn.Linear(inputs, classes)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return logits if {condition} else -logits

def odd(shape, classes):
    return Odd(shape[0] * shape[1] * shape[2], classes)
"""


def test_an_architecture_of_ones_own(
    run: Run, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_nets.py").write_text(OWN.format(condition="True"))
    monkeypatch.syspath_prepend(tmp_path)
    folder = untrained(tmp_path / "study", {"odd": {"model": {"name": "odd_nets:odd"}}})
    out = tmp_path / "out"
    assert run(folder, "export", "odd", "--to", str(out), "--format", "onnx") == 0
    page = (out / "card.md").read_text()
    assert "code of its author's own and not in this folder" in page
    assert "own_code=True)  # checks" in page
    (code, _) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert python(f"import sys; sys.path.append({str(tmp_path)!r})\n{code}", out)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(photo)
    assert "--own-code" in refused(run, capsys, tmp_path, "predict", str(out), str(photo))
    assert run(tmp_path, "predict", str(out), str(photo), "--own-code") == 0
    (tmp_path / "odd_nets.py").unlink()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    monkeypatch.delitem(sys.modules, "odd_nets", raising=False)
    error = refused(run, capsys, tmp_path, "predict", str(out), str(photo), "--own-code")
    assert "expected module 'odd_nets', which holds the student's architecture, to be importable" in error
    assert (
        "found cannot import model 'odd_nets:odd': ModuleNotFoundError: No module named 'odd_nets'; install it, or put"
        in error
    )


def test_what_torch_cannot_write_is_told_in_a_line(
    run: Run, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odder_nets.py").write_text(OWN.format(condition="float(logits.sum()) > 0"))
    monkeypatch.syspath_prepend(tmp_path)
    folder = untrained(tmp_path / "study", {"odd": {"model": {"name": "odder_nets:odd"}}})
    arguments = "export", "odd", "--to", str(tmp_path / "out")
    message = refused(run, capsys, folder, *arguments, "--format", "onnx")
    assert "expected a network that torch.onnx can write, found" in message
    assert "data-dependent" in message
    assert "x1b" not in message
    assert not (tmp_path / "out").exists()
    assert run(folder, *arguments) == 0


NETS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "mlp": (SMALL, (1, 8, 8)),
    "cnn": ({"model": {"name": "cnn", "widths": [3, 4], "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}}, (3, 9, 12)),
    "channel sums": ({"model": {"name": "cnn", "widths": [3, 4]}, "head": {"channel_outputs": {"channels": 5}}}, (1, 8, 8)),
    "filters": ({"model": {"name": "cnn", "widths": [3, 16]}, "head": {"multichannel": {}}}, (1, 8, 8)),
    "nin": ({"model": {"name": "nin", "scale": 0.05}}, (3, 16, 16)),
    "grey resnet18": ({"model": {"name": "torchvision:resnet18"}}, (1, 32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETS)
def test_an_onnx_graph_says_what_the_network_says(run: Run, capsys: Capture, tmp_path: Path, kind: str) -> None:
    parts, shape = NETS[kind]
    folder, out = untrained(tmp_path / "study", {"net": parts}, shape), tmp_path / "out"
    assert run(folder, "export", "net", "--to", str(out), "--format", "onnx") == 0
    assert "on the first 10 test images of photos" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {*WHOLE, "student.onnx"}
    assert room.read_card(out)["onnx"]["largest_difference_at_most"] <= 1e-4
    session = onnxruntime.InferenceSession(out / "student.onnx", providers=["CPUExecutionProvider"])
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", *shape])
    assert (gives.name, gives.type, gives.shape) == ("logits", "tensor(float)", ["batch", 3])
    network = network_of(folder, "net")
    for count in (1, 5, 17):
        images = pixels(np.random.default_rng(count), count, shape)
        found = session.run(None, {"images": images})[0]
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        assert found.shape == (count, 3)
        assert np.ptp(expected, axis=0).max() > 1e-3 or count == 1, "all images look alike to it"
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


class Several(torch.nn.Module):
    """Networks side by side, so that one graph is all of them: making a graph takes a second."""

    def __init__(self, networks: list[torch.nn.Module]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([network(images) for network in self.networks], 1)  # (B, networks, classes)


TINY: dict[str, dict[str, Any]] = {
    "mlp": {"widths": [6, 8]},
    "cnn": {"widths": [3, 4, 8]},
    "nin": {"scale": 0.02},
    "vgg_guided": {"layers": [3, "M", 4], "hidden": [8, 8]},
    "shallow_conv": {"filters": 3, "bottleneck": 4, "hidden": 8},
}
ENDS: list[dict[str, Any]] = [{}, {"name": "multichannel", "kernel": 2}, {"name": "channel_outputs", "channels": 3}]
INSIDES: list[dict[str, Any]] = [{}, {"form": "weights"}, {"form": "xnor"}]
ODD = (3, 9, 11)  # (C, H, W)


def of_kind(name: str, end: dict[str, Any], inside: dict[str, Any]) -> torch.nn.Module:
    """A network of random weights whose batch norms have seen something, in evaluation mode."""
    torch.manual_seed(0)
    changes = {key: its for key, its in {"head": end, "binary": inside}.items() if its}
    made = build_network({"name": name, **TINY[name], **changes}, ODD, 4)
    with torch.no_grad():
        made(torch.randint(0, 256, (20, *ODD), dtype=torch.uint8))
    return made.eval()


@torch.no_grad()
def assert_same(said: Callable[[NDArray[np.uint8]], NDArray[np.float32]], network: torch.nn.Module) -> None:
    """For one image and for three."""
    for count in (1, 3):
        images = pixels(np.random.default_rng(count), count, ODD)
        expected = network(torch.from_numpy(images)).numpy()
        assert expected.shape[0] == count
        np.testing.assert_allclose(said(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_every_model_binary_and_headed_is_a_graph_of_any_batch(name: str) -> None:
    several = Several([of_kind(name, end, inside) for end in ENDS for inside in INSIDES]).eval()
    example = (torch.zeros((2, *ODD), dtype=torch.uint8),)
    graph = torch.export.export(several, example, dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert_same(lambda images: graph(torch.from_numpy(images)).detach().numpy(), several)


@pytest.mark.parametrize("name", sweep(TINY, "mlp", "cnn"))
def test_every_model_each_way_to_be_binary_and_each_head_become_onnx(name: str) -> None:
    insides: list[dict[str, Any]] = [{"form": "xnor"}, {"form": "weights"}, {"form": "xnor", "scale_map": False}]
    several = Several([of_kind(name, *kind) for kind in zip(ENDS, insides, strict=True)]).eval()
    graph = onnx_graph.export_onnx(several, ODD)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert_same(lambda images: session.run(["logits"], {"images": images})[0], several)


def test_two_onnx_exports_are_the_same_bytes_and_name_no_path(run: Run, tmp_path: Path) -> None:
    parts, shape = NETS["channel sums"]
    folder = untrained(tmp_path / "study", {"net": parts}, shape)
    for to in "ab":
        assert run(folder, "export", "net", "--to", str(tmp_path / to), "--format", "onnx") == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    graph = (tmp_path / "a/student.onnx").read_bytes()
    assert not any(word in graph for word in (str(ROOT).encode(), b".py", b"metadata", b"stack_trace", b"pkg.torch"))


def test_a_card_says_on_what_the_graph_was_compared(run: Run, small: Path, tmp_path: Path) -> None:
    def images(to: str) -> str:
        assert run(small, "export", "small", "--to", str(tmp_path / to), "--format", "onnx") == 0
        said = str(room.read_card(tmp_path / to)["onnx"]["images"])
        assert said in (tmp_path / to / "card.md").read_text()
        return said

    assert images("a") == "the first 10 test images of photos"
    save_photos(small, (1, 8, 8), CLASSES, seed=1)
    assert images("b") == "64 random images (the prepared data set is another one)"
    shutil.rmtree(small / "data/prepared")
    assert images("c") == "64 random images (the prepared data set is not here)"


@pytest.mark.parametrize("change", ["weights", "shape", "no graph"])
def test_a_graph_that_says_something_else_is_not_published(
    run: Run, capsys: Capture, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    whole = onnx_graph.export_onnx

    def wrong(network: torch.nn.Module, shape: Any) -> bytes:
        changed = network_of(small, "small")
        with torch.no_grad():
            next(iter(changed.parameters()))[0, 0] += 0.1
        if change == "shape":
            changed.body.add_module("more", torch.nn.Linear(3, 4))
        return b"no graph" if change == "no graph" else whole(changed, shape)

    monkeypatch.setattr(onnx_graph, "export_onnx", wrong)
    message = refused(run, capsys, small, "export", "small", "--to", str(tmp_path / "out"), "--format", "onnx")
    expected = {"weights": "PyTorch's logits within", "shape": "expected logits float32", "no graph": "can run"}
    assert expected[change] in message
    assert {path.name for path in tmp_path.iterdir()} == {"study"}


def test_without_the_packages_it_says_what_to_install(
    run: Run, capsys: Capture, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    arguments = "export", "small", "--to", str(tmp_path / "out")
    message = refused(run, capsys, small, *arguments, "--format", "onnx")
    assert "found no onnxscript; pip install 'teachercache[onnx]'" in message
    assert not (tmp_path / "out").exists()
    assert run(small, *arguments) == 0


def test_the_extra_is_the_list_of_packages() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(re.split("[>=]", each)[0] for each in extras["onnx"]) == sorted(onnx_graph.PACKAGES)
    (own,) = (each for each in extras["dev"] if each.startswith("teachercache["))
    assert "onnx" in re.split(r"[\[\],]", own)
