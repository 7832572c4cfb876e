"""Networks that end in channels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.graph import stages as graph
from pipeline.graph.code_dependencies import follow_imports
from pipeline.models.build import build_network
from pipeline.models.heads import CHANNELS, HEADS
from pipeline.models.network import Network
from pipeline.models.network_files import load_network, save_network
from pipeline.study.params_file import parse_study
from pipeline.study.sections import describe_model
from pipeline.teacher import load_foreign_teacher
from tests.conftest import ROOT, write_study
from tests.data_files import refused
from tests.graph.test_graph import compiled

CPU = torch.device("cpu")
Shape = tuple[int, int, int]
DIGIT, GREY, COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
MODELS: list[tuple[dict[str, Any], Shape]] = [
    ({"name": "mlp", "widths": (12, 32), "dropout": 0.2}, DIGIT),
    ({"name": "cnn", "widths": (4, 6, 32)}, GREY),
    ({"name": "nin", "scale": 0.05}, COLOUR),
    ({"name": "vgg_guided", "layers": (4, "M", 6), "hidden": (11, 32)}, COLOUR),
    ({"name": "shallow_conv", "filters": 4, "bottleneck": 6, "hidden": 32}, COLOUR),
    ({"name": "torchvision:resnet18"}, (1, 32, 32)),
    ({"name": "torchvision:vgg11"}, COLOUR),
]
NAMES = [model["name"] for model, _ in MODELS]
BIG = {"model": {"name": "mlp", "widths": [32]}, "epochs": 1}


def images(shape: Shape, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(model: dict[str, Any], shape: Shape, classes: int = 10, **head: Any) -> Network:
    torch.manual_seed(0)
    return build_network({**model, "head": head} if head else model, shape, classes).eval()


def channels(made: Network, shape: Shape) -> tuple[Tensor, Tensor]:
    logits, taps = made.forward_with_taps(images(shape), [CHANNELS])
    return logits, taps[CHANNELS]


# ------------------------------------------------------------------ what both agree on


@pytest.mark.parametrize("head", [{"name": "multichannel"}, {"name": "channel_outputs", "channels": 6}], ids=str)
@pytest.mark.parametrize(("model", "shape"), MODELS, ids=NAMES)
def test_logits_are_the_sums_of_each_class_s_votes(model: dict[str, Any], shape: Shape, head: dict[str, Any]) -> None:
    logits, scores = channels(network(model, shape, 7, **head), shape)
    expected = 6 if head["name"] == "channel_outputs" else 36 if model["name"] == "nin" else 25
    assert scores.shape == (3, 7, expected)
    assert (scores < 0).any() or (scores > 1).any()  # before the sigmoid
    votes = 1 / (1 + torch.exp(-scores.double()))
    torch.testing.assert_close(logits.double(), votes.sum(2), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits[0], logits[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("head", [{"name": "multichannel"}, {"name": "channel_outputs", "channels": 6}], ids=str)
@pytest.mark.parametrize(("model", "shape"), MODELS[:5], ids=NAMES[:5])
def test_the_body_and_its_taps_are_those_of_the_network_without_a_head(
    model: dict[str, Any], shape: Shape, head: dict[str, Any]
) -> None:
    plain, ended = network(model, shape), network(model, shape, **head)
    assert set(ended.taps) == {*plain.taps, CHANNELS}
    values = [made.forward_with_taps(images(shape), plain.taps)[1] for made in (plain, ended)]
    assert all(torch.equal(values[0][tap], values[1][tap]) for tap in plain.taps)


def test_a_network_rebuilds_from_its_card(tmp_path: Path) -> None:
    model = {"name": "mlp", "widths": [32], "head": {"name": "multichannel", "kernel": 4, "stride": 2}}
    torch.manual_seed(1)
    made = build_network(model, DIGIT, 3).eval()
    save_network(tmp_path, made.state_dict(), {"model": model, "shape": DIGIT, "classes": ["a", "b", "c"]})
    again, card = load_network(tmp_path, CPU, "train it again")
    assert card["model"]["head"] == model["head"]
    assert channels(again, DIGIT)[1].shape == (3, 3, 15)
    assert torch.equal(again(images(DIGIT)), made(images(DIGIT)))


# ------------------------------------------------------------------ multichannel


def test_nin_s_map_of_8_by_8_gives_36_channels_each_a_position() -> None:
    made = network({"name": "nin", "scale": 0.05}, COLOUR, 4, name="multichannel")
    _, taps = made.forward_with_taps(images(COLOUR), ["features", CHANNELS])
    assert taps["features"].shape[2:] == (8, 8)
    assert taps[CHANNELS].shape == (3, 4, 36)
    filters, bias = made.body.get_submodule("channels.0").parameters()
    assert filters.shape == (4, 10, 3, 3)
    by_hand = (filters[2] * taps["features"][1, :, 1:4, 4:7]).sum() + bias[2]  # position (1, 4) of 6 x 6
    torch.testing.assert_close(taps[CHANNELS][1, 2, 6 + 4], by_hand)
    assert not hasattr(made.body, "maps")
    strided = network({"name": "nin", "scale": 0.05}, COLOUR, 4, name="multichannel", kernel=4, stride=2)
    assert channels(strided, COLOUR)[1].shape == (3, 4, 9)


@pytest.mark.parametrize(
    ("units", "options", "expected", "kernel", "stride"),
    [
        (32, {}, 25, 8, 1),
        (512, {}, 25, 128, 16),
        (3, {}, 3, 1, 1),
        (32, {"kernel": 8, "stride": 4}, 7, 8, 4),
        (32, {"stride": 24}, 2, 8, 24),
        (20, {"kernel": 20}, 1, 20, 2),
    ],
)
def test_over_a_vector_the_filters_slide_along_its_units(
    units: int, options: dict[str, Any], expected: int, kernel: int, stride: int
) -> None:
    made = network({"name": "mlp", "widths": (units,)}, DIGIT, 4, name="multichannel", **options)
    _, taps = made.forward_with_taps(images(DIGIT), ["features", CHANNELS])
    assert taps[CHANNELS].shape == (3, 4, expected)
    filters, bias = made.body.get_submodule("channels.1").parameters()
    assert filters.shape == (4, 1, kernel)
    start = (expected - 1) * stride
    by_hand = (filters[3, 0] * taps["features"][1, start : start + kernel]).sum() + bias[3]
    torch.testing.assert_close(taps[CHANNELS][1, 3, -1], by_hand)


def test_dropout_of_the_hidden_layer_stays() -> None:
    made = network({"name": "cnn", "widths": (4, 6, 64), "dropout": 0.5}, GREY, name="multichannel").train()
    names = [name for name, _ in made.body.named_children()]
    assert names[-5:] == ["fc", "features", "dropout", "channels", "sums"]
    assert not torch.equal(made(images(GREY)), made(images(GREY)))


def test_a_tap_further_down_cuts_there() -> None:
    made = network({"name": "cnn", "widths": (4, 6, 64)}, GREY, name="multichannel", tap="block2", kernel=7)
    assert channels(made, GREY)[1].shape == (3, 10, 1)
    assert set(made.taps) == {"block1", "block2", CHANNELS}
    assert not hasattr(made.body, "fc")


def test_the_output_layer_of_other_architectures_is_replaced() -> None:
    made = network({"name": "torchvision:resnet18"}, COLOUR, 5, name="multichannel")
    _, taps = made.forward_with_taps(images(COLOUR), ["avgpool", CHANNELS, "layer4"])
    score = made.body.get_submodule("fc.channels")(taps["avgpool"].flatten(1))
    torch.testing.assert_close(score, taps[CHANNELS])
    grey = network({"name": "torchvision:resnet18"}, (1, 32, 32), 5, name="multichannel")
    assert grey(images((1, 32, 32))).shape == (3, 5)


MISFITS: list[tuple[dict[str, Any], Shape, dict[str, Any], list[str]]] = [
    (
        {"name": "nin", "scale": 0.05}, COLOUR, {"kernel": 9},
        ["head multichannel: kernel: expected at most 8, to fit the 8x8 map, found 9"],
    ),
    (
        {"name": "nin", "scale": 0.05}, DIGIT, {},
        ["head multichannel: kernel: expected at most 2, to fit the 2x2 map, found 3"],
    ),
    ({"name": "mlp", "widths": (5,)}, DIGIT, {"kernel": 6}, ["at most 5, to fit the vector of 5 units, found 6"]),
    ({"name": "mlp", "widths": ()}, DIGIT, {}, ["head multichannel: unknown tap 'features'", "flatten"]),
    ({"name": "mlp", "widths": (5,)}, DIGIT, {"tap": "hiden1"}, ["unknown tap 'hiden1'", "did you mean 'hidden1'?"]),
    ({"name": "vgg_guided", "layers": (4,), "hidden": (8,)}, DIGIT, {"tap": "fc1.0"}, ["unknown tap 'fc1.0'"]),
    (
        {"name": "torchvision:squeezenet1_0"}, (3, 64, 64), {},
        ["head multichannel: expected a row of named layers", "straight from a linear layer, found SqueezeNet"],
    ),
    ({"name": "torchvision:resnet18"}, COLOUR, {"tap": "layer4"}, ["head multichannel: tap", "'layer4'", "leave tap out"]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "shape", "options", "parts"), MISFITS)
def test_heads_that_do_not_fit_are_refused(
    model: dict[str, Any], shape: Shape, options: dict[str, Any], parts: list[str]
) -> None:
    with refused(*parts):
        network(model, shape, name="multichannel", **options)


# ------------------------------------------------------------------ channel_outputs


def test_a_student_s_outputs_stand_class_by_class() -> None:
    made = network({"name": "mlp", "widths": (12,)}, DIGIT, 4, name="channel_outputs", channels=3)
    _, taps = made.forward_with_taps(images(DIGIT), ["logits", CHANNELS])
    assert taps["logits"].shape == (3, 12)
    assert torch.equal(taps[CHANNELS][:, 1, 2], taps["logits"][:, 5])
    assert made.parameter_count() == 65 * 12 + 13 * 4 * 3


def test_an_architecture_from_elsewhere_keeps_the_names_of_its_taps() -> None:
    plain = network({"name": "torchvision:resnet18"}, COLOUR, 5)
    made = network({"name": "torchvision:resnet18"}, COLOUR, 5, name="channel_outputs", channels=2)
    shared = {name: value for name, value in plain.body.state_dict().items() if not name.startswith("fc.")}
    made.body.get_submodule("body").load_state_dict(shared, strict=False)
    names = ["layer1", "layer4.1"]
    values = [each.forward_with_taps(images(COLOUR), names)[1] for each in (plain, made)]
    assert all(torch.equal(values[0][tap], values[1][tap]) for tap in names)


# ------------------------------------------------------------------ models of one's own


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "headed_models.py").write_text(
        """
from torch import nn
from pipeline.models.network import Layers

def sequence(shape, classes, *, width: int = 16):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], width), nn.Linear(width, classes))

def squashed(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes), nn.Tanh())

def named(shape, classes):
    first = nn.Linear(shape[0] * shape[1] * shape[2], 16)
    return Layers({"flat": nn.Flatten(), "sums": first, "out": nn.Linear(16, classes)}, {"features": "sums"})

def headed(shape, classes, *, head: int = 3):
    return sequence(shape, classes, width=head)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "headed_models", raising=False)


@pytest.mark.parametrize("head", [{"name": "multichannel"}, {"name": "channel_outputs", "channels": 2}], ids=str)
def test_a_model_of_one_s_own_gets_a_head(own_models: None, head: dict[str, Any]) -> None:
    made = network({"name": "headed_models:sequence"}, DIGIT, 4, **head)
    logits, scores = channels(made, DIGIT)
    assert torch.equal(logits, scores.sigmoid().sum(2))
    assert scores.shape == (3, 4, 13 if head["name"] == "multichannel" else 2)


def test_what_no_head_can_end_is_refused(own_models: None) -> None:
    with refused("straight from a linear layer, found Sequential"):
        network({"name": "headed_models:squashed"}, DIGIT, 4, name="multichannel")
    for head in ({"name": "multichannel"}, {"name": "channel_outputs", "channels": 2}):
        with refused("head: expected a model without layers of its own named channels or sums, found sums"):
            network({"name": "headed_models:named"}, DIGIT, 4, **head)


def test_an_option_named_head_is_the_model_s_own(own_models: None) -> None:
    made = build_network({"name": "headed_models:headed", "head": 9}, DIGIT, 4)
    assert made.parameter_count() == 65 * 9 + 10 * 4
    study = of({**BIG, "model": {"name": "headed_models:headed"}, "head": {"multichannel": {}}})
    with refused("teachers.big: head: model 'headed_models:headed' has an option of that name"):
        parse_study(study)


# ------------------------------------------------------------------ params, cards and stages


def of(teacher: dict[str, Any], **students: Any) -> dict[str, Any]:
    return {"dataset": {"source": "digits"}, "teachers": {"big": teacher}, "students": students}


@pytest.mark.parametrize("options", [{}, None])
def test_a_head_is_part_of_the_model_mapping(options: dict[str, Any] | None) -> None:
    student = {"model": {"name": "mlp", "widths": [4]}, "epochs": 1, "losses": {"ce": {}}}
    headed = {**student, "head": {"channel_outputs": {"channels": 36}}}
    study = parse_study(of({**BIG, "head": {"multichannel": options}}, plain=student, headed=headed))
    whole = {"name": "multichannel", "kernel": None, "stride": None, "tap": "features"}
    assert describe_model(study.teachers["big"])["head"] == whole
    assert describe_model(study.students["headed"])["head"] == {"name": "channel_outputs", "channels": 36}
    plain = study.students["plain"]
    assert describe_model(plain) == plain.model.model_dump()  # no new key where there is no head
    assert list(describe_model(plain, "json")) == list(plain.model.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("teacher", "parts"),
    [
        ({"head": {"multichanel": {}}}, ["head.multichanel", "unknown head 'multichanel'", "did you mean 'multichannel'?"]),
        ({"head": {"multichannel": {"kernal": 3}}}, ["head.multichannel: unknown key 'kernal'", "did you mean 'kernel'?"]),
        ({"head": {"multichannel": {"kernel": 0}}}, ["head.multichannel.kernel: expected greater than 0, found 0"]),
        ({"head": {"multichannel": 3}}, ["head.multichannel: expected a mapping of this head's options, found 3"]),
        ({"head": {"multichannel": {"name": "x"}}}, ["head.multichannel: expected a mapping of this head's options"]),
        ({"head": "multichannel"}, ["head: expected a mapping of one head", "found 'multichannel'"]),
        ({"head": {}}, ["head: expected a mapping of one head", "found {}"]),
        ({"head": {"multichannel": {}, "channel_outputs": {}}}, ["head: expected a mapping of one head"]),
        ({"head": {"channel_outputs": {}}}, ["head.channel_outputs.channels: missing"]),
        ({"head": {"channel_outputs": {"channels": "a"}}}, ["head.channel_outputs.channels: expected", "found 'a'"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_head_are_named(teacher: dict[str, Any], parts: list[str]) -> None:
    with refused("params.yaml: teachers.big.head", *parts):
        parse_study(of({**BIG, **teacher}))
    student = {"model": {"name": "mlp", "widths": [4]}, "epochs": 1, "losses": {"ce": {}}}
    with refused("params.yaml: students.small.head", *parts):
        parse_study(of(BIG, small={**student, **teacher}))


@pytest.mark.parametrize("kind", [{"members": ["a", "b"]}, {"external": "ab" * 32}], ids=["members", "external"])
def test_a_head_without_a_model_is_refused(kind: dict[str, Any]) -> None:
    study = of({**kind, "head": {"multichannel": {}}})
    study["teachers"] |= {"a": BIG, "b": BIG}
    with refused("teachers.big: head: belongs to a model, and this teacher has none"):
        parse_study(study)


def test_a_teacher_from_a_file_may_have_a_head(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = {"name": "mlp", "widths": [32]}
    headed = parse_study(of({"model": model, "weights": "w.pt", "head": {"multichannel": {"kernel": 16}}})).teachers[
        "big"
    ]
    made = build_network(describe_model(headed), DIGIT, 4).eval()
    torch.save(made.body.state_dict(), tmp_path / "w.pt")
    read = load_foreign_teacher(tmp_path / "w.pt", model=describe_model(headed), shape=DIGIT, classes=4).eval()
    assert torch.equal(read(images(DIGIT)), made(images(DIGIT)))


def test_stages_depend_on_the_heads_that_they_build(study: dict[str, Any]) -> None:
    plain = compiled(study)["stages"]
    assert not [dep for stage in plain.values() for dep in stage.get("deps", ()) if "heads" in dep]
    study["teachers"]["big"]["head"] = {"multichannel": {}}
    study["students"]["kd"]["head"] = {"channel_outputs": {"channels": 3}}
    stages = graph.compile_stages(parse_study(study))
    listed = {stage.name: {name for name in stage.modules if "heads" in name} for stage in stages}
    both = {"train-teacher-big", "dump-logits-big-logits"}
    for name, modules in listed.items():
        head = "multichannel" if name in both else "channel_outputs" if name == "train-student-kd" else None
        assert modules == ({f"pipeline.models.heads.{head}"} if head else set()), name
    for head in HEADS.entries:
        needed = {
            name for name in follow_imports([str(HEADS.find_module(head))]) if name.startswith("pipeline.models.heads.")
        }
        assert needed == {"pipeline.models.heads.channels", HEADS.find_module(head)}
    assert (ROOT / "pipeline/models/heads/channels.py").exists()


def test_commands_keep_the_head(tmp_path: Path, run: Any, study: dict[str, Any]) -> None:
    study["teachers"]["big"]["head"] = {"multichannel": {"kernel": 4, "stride": 4}}
    study["students"] = {"s": {**study["students"]["baseline"], "head": {"channel_outputs": {"channels": 5}}}}
    folder = write_study(tmp_path, study)
    for command in (
        ("prepare", "digits"),
        ("train-teacher", "big"),
        ("dump-logits", "big-logits"),
        ("train-student", "s"),
    ):
        assert run(folder, *command) == 0
    teacher, card = load_network(folder / "data/teachers/big", CPU, "")
    assert card["model"]["head"] == {"name": "multichannel", "kernel": 4, "stride": 4, "tap": "features"}
    assert channels(teacher, DIGIT)[1].shape == (3, 10, 4)
    student, _ = load_network(folder / "data/students/s/seed-1", CPU, "")
    assert channels(student, DIGIT)[1].shape == (3, 10, 5)
    assert run(folder, "plan") == 0
