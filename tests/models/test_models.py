from __future__ import annotations

import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.base.registry import describe_unknown
from pipeline.graph.stages import compile_stages
from pipeline.models import MODELS
from pipeline.models.build import build_network
from pipeline.models.constructor_options import constructor_options
from pipeline.models.foreign_weights import load_foreign_weights
from pipeline.models.network import Network
from pipeline.models.network_files import load_network, save_network
from pipeline.models.vgg_guided import STUDENT, TEACHER
from pipeline.models.weights import load_into, read_weights
from pipeline.study.params_file import parse_study, read_params
from pipeline.study.part_sections import ModelParams
from pipeline.study.sections import describe_model
from pipeline.teacher import load_foreign_teacher
from tests.conftest import Capture, Run, write_study
from tests.conftest import refused as command_refused
from tests.data_files import refused

Shape = tuple[int, int, int]
DIGIT, GREY, COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (12, 7), "dropout": 0.2},
    "cnn": {"widths": (4, 6, 9)},
    "nin": {"scale": 0.05},
    "vgg_guided": {"layers": (4, "M", 6, 5, "G", "M"), "hidden": (11, 8)},
    "shallow_conv": {"filters": 4, "bottleneck": 6, "hidden": 16},
}
# What each tap of `SMALL` gives for one image, as a function of the image's side.
TAPS: dict[str, Callable[[int], dict[str, tuple[int, ...]]]] = {
    "mlp": lambda _: {"hidden1": (12,), "hidden2": (7,), "features": (7,)},
    "cnn": lambda n: {"block1": (4, n // 2, n // 2), "block2": (6, n // 4, n // 4), "features": (9,)},
    "nin": lambda n: {
        "block1": (5, n, n),
        "block2": (10, n // 2, n // 2),
        "block3": (10, n // 4, n // 4),
        "features": (10, n // 4, n // 4),
    },
    "vgg_guided": lambda n: {
        "conv1": (4, n, n),
        "conv2": (6, n // 2, n // 2),
        "conv3": (5, n // 2, n // 2),
        "hint": (5, n // 2, n // 2),
        "features": (8,),
    },
    "shallow_conv": lambda n: {"conv": (4, n, n), "bottleneck": (6,), "features": (16,)},
}


def images(shape: Shape, count: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def network(name: str, shape: Shape = COLOUR, classes: int = 10, **options: Any) -> Network:
    torch.manual_seed(0)
    return build_network({"name": name, **options}, shape, classes)


def from_params(model: dict[str, Any], shape: Shape, classes: int = 10) -> Network:
    """As a study makes it: a mistake may be found in the parameters or when the network is built."""
    teacher = {"model": model, "epochs": 1}
    section = parse_study({"dataset": {"source": "digits"}, "teachers": {"big": teacher}}).teachers["big"].model
    assert section is not None
    return build_network(dict(section), shape, classes)


def on_paper(name: str, shape: Shape = COLOUR, **options: Any) -> Network:
    with torch.device("meta"):
        return network(name, shape, **options)


def weights_without_biases(made: Network) -> int:
    return sum(parameter.numel() for parameter in made.parameters() if parameter.ndim > 1)


# ------------------------------------------------------------------ architectures


def test_every_architecture_is_tested() -> None:
    assert set(MODELS.entries) == set(SMALL) == set(TAPS)


@pytest.mark.parametrize("shape", [DIGIT, GREY, COLOUR], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_pixels_in_logits_out_and_every_tap(name: str, shape: Shape) -> None:
    made = network(name, shape, 7, **SMALL[name]).eval()
    pixels = images(shape)
    before = pixels.clone()
    taps = TAPS[name](shape[1])
    assert set(made.taps) == set(taps)
    logits, activations = made.forward_with_taps(pixels, taps)
    assert (logits.shape, logits.dtype) == ((3, 7), torch.float32)
    assert {tap: tuple(value.shape) for tap, value in activations.items()} == {
        tap: (3, *inner) for tap, inner in taps.items()
    }
    assert torch.equal(logits, made(pixels))
    assert torch.equal(pixels, before)
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("name", SMALL)
def test_images_do_not_influence_each_other(name: str) -> None:
    made = network(name, **SMALL[name]).eval()
    pixels = images(COLOUR)
    torch.testing.assert_close(made(pixels)[1:], made(pixels[1:]))


@pytest.mark.parametrize(("layers", "count", "hint"), [(TEACHER, 2_440_394, 128), (STUDENT, 1_497_434, 64)])
def test_vgg_guided_has_the_parameters_and_hints_of_the_write_up(
    layers: tuple[Any, ...], count: int, hint: int
) -> None:
    made = on_paper("vgg_guided", layers=layers)
    assert made.parameter_count() == count
    pixels = torch.empty((2, *COLOUR), dtype=torch.uint8, device="meta")
    assert made.forward_with_taps(pixels, ["hint"])[1]["hint"].shape == (2, hint, 8, 8)


@pytest.mark.parametrize(
    ("widths", "count"),
    [
        ((1200, 1200), 2_392_800),
        ((800, 800), 1_275_200),
        ((1200, 1200, 1200), 3_832_800),
        ((800, 800, 800), 1_915_200),
        ((4096, 4096), 20_029_440),
        ((3072, 3072), 11_876_352),
    ],
)
def test_mlp_has_the_weights_of_the_write_up(widths: tuple[int, ...], count: int) -> None:
    made = on_paper("mlp", GREY, widths=widths)
    assert weights_without_biases(made) == count
    assert made.parameter_count() == count + sum(widths) + 10


def test_shallow_conv_to_the_letter_has_167_million_weights() -> None:
    assert round(weights_without_biases(on_paper("shallow_conv", pool=1)) / 1e6) == 167
    assert weights_without_biases(on_paper("shallow_conv")) == 3 * 9 * 128 + 128 * 8 * 8 * 1200 + 1200 * 8192 + 81920


@pytest.mark.parametrize("name", ["nin", "vgg_guided"])
def test_he_s_weights_keep_the_signal_where_pytorch_s_lose_it(name: str) -> None:
    options: dict[str, Any] = {"layers": STUDENT} if name == "vgg_guided" else {"scale": 0.5, "dropout": 0.0}
    pixels = torch.randint(0, 256, (16, *COLOUR), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    spread = {}
    for initial in ("torch", "he"):
        torch.manual_seed(0)
        made = build_network({"name": name, **options, "initial": initial}, COLOUR, 10).eval()
        with torch.no_grad():
            spread[initial] = float(made(pixels).std(0).mean())  # over images: what there is to learn from
    assert spread["he"] > 30 * spread["torch"]
    weighted = [layer for layer in made.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in weighted:
        inputs = layer.weight[0].numel()
        assert float(layer.weight.detach().var()) == pytest.approx(2 / inputs, rel=0.2)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_nin_s_maps_and_widths() -> None:
    made = on_paper("nin", scale=1.0)
    pixels = torch.empty((2, *COLOUR), dtype=torch.uint8, device="meta")
    maps = made.forward_with_taps(pixels, ["block1", "block2", "block3", "maps"])[1]
    assert [tuple(value.shape[1:]) for value in maps.values()] == [(96, 32, 32), (192, 16, 16), (192, 8, 8), (10, 8, 8)]
    convolutions = [module for module in made.modules() if isinstance(module, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size[0]) for layer in convolutions] == [
        *[(192, 5), (160, 1), (96, 1)],
        *[(192, 5), (192, 1), (192, 1)],
        *[(192, 3), (192, 1), (10, 1)],
    ]


def test_nin_averages_its_maps() -> None:
    made = network("nin", scale=0.05).eval()
    logits, taps = made.forward_with_taps(images(COLOUR), ["maps"])
    torch.testing.assert_close(logits, taps["maps"].mean(dim=(2, 3)))
    assert (taps["maps"] < 0).any()


def test_cnn_taps_features_after_relu_and_before_dropout() -> None:
    made = network("cnn", GREY, widths=(4, 6, 64), dropout=0.5)
    pixels = images(GREY, 8)
    _, training = made.train().forward_with_taps(pixels, ["features", "dropout"])
    logits, evaluation = made.eval().forward_with_taps(pixels, ["features", "fc"])
    assert torch.equal(training["features"], evaluation["features"])
    assert torch.equal(evaluation["features"], evaluation["fc"].relu())
    assert (evaluation["fc"] < 0).any()
    output = made.body.get_submodule("logits")
    torch.testing.assert_close(output(evaluation["features"]), logits)
    kept = training["dropout"] != 0
    torch.testing.assert_close(training["dropout"][kept], 2 * training["features"][kept])
    assert kept.sum() < (training["features"] > 0).sum()


def test_cnn_starts_as_the_study_did() -> None:
    made = network("cnn", GREY, widths=(32, 64, 512), initial="truncated_normal")
    weighted = [module for module in made.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    biases = [value for name, value in made.named_parameters() if name.endswith("bias")]
    assert [sorted(set(bias.tolist())) for bias in biases] == [[0.0], *[[pytest.approx(0.1)]] * 3]
    for layer in weighted:
        # A normal of std 0.1 that is cut at two deviations keeps 0.8796 of its deviation.
        assert layer.weight.std().item() == pytest.approx(0.08796, rel=0.05)
        assert layer.weight.abs().max() <= 0.2
    assert network("cnn", GREY, widths=(32, 64, 512)).state_dict()["body.conv1.bias"].std() > 0.01


@pytest.mark.parametrize(("activation", "by_hand"), [("relu", torch.relu), ("tanh", torch.tanh)])
def test_mlp_computed_by_hand(activation: str, by_hand: Callable[[Tensor], Tensor]) -> None:
    made = network("mlp", DIGIT, widths=(12, 7), activation=activation, dropout=0.3)
    pixels = images(DIGIT)
    state = made.body.state_dict()
    first = by_hand(pixels.flatten(1) / 255 @ state["fc1.weight"].T + state["fc1.bias"])
    second = by_hand(first @ state["fc2.weight"].T + state["fc2.bias"])
    logits, taps = made.eval().forward_with_taps(pixels, ["hidden1", "hidden2", "features"])
    torch.testing.assert_close(taps, {"hidden1": first, "hidden2": second, "features": second})
    torch.testing.assert_close(logits, second @ state["logits.weight"].T + state["logits.bias"])
    assert torch.equal(made.train().forward_with_taps(pixels, ["hidden1"])[1]["hidden1"], taps["hidden1"])
    assert not torch.equal(made(pixels), made(pixels))


def test_a_linear_model_is_an_mlp_without_widths() -> None:
    made = network("mlp", DIGIT, widths=())
    assert (made.parameter_count(), made.taps) == (65 * 10, {})


@pytest.mark.parametrize(
    ("model", "shape", "part"),
    [
        ({"name": "cnn", "widths": [2, 2, 2, 2, 5]}, DIGIT, "cnn"),
        ({"name": "shallow_conv", "pool": 9}, DIGIT, "shallow_conv"),
        ({"name": "vgg_guided", "layers": [4, "M", "M", "M", "M"]}, DIGIT, "vgg_guided"),
        ({"name": "vgg_guided", "layers": ["G", 4]}, DIGIT, "layers"),
        ({"name": "mlp", "widths": [3], "mean": [0.1, 0.1, 0.1]}, DIGIT, "mean"),
        ({"name": "mlp", "widths": [3], "mean": [0.1], "std": [0.2, 0.2]}, DIGIT, "std"),
    ],
    ids=["cnn too deep", "pool too wide", "vgg too deep", "mark before any layer", "channels", "mean and std"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_options_that_do_not_fit_the_images_are_refused(model: dict[str, Any], shape: Shape, part: str) -> None:
    with refused(part):
        from_params(model, shape)(images(shape))


# ------------------------------------------------------------------ taps and scaling


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["featurs"], ["unknown tap 'featurs': expected one of", "hidden1", "did you mean 'features'?"]),
        (["hidden1", "fc9"], ["unknown tap 'fc9'", "did you mean 'fc"]),
        ([""], ["unknown tap ''"]),
    ],
)
def test_unknown_taps_are_refused_and_leave_nothing_behind(names: list[str], parts: list[str]) -> None:
    made = network("mlp", DIGIT, widths=(12, 7))
    with refused(*parts):
        made.forward_with_taps(images(DIGIT), names)
    assert [module for module in made.modules() if module._forward_hooks] == []


def test_taps_leave_no_hooks() -> None:
    made = network("mlp", DIGIT, widths=(12, 7))
    made.forward_with_taps(images(DIGIT), ["hidden1", "logits"])
    assert [module for module in made.modules() if module._forward_hooks] == []
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        made.forward_with_taps(images(GREY), ["hidden1"])
    assert [module for module in made.modules() if module._forward_hooks] == []


def test_a_tap_is_not_changed_by_later_layers_that_work_in_place() -> None:
    made = network("torchvision:resnet18").eval()
    pixels = images(COLOUR)
    taps = made.forward_with_taps(pixels, ["conv1", "bn1", "layer1.0.bn2"])[1]
    torch.testing.assert_close(taps["bn1"], made.body.get_submodule("bn1")(taps["conv1"]))
    assert (taps["layer1.0.bn2"] < 0).any()


LAST = {"resnet18": "fc", "shufflenet_v2_x0_5": "fc", "mnasnet0_5": "classifier.1", "googlenet": "fc"}


@pytest.mark.parametrize("name", LAST)
def test_features_are_what_the_last_linear_layer_is_given(name: str) -> None:
    made = network(f"torchvision:{name}", (3, 64, 64), 5).eval()
    logits, taps = made.forward_with_taps(images((3, 64, 64)), ["features", LAST[name]])
    assert taps["features"].ndim == 2
    torch.testing.assert_close(made.body.get_submodule(LAST[name])(taps["features"]), logits)
    above = [key for key, _ in made.named_parameters() if key.startswith(f"body.{LAST[name]}.")]
    assert {key for key, _ in made.named_parameters()} - set(
        made.parameters_below("features", images((3, 64, 64)))
    ) == set(above)
    assert not [module for module in made.modules() if module._forward_pre_hooks or module._forward_hooks]


def test_a_module_called_features_is_read_as_before() -> None:
    made = network("torchvision:mobilenet_v2", COLOUR, 5).eval()
    maps = made.forward_with_taps(images(COLOUR), ["features"])[1]["features"]
    assert maps.shape == (3, 1280, 1, 1)
    torch.testing.assert_close(maps, made.body.get_submodule("features")(made.scale_pixels(images(COLOUR))))


class Backwards(nn.Module):
    """Its last layer is defined first, its features are changed in place afterwards, and it is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(4, 4), nn.Linear(64, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.last(self.first(inputs.flatten(1)).relu())
        logits: Tensor = self.last(hidden)
        return logits + 1


def test_the_last_linear_layer_is_the_one_that_is_called_last() -> None:
    made = Network(Backwards()).eval()
    logits, taps = made.forward_with_taps(images(DIGIT), ["features", "first"])
    body = made.body
    hidden = body.get_submodule("last")(taps["first"].relu())
    assert torch.equal(taps["features"], hidden)
    assert torch.equal(logits, body.get_submodule("last")(hidden) + 1)


@pytest.mark.parametrize(
    "layers", [[nn.Flatten(), nn.Linear(64, 3)], [nn.Conv2d(1, 3, 8), nn.Conv2d(3, 3, 1), nn.Flatten()]]
)
def test_where_nothing_is_learnt_before_there_are_no_features(layers: list[nn.Module]) -> None:
    with refused("unknown tap 'features': expected one of 0, 1"):
        Network(nn.Sequential(*layers)).forward_with_taps(images(DIGIT), ["features"])


@pytest.mark.parametrize(
    "head", [{"name": "multichannel"}, {"name": "channel_outputs", "channels": 2}], ids=lambda head: head["name"]
)
def test_a_head_leaves_the_features(head: dict[str, Any]) -> None:
    made, plain = (network("torchvision:resnet18", COLOUR, 5, **how).eval() for how in ({"head": head}, {}))
    inner = made.body.get_submodule("body") if head["name"] == "channel_outputs" else made.body
    inner.load_state_dict({k: v for k, v in plain.body.state_dict().items() if not k.startswith("fc.")}, strict=False)
    found, expected = (each.forward_with_taps(images(COLOUR), ["features"])[1]["features"] for each in (made, plain))
    assert torch.equal(found, expected)


def test_of_many_names_the_nearest_come_first() -> None:
    made = network("torchvision:resnet18")
    with refused(
        "unknown tap 'layer33': did you mean 'layer3' or 'layer3.1' or 'layer3.0'? expected one of layer3, layer3.1, layer3.0, avgpool, bn1",
        " more",
    ):
        made.forward_with_taps(images(COLOUR), ["layer33"])
    few = describe_unknown("tap", "b1", ["b", "a"])
    assert few == "unknown tap 'b1': expected one of a, b; did you mean 'b'?"
    assert describe_unknown("tap", "z", [f"a{n}" for n in range(99)]).endswith(" and 59 more")


def test_who_asks_for_a_tap_is_named(tmp_path: Path, run: Run, capsys: Capture, study: dict[str, Any]) -> None:
    study["dumps"] = {"some-hints": {"field": "hints", "of": "big", "taps": ["hiddn1"]}}
    study["students"] = {
        "s": {**study["students"]["kd"], "losses": {"ce": {}}, "head": {"multichannel": {"tap": "hidden7"}}}
    }
    write_study(tmp_path, study)
    assert run(tmp_path, "prepare", "digits") == 0
    error = command_refused(run, capsys, tmp_path, "train-teacher", "big")
    assert "params.yaml: dumps.some-hints: unknown tap 'hiddn1': expected one of" in error
    error = command_refused(run, capsys, tmp_path, "train-student", "s")
    assert "params.yaml: students.s: head multichannel: unknown tap 'hidden7': expected one of" in error
    taps, study["dumps"]["some-hints"]["taps"] = study["dumps"]["some-hints"]["taps"], ["hidden1"]
    write_study(tmp_path, study)
    assert run(tmp_path, "train-teacher", "big") == 0
    study["dumps"]["some-hints"]["taps"] = taps
    write_study(tmp_path, study)
    error = command_refused(run, capsys, tmp_path, "dump-hints", "some-hints")
    assert error.startswith("error: dump 'some-hints' of 'big': unknown tap 'hiddn1': expected one of")


@pytest.mark.parametrize("mean", [None, (0.4, 0.5, 0.6)])
@pytest.mark.parametrize("std", [None, (0.2, 0.25, 0.3)])
def test_scaling_is_what_it_says(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    made = network("mlp", widths=(3,), mean=mean, std=std)
    pixels = images(COLOUR)
    by_hand = pixels.double() / 255
    by_hand = by_hand - torch.tensor(mean or (0.0,), dtype=torch.float64).view(-1, 1, 1)
    by_hand = by_hand / torch.tensor(std or (1.0,), dtype=torch.float64).view(-1, 1, 1)
    scaled = made.scale_pixels(pixels)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled.double(), by_hand, rtol=1e-5, atol=1e-6)
    assert torch.equal(made(pixels), made.body(scaled))
    assert set(made.state_dict()) == {f"body.{name}" for name in made.body.state_dict()}


@pytest.mark.parametrize(
    ("mean", "std"), [((0,), (1,)), ((0.0,), (1.0,)), ((1,), (0.5,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
)
def test_scalings_that_pixels_can_have_are_taken(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    made = from_params({"name": "mlp", "widths": [3], "mean": mean, "std": std}, COLOUR)
    expected = (images(COLOUR) / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(made.scale_pixels(images(COLOUR)), expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ models from elsewhere


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.pt"
    torch.save(network("torchvision:resnet18", classes=5).body.state_dict(), path)
    return path


def test_torchvision_repeats_grey_images(resnet_file: Path) -> None:
    grey, colour = (network("torchvision:resnet18", s, 5, weights=resnet_file).eval() for s in ((1, 32, 32), COLOUR))
    pixels = images((1, 32, 32))
    assert grey(pixels).shape == (3, 5)
    assert torch.equal(grey(pixels), colour(pixels.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_torchvision_weights_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    saved = build_network({"name": "torchvision:resnet18"}, COLOUR, 5).eval()
    path = tmp_path / f"mine{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(saved.body.state_dict(), path)
    pixels = images(COLOUR)
    read = from_params({"name": "torchvision:resnet18", "weights": str(path)}, COLOUR, 5).eval()
    assert torch.equal(read(pixels), saved(pixels))
    assert not torch.equal(network("torchvision:resnet18", classes=5).eval()(pixels), saved(pixels))


def test_a_new_head_keeps_the_rest_of_the_weights(resnet_file: Path) -> None:
    torch.manual_seed(7)
    made = build_network({"name": "torchvision:resnet18", "weights": resnet_file, "new_head": True}, COLOUR, 4).body
    torch.manual_seed(7)
    fresh = build_network({"name": "torchvision:resnet18"}, COLOUR, 4).body.state_dict()
    saved = read_weights(resnet_file)
    for name, value in made.state_dict().items():
        assert torch.equal(value, (fresh if name.startswith("fc.") else saved)[name]), name
    with refused(f"weights file {resnet_file}: expected fc.bias of shape (4,)", "found (5,)"):
        network("torchvision:resnet18", classes=4, weights=resnet_file)


def test_torchvision_with_auxiliary_heads_gives_logits() -> None:
    made = network("torchvision:googlenet", (3, 64, 64), 5)
    assert made.train()(images((3, 64, 64))).shape == (3, 5)


def test_weights_are_not_read_for_a_network_that_gets_its_own(tmp_path: Path) -> None:
    model = {"name": "torchvision:resnet18", "weights": tmp_path / "gone.pt", "new_head": True}
    assert build_network(model, COLOUR, 5, files=False).parameter_count() > 0
    with refused(f"weights file {tmp_path / 'gone.pt'}: expected a file, found nothing"):
        build_network(model, COLOUR, 5)


def test_timm_models(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pixels = images((1, 32, 32))
    made = network("timm:resnet18", (1, 32, 32), 5).eval()
    logits, taps = made.forward_with_taps(pixels, ["layer2"])
    assert (logits.shape, taps["layer2"].shape) == ((3, 5), (3, 128, 4, 4))
    torch.save(made.body.state_dict(), tmp_path / "mine.pt")
    torch.manual_seed(9)
    model = {"name": "timm:resnet18", "weights": str(tmp_path / "mine.pt")}
    assert torch.equal(from_params(model, (1, 32, 32), 5).eval()(pixels), logits)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "torchvision:mobilenet_v3_small", "norm_momentum": 0.1, "dropout": 0.4}, {"dropout": 0.4}),
        ({"name": "torchvision:resnet18", "norm_momentum": 0.25, "zero_init_residual": True}, {"zeros": 8}),
        ({"name": "torchvision:mobilenet_v2", "width_mult": 0.25}, {"dropout": 0.2}),
    ],
    ids=lambda value: value.get("name"),
)
def test_options_of_torchvision_s_constructors_reach_them(model: dict[str, Any], expected: dict[str, float]) -> None:
    made = from_params(model, COLOUR).body
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {model.get("norm_momentum", 0.1)}
    if "dropout" in expected:
        assert {module.p for module in made.modules() if isinstance(module, nn.Dropout)} == {expected["dropout"]}
    if "zeros" in expected:
        assert sum(not norm.weight.any() for norm in norms) == expected["zeros"]
    default = network(model["name"]).body
    assert {norm.momentum for norm in default.modules() if isinstance(norm, nn.BatchNorm2d)} != {0.25}
    if "width_mult" in model:
        assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in default.parameters()) / 4


def test_a_vision_transformer_is_given_the_size_of_its_images() -> None:
    with torch.device("meta"):
        made = MODELS.import_function("torchvision:vit_b_16")(COLOUR, 5, image_size=32)
    assert made.encoder.pos_embedding.shape == (1, 5, 768)


def test_options_that_are_not_set_stand_in_no_card() -> None:
    """Caches that were sealed before there were such options state the architecture without them."""

    def stated(**model: Any) -> dict[str, Any]:
        teacher = {"model": {"name": "torchvision:resnet18", **model}, "epochs": 1}
        study = parse_study({"dataset": {"source": "digits"}, "teachers": {"big": teacher}})
        return describe_model(study.teachers["big"], "json")

    plain = {"name": "torchvision:resnet18", "mean": None, "std": None, "weights": None, "new_head": False}
    assert stated() == plain
    more = {"norm_momentum": 0.5, "replace_stride_with_dilation": [False, False, False]}
    assert stated(**more) == {**plain, **more}
    assert stated(norm_momentum=None) == plain


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"name": "resnet18", "dropuot": 0.1}, ["teachers.big.model: unknown key 'dropuot': expected one of groups, "]),
        ({"name": "mobilenet_v2", "dropuot": 0.1}, ["unknown key 'dropuot'", "did you mean 'dropout'?"]),
        ({"name": "mobilenet_v2", "dropout": "a"}, ["teachers.big.model.dropout: expected a valid number, found 'a'"]),
        ({"name": "mobilenet_v2", "norm_layer": "a"}, ["teachers.big.model: unknown key 'norm_layer'"]),
        ({"name": "mobilenet_v2", "num_classes": 3}, ["teachers.big.model: unknown key 'num_classes'"]),
        ({"name": "mobilenet_v2", "norm_momentum": 0}, ["model.norm_momentum: expected greater than 0, found 0"]),
        ({"name": "mobilenet_v2", "norm_momentum": 1.5}, ["model.norm_momentum: expected less than or equal to 1"]),
        ({"name": "googlenet", "aux_logits": True}, ["teachers.big.model: unknown key 'aux_logits'"]),
        ({"name": "alexnet", "norm_momentum": 0.1}, ["norm_momentum: expected a model with batch normalisation, found none in it"]),
        ({"name": "densenet121", "growth_rate": 8}, ["model torchvision:densenet121: growth_rate: expected nothing: it is what this model is, found 8"]),
        ({"name": "resnext50_32x4d", "groups": 2}, ["torchvision:resnext50_32x4d", "'groups' expected value 32 but got 2"]),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_in_constructors_options_are_named(options: dict[str, Any], parts: list[str]) -> None:
    with refused(*parts):
        from_params({**options, "name": f"torchvision:{options['name']}"}, COLOUR)


class Odd(nn.Module):
    """A constructor with parameters of all kinds."""

    def __init__(  # type: ignore[no-untyped-def]
        self, block: type, sizes: list[int], pair: tuple[int, float], *rest: int, rate: float | None = None, act: Callable[..., Any] | str = "relu",
        nested: Sequence[tuple[int, int]] = (), untyped=3, none=None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()


def test_what_parameters_can_say_of_a_constructor() -> None:
    assert constructor_options(Odd) == {
        "sizes": tuple[int, ...], "pair": tuple[int, float], "rate": float, "act": str,
        "nested": tuple[tuple[int, int], ...], "untyped": int,
    }  # fmt: skip


def test_timm_models_take_their_constructors_options() -> None:
    pytest.importorskip("timm")
    made = from_params({"name": "timm:resnet18", "drop_rate": 0.3, "norm_momentum": 0.2}, COLOUR).body
    assert made.drop_rate == 0.3
    assert {module.momentum for module in made.modules() if isinstance(module, nn.BatchNorm2d)} == {0.2}
    with refused("teachers.big.model: unknown key 'drop_rat'", "did you mean 'drop_rate' or "):
        from_params({"name": "timm:resnet18", "drop_rat": 0.3}, COLOUR)


def test_timm_models_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with refused("model 'timm:resnet18' needs timm: pip install 'teachercache[timm]'"):
        from_params({"name": "timm:resnet18"}, COLOUR)


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(
        """
from __future__ import annotations
from typing import Literal
from pydantic import PositiveInt
from torch import nn

NUMBER = 3

def net(shape, classes, *, width: PositiveInt, kind: Literal["a", "b"] = "a") -> nn.Module:
    channels, rows, columns = shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * rows * columns, width), nn.Linear(width, classes))

class Net(nn.Module):
    def __init__(self, shape, classes, *, width: int = 3) -> None:
        super().__init__()
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)


def test_a_model_of_one_s_own(own_models: None) -> None:
    made = from_params({"name": "own_models:net", "width": 13}, DIGIT, 4)
    assert made(images(DIGIT)).shape == (3, 4)
    assert made.parameter_count() == 65 * 13 + 14 * 4
    assert made.forward_with_taps(images(DIGIT), ["1"])[1]["1"].shape == (3, 13)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ({"name": "own_models:net"}, ["teachers.big.model.width: missing"]),
        ({"name": "own_models:net", "width": 0}, ["teachers.big.model.width: expected greater than 0, found 0"]),
        (
            {"name": "own_models:net", "width": 2, "kind": "c"},
            ["teachers.big.model.kind: expected 'a' or 'b', found 'c'"],
        ),
        ({"name": "own_models:net", "widht": 2}, ["teachers.big.model: unknown key 'widht'", "did you mean 'width'?"]),
        (
            {"name": "own_models:nett"},
            ["model.name: cannot import model 'own_models:nett': own_models has no 'nett'", "package.module:function"],
        ),
        ({"name": "own_models:NUMBER"}, ["model.name: ", "'own_models:NUMBER'", "package.module:function"]),
        ({"name": "own_models:Net"}, ["model.name: ", "'own_models:Net'", "package.module:function"]),
        ({"name": "mpl"}, ["model.name: unknown model 'mpl': expected one of cnn", "did you mean 'mlp'?"]),
        ({"name": "torchvision:resnet81"}, ["unknown torchvision model 'resnet81'", "did you mean 'resnet"]),
        ({"name": "mlp", "widths": [3], "dropout": 1}, ["teachers.big.model.dropout: expected less than 1, found 1"]),
        *(
            (
                {"name": "mlp", "widths": [3], key: values},
                [
                    f"teachers.big.model.{key}: expected {limits}, since pixels are scaled to [0, 1] before",
                    f"found {list(values)}; {fix}",
                ],
            )
            for key, values, limits, fix in (
                ("mean", [127.5], "numbers from 0 to 1", "divide by 255: 0.5"),
                ("std", [127.5], "numbers above 0, up to 1", "divide by 255: 0.5"),
                ("mean", [0.5, 0.5, 123.675], "numbers from 0 to 1", "divide by 255"),
                ("std", [58.4, 0.2, 0.2], "numbers above 0, up to 1", "divide by 255"),
                ("mean", [-0.1], "numbers from 0 to 1", "leave it out for pixels as they are"),
                ("std", [0.0], "numbers above 0, up to 1", "leave it out for pixels as they are"),
                ("std", [1.01], "numbers above 0, up to 1", "leave it out for pixels as they are"),
            )
        ),
    ],
)
def test_models_that_nobody_has_are_refused(own_models: None, model: dict[str, Any], parts: list[str]) -> None:
    with refused("params.yaml: teachers.big.model", *parts):
        from_params(model, DIGIT)


@pytest.mark.parametrize("name", ["no_models:net", "no.such.models:net", "broken_models:net"])
def test_a_model_whose_module_is_not_here_is_refused_by_who_builds_it(
    own_models: None, tmp_path: Path, name: str
) -> None:
    (tmp_path / "broken_models.py").write_text("import a_package_that_is_not_installed\n")
    model = {"name": name, "width": 3, "rates": [1, 2.5], "mean": [0.5]}
    section = parse_study(
        {"dataset": {"source": "digits"}, "teachers": {"big": {"model": model, "epochs": 1}}}
    ).teachers["big"]
    assert section.model is not None
    assert section.model.is_unchecked
    assert describe_model(section, "json") == {"name": name, "width": 3, "rates": [1, 2.5], "mean": [0.5], "std": None}
    with refused(
        f"cannot import model '{name}': ", "expected package.module:function, and the module beside params.yaml"
    ):
        build_network(describe_model(section), DIGIT, 4)
    with refused("teachers.big.model.mean"):
        from_params({**model, "mean": "a"}, DIGIT)


@pytest.fixture
def elsewhere(run: Run, tmp_path: Path, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose teacher and one student are of a module that made the cache, and is no longer there."""
    monkeypatch.delitem(sys.modules, "gone_nets", raising=False)
    (tmp_path / "gone_nets.py").write_text(
        "import math\nfrom torch import nn\n\ndef net(shape, classes, *, width: int = 9, depth: int = 1):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.Linear(width, classes))\n"
    )
    study["teachers"]["big"]["model"] = {"name": "gone_nets:net", "width": 12}
    study["students"]["own"] = {**study["students"]["kd"], "model": {"name": "gone_nets:net"}}
    write_study(tmp_path, study)
    assert run(tmp_path, "graph") == 0
    for command in ("prepare digits", "train-teacher big", "dump-logits big-logits"):
        assert run(tmp_path, *command.split()) == 0
    shutil.rmtree(tmp_path / "data/prepared")
    monkeypatch.delitem(sys.modules, "gone_nets")
    (tmp_path / "gone_nets.py").unlink()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    return tmp_path


def test_what_a_command_does_not_use_need_not_be_there(run: Run, elsewhere: Path, capsys: Capture) -> None:
    capsys.readouterr()
    for command in (
        "prepare digits",
        "train-student kd",
        "train-student baseline",
        "cache inspect data/cache/big-logits",
    ):
        assert run(elsewhere, *command.split()) == 0, capsys.readouterr().err
    assert "gone_nets" not in capsys.readouterr().err
    for command in ("train-student own", "train-teacher big", "dump-logits big-logits"):
        error = command_refused(run, capsys, elsewhere, *command.split())
        assert "cannot import model 'gone_nets:net': ModuleNotFoundError: No module named 'gone_nets'" in error
        assert "beside params.yaml or on PYTHONPATH" in error


def test_a_cache_of_other_options_is_refused_without_the_module_too(run: Run, elsewhere: Path, capsys: Capture) -> None:
    assert run(elsewhere, "prepare", "digits") == 0
    changed = read_params(elsewhere / "params.yaml")
    changed["teachers"]["big"]["model"]["width"] = 13
    write_study(elsewhere, changed)
    error = command_refused(run, capsys, elsewhere, "train-student", "kd")
    assert "teacher.architecture.width expected 13, found 12" in error


def test_the_graph_names_modules_that_are_not_here(run: Run, elsewhere: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert run(elsewhere, "graph") == 0
    assert capsys.readouterr().err.splitlines() == [
        f"warning: params.yaml: {key}.model.name: cannot import model 'gone_nets:net': ModuleNotFoundError: No module named "
        "'gone_nets'; expected package.module:function, and the module beside params.yaml or on PYTHONPATH; the stages "
        "that use it will refuse it"
        for key in ("teachers.big", "students.own")
    ]


# ------------------------------------------------------------------ weight files


def two_layers(inputs: int = 4, hidden: int = 8, outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Linear(hidden, outputs))


State = dict[str, Any]


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


BESIDE = {
    "epoch": 3,
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
    "best": 0.5,
}
READY: dict[str, tuple[Callable[[State], Any], str]] = {
    "module.": (lambda s: prefixed(s, "module."), "took without the prefix 'module.' of all its 4 names"),
    "_orig_mod.": (lambda s: prefixed(s, "_orig_mod."), "took without the prefix '_orig_mod.' of all its 4 names"),
    "model.": (lambda s: prefixed(s, "model."), "took without the prefix 'model.' of all its 4 names"),
    "net.": (lambda s: prefixed(s, "net."), "took without the prefix 'net.' of all its 4 names"),
    "nested": (lambda s: prefixed(s, "module._orig_mod.net."), "took without the prefix 'module._orig_mod.net.' of all"),
    "state_dict": (lambda s: {"state_dict": s, **BESIDE}, "took its entry ['state_dict']"),
    "model": (lambda s: {"model": s, **BESIDE}, "took its entry ['model']"),
    "model_state_dict": (lambda s: {**BESIDE, "model_state_dict": s}, "took its entry ['model_state_dict']"),
    "ema": (lambda s: {"ema": s, "decay": 0.99}, "took its entry ['ema']"),
    "lightning": (lambda s: {"state_dict": prefixed(s, "model."), **BESIDE}, "took its entry ['state_dict'], without the prefix 'model.'"),
    "in an entry": (lambda s: {"ema": {"module": s, "decay": 0.9}}, "took its entry ['ema']['module']"),
    "averaged": (lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")}, "took without the prefix 'module.' of all its 4 names, without 'n_averaged'"),
    "twice the same": (lambda s: {"model": s, "ema": dict(s)}, "took its entry ['model']"),
    "another beside it": (lambda s: {"model": {"a": torch.ones(1)}, "state_dict": s}, "took its entry ['state_dict']"),
    "plain": (lambda s: s, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", READY)
def test_weights_are_read_as_people_have_them(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    saved_as, told = READY[kind]
    state = two_layers().state_dict()
    torch.save(saved_as(state), tmp_path / "w.pt")
    torch.manual_seed(9)
    made = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    load_foreign_weights([made], tmp_path / "w.pt")
    assert all(torch.equal(tensor, state[name]) for name, tensor in made.state_dict().items())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]
    assert len(lines) == bool(told)
    assert all(line.startswith(f"weights file {tmp_path / 'w.pt'}: {told}") for line in lines)


@pytest.mark.parametrize(
    ("saved_as", "parts"),
    [
        (lambda s: {"model": s, "ema": other(s), **BESIDE}, ["expected one state dict that fits the architecture, found two that differ: ['model'] and ['ema']", "save the one that you mean alone: torch.save(torch.load(FILE)['ema'], NEW)"]),
        (lambda s: {"ema": {"module": other(s)}, "state_dict": prefixed(s, "module.")}, ["found two that differ: ['state_dict'] and ['ema']['module']"]),
        (lambda s: {**prefixed({"0.weight": s["0.weight"]}, "module."), "0.bias": s["0.bias"]}, ["expected the 4 tensors", "found 3 that the file lacks (0.weight, 1.bias, 1.weight) and 1 that the architecture does not have (module.0.weight); name the architecture"]),
        (lambda s: {"model": {"0.weight": s["0.weight"]}}, [": its entry ['model']: expected the 4 tensors of the architecture", "found 3 that the file lacks (0.bias, 1.bias, 1.weight); name the architecture that the file was saved from"]),
        (lambda s: prefixed(s, "backbone."), ["found 4 that the file lacks (0.bias, 0.weight, 1.bias and 1 more) and 4 that the architecture does not have (backbone.0.bias, "]),
        (lambda s: {"state_dict": prefixed({**s, "1.weight": torch.ones(3, 8)}, "net.")}, [": its entry ['state_dict'], without the prefix 'net.' of all its 4 names: expected 1.weight of shape (2, 8), found (3, 8)"]),
        (lambda s: {"epoch": 3, "weights": s}, ["expected a dict of tensors, found dict with the entries epoch, weights", "export the state dict again"]),
        (lambda s: [1, 2], ["expected a dict of tensors, found list"]),
        (lambda s: {f"e{n}": s for n in range(7)}, ["found dict with the entries e0, e1, e2, e3, e4 and 2 more; export"]),
        (lambda s: {"a\nb": s, "c" * 999: s}, ["found dict with the entries a b, ccc", "ccc; export"]),
        (lambda s: {}, ["expected a dict of tensors, found an empty dict; export the state dict again"]),
        (lambda s: {"model": {}}, ["expected a dict of tensors, found dict with the entries model; export"]),
        (lambda s: {0: torch.ones(1)}, ["expected a dict of tensors"]),
        (lambda s: {"model": {**s, "0.bias": torch.full((8,), float("nan"))}}, ["expected finite numbers as float32, found NaN or inf in '0.bias'"]),
        (lambda s: {"model": two_layers()}, ["expected a dict of tensors, found pickled objects (torch.nn.modules.container.Sequential); export the state dict again"]),
        (lambda s: {"model": s, "args": SimpleNamespace(lr=0.1)}, ["found pickled objects (types.SimpleNamespace)"]),
    ],
)  # fmt: skip
def test_weights_that_fit_in_no_way_or_in_two_are_refused(
    tmp_path: Path, saved_as: Callable[[State], Any], parts: list[str]
) -> None:
    made = two_layers()
    torch.save(saved_as(made.state_dict()), tmp_path / "w.pt")
    before = [tensor.clone() for tensor in made.state_dict().values()]
    with refused(f"weights file {tmp_path / 'w.pt'}: ", *parts):
        load_foreign_weights([made], tmp_path / "w.pt")
    assert all(torch.equal(was, now) for was, now in zip(before, made.state_dict().values(), strict=True))


def test_a_model_whose_own_names_begin_so_is_read_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save(other(made.state_dict()), tmp_path / "w.pt")
    load_foreign_weights([made], tmp_path / "w.pt")
    torch.save(prefixed(made.state_dict(), "model."), tmp_path / "w.pt")
    assert not caplog.records
    load_foreign_weights([made], tmp_path / "w.pt")
    assert "without the prefix 'model.' of all its 2 names" in caplog.text


def test_a_prefixed_head_may_be_new(tmp_path: Path, resnet_file: Path) -> None:
    torch.save({"state_dict": prefixed(read_weights(resnet_file), "module.")}, tmp_path / "w.pt")
    new = network("torchvision:resnet18", classes=4, weights=tmp_path / "w.pt", new_head=True).body.state_dict()
    assert torch.equal(new["conv1.weight"], read_weights(resnet_file)["conv1.weight"])
    with refused(
        "its entry ['state_dict'], without the prefix 'module.'", "expected fc.bias of shape (4,), found (5,)"
    ):
        network("torchvision:resnet18", classes=4, weights=tmp_path / "w.pt")


@pytest.mark.parametrize("whole", [False, True], ids=["the body's names", "the network's names"])
def test_a_teacher_s_file_is_read_so_too(tmp_path: Path, whole: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = {"name": "mlp", "widths": (4,)}
    made = build_network(model, DIGIT, 3).eval()
    state = (made if whole else made.body).state_dict()
    save_file(prefixed(state, "module."), tmp_path / "w.safetensors")
    read = load_foreign_teacher(tmp_path / "w.safetensors", model=model, shape=DIGIT, classes=3).eval()
    assert torch.equal(read(images(DIGIT)), made(images(DIGIT)))
    assert "without the prefix 'module.' of all its 4 names" in caplog.text


def test_commands_print_what_was_stripped_once(
    run: Run, tmp_path: Path, capsys: Capture, study: dict[str, Any]
) -> None:
    names = build_network({"name": "torchvision:squeezenet1_1"}, COLOUR, 10).body.state_dict()
    torch.save({"model": prefixed(names, "module.")}, tmp_path / "w.pt")
    model = {"name": "torchvision:squeezenet1_1", "weights": "w.pt"}
    small = {"model": model, "epochs": 1, "seeds": 2, "batch_size": 8, "losses": {"ce": {}}}
    datasets = {"tiny": {"source": "digits", "size": 32, "train": {"first": 10}}}
    write_study(tmp_path, {"datasets": datasets, "students": {"s": small}})
    assert run(tmp_path, "prepare", "tiny") == 0
    capsys.readouterr()
    assert run(tmp_path, "train-student", "s") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: weights")]
    assert lines == [
        f"note: weights file w.pt: took its entry ['model'], without the prefix 'module.' of all its {len(names)} names"
    ]


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_missing_weights_are_refused(tmp_path: Path, name: str) -> None:
    with refused(f"weights file {tmp_path / name}: expected a file, found nothing; correct the path"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize(
    "data",
    [b"", b"no weights, just text\n", b"\x80\x02\xff\xfe\xfd", b"PK\x03\x04" + b"\0" * 40, b"X0", b"."],
    ids=["empty", "text", "pickle-like", "zip-like", "short", "stack"],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_garbage_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    found = (
        "pickled objects"
        if data[:1] == b"\x80"
        else "no file that torch or safetensors reads"
        if data
        else "an empty file"
    )
    with refused(f"weights file {tmp_path / name}: expected a dict of tensors, found {found}"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (save_file if name.endswith(".safetensors") else torch.save)(two_layers().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with refused(f"weights file {path}: expected a dict of tensors, found no file that torch or safetensors reads ("):
        read_weights(path)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_executed(tmp_path: Path, how: str) -> None:
    path, sprung = tmp_path / "w.pt", tmp_path / "sprung"
    content = {"weight": torch.ones(2), "more": Trap(sprung)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with refused(f"weights file {path}: expected a dict of tensors, found"):
        read_weights(path)
    assert not sprung.exists()
    if how == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert sprung.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [([torch.ones(2)], "list"), ({"epoch": 3}, "dict"), ({"state_dict": {"w": torch.ones(2)}}, "dict"), (3, "int")],
)
def test_files_of_anything_but_tensors_are_refused(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with refused(
        f"weights file {tmp_path / 'w.pt'}: expected a dict of tensors, found {found}", "export the state dict"
    ):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    state = {**two_layers().state_dict(), "1.bias": torch.tensor([1.0, value], dtype=dtype)}
    save_file(state, tmp_path / "w.safetensors")
    with refused("expected finite numbers as float32, found NaN or inf in '1.bias'"):
        load_foreign_weights([two_layers()], tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [1e300, -3.5e38, 3.4028236e38])
def test_weights_that_float32_cannot_hold_are_named(tmp_path: Path, value: float) -> None:
    state = {**two_layers().state_dict(), "1.bias": torch.tensor([1.0, value], dtype=torch.float64)}
    torch.save(state, tmp_path / "w.pt")
    with refused(
        "expected finite numbers as float32, found larger ones in '1.bias' (float64); train it again, within the range"
    ):
        load_foreign_weights([two_layers()], tmp_path / "w.pt")
    load_foreign_weights([two_layers().double()], tmp_path / "w.pt")  # float64 holds them


def normalised() -> nn.Module:
    """With float tensors and a counter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


COUNTS = "1.num_batches_tracked"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("0.weight", each) for each in (torch.int8, torch.uint8, torch.int64, torch.bool)),
        *(("1.running_var", each) for each in (torch.complex64, torch.complex128, torch.float8_e4m3fn)),
        *((COUNTS, each) for each in (torch.float32, torch.float16, torch.bool, torch.complex64)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_other_kinds_of_numbers_are_refused_by_name(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    made = normalised()
    state = made.state_dict()
    torch.save({**state, name: state[name].to(dtype)}, tmp_path / "w.pt")
    formats = (
        "uint8 or int8 or int16 or int32 or int64" if name == COUNTS else "float16 or bfloat16 or float32 or float64"
    )
    with refused(
        f"weights file {tmp_path / 'w.pt'}: expected {name!r} in {formats}, found {dtype};".replace("torch.", "")
    ):
        load_foreign_weights([made], tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"0.weight": torch.float16}, "float16 -> float32"),
        ({"0.weight": torch.bfloat16, "0.bias": torch.bfloat16}, "bfloat16 -> float32"),
        ({"1.running_mean": torch.float64, "0.bias": torch.float16}, "float16 -> float32, float64 -> float32"),
        ({COUNTS: torch.int32}, "int32 -> int64"),
        ({}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", [False, True])
def test_conversions_are_told_in_one_line(
    tmp_path: Path, changed: dict[str, torch.dtype], told: str, entry: bool, caplog: pytest.LogCaptureFixture
) -> None:
    state = normalised().state_dict()
    state |= {name: state[name].to(dtype) for name, dtype in changed.items()}
    torch.save({"model": state} if entry else state, tmp_path / "w.pt")
    made = normalised()
    nn.init.zeros_(made.get_parameter("0.weight"))
    load_foreign_weights([made], tmp_path / "w.pt")
    for name, value in made.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype))
    done = ["took its entry ['model']"] * entry + [f"converted its numbers ({told})"] * bool(told)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]
    assert lines == ([f"weights file {tmp_path / 'w.pt'}: {'; '.join(done)}"] if done else [])


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "coo": (lambda t: t.to_sparse(), "sparse (sparse_coo); save it dense"),
    "csr": (lambda t: t.to_sparse_csr(), "sparse (sparse_csr); save it dense"),
    "meta": (lambda t: t.to("meta"), "on the meta device, without values; load the values before saving"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantised (qint8); save the weights"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), "nested; save it as a tensor of one shape"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("twice", [False, True])
def test_tensors_that_are_not_simply_their_numbers_are_refused(tmp_path: Path, kind: str, twice: bool) -> None:
    made = two_layers()
    change, told = ODD[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {**made.state_dict(), "1.weight": change(made.state_dict()["1.weight"])}
        torch.save(
            {"model": made.state_dict(), "ema": state} if twice and kind != "nested" else state, tmp_path / "w.pt"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused(f"weights file {tmp_path / 'w.pt'}: expected dense tensors, found '1.weight', which is {told}"):
            load_foreign_weights([made], tmp_path / "w.pt")


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "behind a link"])
@pytest.mark.parametrize(
    ("make", "found"),
    [(os.mkfifo, "a pipe, a socket or a device"), (os.mkdir, "a folder")],
    ids=["pipe", "folder"],
)
def test_only_regular_files_are_read(tmp_path: Path, make: Callable[[Path], None], found: str, linked: bool) -> None:
    make(tmp_path / "there")
    path = tmp_path / ("link" if linked else "there")
    if linked:
        path.symlink_to("there")
    with refused(f"weights file {path}: expected a regular file, found {found}; name the file itself"):
        load_foreign_weights([two_layers()], path)


@pytest.mark.parametrize(
    ("name", "found"),
    [("x" * 300, "File name too long"), ("file/w.pt", "Not a directory"), ("a\0b", "null"), ("loop", "symbolic links")],
)
def test_paths_that_lead_to_no_file_are_refused(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with refused("expected a file that can be read, found ", found, "correct the path"):
        load_foreign_weights([two_layers()], tmp_path / name)


def test_a_link_to_weights_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    state = two_layers().state_dict()
    save_file(state, tmp_path / "safe")
    torch.save(state, tmp_path / "torch")
    for name in ("safe", "torch"):
        for suffix in (".pt", ".safetensors", ".bin"):
            (tmp_path / f"{name}{suffix}").symlink_to(name)
            assert torch.equal(read_weights(tmp_path / f"{name}{suffix}")["1.bias"], state["1.bias"])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.filterwarnings("error")
def test_a_plain_pickle_is_refused_in_one_line(tmp_path: Path, protocol: int) -> None:
    content = {"weight": [1.0, 2.0], "epoch": 3}
    (tmp_path / "w.pt").write_bytes(pickle.dumps(content, protocol))
    found = "pickled objects" if protocol > 1 else "no file that torch or safetensors reads"
    with refused(f"weights file {tmp_path / 'w.pt'}: expected a dict of tensors, found {found}; export"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_torchscript_archive_is_called_so(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with refused("expected a dict of tensors, found a TorchScript archive; export the state dict again"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("model_s", [False, True], ids=["teacher's", "model's"])
@pytest.mark.parametrize(
    "given", ["https://x.org/w.pt", "s3://bucket/w.safetensors", "file:///w.pt", "hf://a/b/w.pt", ""]
)
def test_weights_are_files_of_this_machine(study: dict[str, Any], given: str, model_s: bool) -> None:
    model = {"name": "torchvision:resnet18"}
    study["teachers"]["big"] = (
        {"model": {**model, "weights": given}, "epochs": 1} if model_s else {"model": model, "weights": given}
    )
    with refused(
        "big", f"weights: expected a file of this machine, found {given!r}" + "; download it first" * bool(given)
    ):
        parse_study(study, "params.yaml")


def test_a_home_is_written_out(
    run: Run, tmp_path: Path, capsys: Capture, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    model = {"name": "mlp", "widths": [4]}
    torch.save(build_network(model, DIGIT, 10).body.half().state_dict(), tmp_path / "home/w.pt")
    study["teachers"]["big"] = {"model": model, "weights": "~/w.pt"}
    study["students"]["own"] = {
        **study["students"]["baseline"], "model": {"name": "torchvision:resnet18", "weights": "~/r.pt"}
    }  # fmt: skip
    folder = write_study(tmp_path / "study", study)
    made = parse_study(study, "params.yaml")
    assert made.students["own"].model.extra_options(ModelParams)["weights"] == tmp_path / "home/r.pt"
    assert not [dep for stage in compile_stages(made) for dep in stage.deps if dep.endswith(".pt")]
    assert run(folder, "prepare", "digits") == 0
    capsys.readouterr()
    assert run(folder, "train-teacher", "big") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
    assert told == [f"note: weights file {tmp_path / 'home/w.pt'}: converted its numbers (float16 -> float32)"]


def test_nobody_s_home_is_no_place_for_weights(study: dict[str, Any]) -> None:
    study["teachers"]["big"] = {"model": {"name": "mlp", "widths": [4]}, "weights": "~nobody-here/w.pt"}
    made = parse_study(study, "params.yaml")
    assert not [dep for stage in compile_stages(made) for dep in stage.deps if dep.endswith(".pt")]
    path = made.teachers["big"].weights
    assert path is not None
    with refused("weights file ~nobody-here/w.pt: expected a file, found nothing; correct the path"):
        load_foreign_weights([two_layers()], path)


def test_wrong_names_and_shapes_are_named() -> None:
    state = two_layers().state_dict()
    renamed = {name.replace("1.weight", "head.weight"): value for name, value in state.items()}
    with refused(
        "w.pt: expected the 4 tensors of the architecture, found 1 that the file lacks (1.weight) and 1 that the "
        "architecture does not have (head.weight)"
    ):
        load_into(two_layers(), renamed, "w.pt")
    with refused("w.pt: expected 0.weight of shape (8, 5), found (8, 4)", "correct the model's options"):
        load_into(two_layers(inputs=5), state, "w.pt")


@pytest.mark.parametrize(
    "sizes", [{"outputs": 3, "inputs": 5}, {"hidden": 9}, {"inputs": 5}], ids=["two layers", "hidden", "first layer"]
)
def test_a_new_head_is_the_last_layer_only(sizes: dict[str, int]) -> None:
    with refused("w.pt: expected", "of shape"):
        load_into(two_layers(**sizes), two_layers().state_dict(), "w.pt", new_head=True)


def test_loading_does_not_change_the_network_when_it_fails() -> None:
    module = two_layers(outputs=3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with refused("w.pt: expected 1.bias of shape (3,), found (2,)"):
        load_into(module, {name: value + 1 for name, value in two_layers().state_dict().items()}, "w.pt")
    torch.testing.assert_close(dict(module.state_dict()), before)


# ------------------------------------------------------------------ saved networks

MODEL = {"name": "cnn", "widths": [4, 6, 9], "dropout": 0.5, "mean": [0.3], "std": [0.2]}
CARD = {"model": MODEL, "shape": list(GREY), "classes": list("abcdefg"), "accuracy": 0.5}
CPU = torch.device("cpu")
FIX = "run `teachercache train-teacher big`"


def saved(folder: Path) -> Network:
    torch.manual_seed(3)
    made = build_network(MODEL, GREY, 7)
    save_network(folder, made.state_dict(), CARD)
    return made.eval()


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    made = saved(tmp_path)
    back, card = load_network(tmp_path, CPU, FIX)
    pixels = images(GREY)
    assert torch.equal(back(pixels), made(pixels))
    assert not back.training
    assert {key: card[key] for key in CARD} == CARD
    assert back.taps == made.taps


def test_a_network_is_saved_in_the_same_bytes(tmp_path: Path) -> None:
    made = saved(tmp_path / "first")
    backwards = dict(reversed(made.state_dict().items()))
    digest = save_network(tmp_path / "second", backwards, dict(reversed(CARD.items())))
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")]
    assert files[0] == files[1]
    assert set(files[0]) == {"weights.safetensors", "card.json"}
    assert digest.encode() in files[0]["card.json"]


@pytest.mark.parametrize("offset", [-1, -70, 0, 30])
def test_a_flipped_byte_in_the_weights_is_refused(tmp_path: Path, offset: int) -> None:
    saved(tmp_path)
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with refused(str(path), "expected SHA-256", "found another", FIX):
        load_network(tmp_path, CPU, FIX)


def test_weights_that_are_cut_short_come_with_what_makes_them_anew(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with refused(f"{path}: expected SHA-256 ", FIX):
        load_network(tmp_path, CPU, FIX)


def test_other_weights_than_the_card_s_are_refused(tmp_path: Path) -> None:
    made = saved(tmp_path)
    other = {name: value + 1 for name, value in made.state_dict().items()}
    digest = save_network(tmp_path / "other", other, CARD)
    (tmp_path / "other/weights.safetensors").replace(tmp_path / "weights.safetensors")
    with refused(f"{tmp_path / 'weights.safetensors'}: expected SHA-256 ", FIX):
        load_network(tmp_path, CPU, FIX)
    assert digest not in (tmp_path / "card.json").read_text()


@pytest.mark.parametrize("file", ["card.json", "weights.safetensors"])
def test_half_a_network_is_refused(tmp_path: Path, file: str) -> None:
    saved(tmp_path)
    (tmp_path / file).unlink()
    with refused(str(tmp_path / file), "found nothing"):
        load_network(tmp_path, CPU, FIX)


@pytest.mark.parametrize("card", [b"{}", b"[]", b"{"], ids=["no keys", "no mapping", "no JSON"])
def test_a_card_that_is_none_is_refused(tmp_path: Path, card: bytes) -> None:
    saved(tmp_path)
    (tmp_path / "card.json").write_bytes(card)
    with refused(str(tmp_path), FIX):
        load_network(tmp_path, CPU, FIX)
