"""Binary layers against a slow reference, and the networks that have them."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pipeline.models.binary.convert import binarise_network
from pipeline.models.binary.layers import BinaryConv2d, BinaryLinear, binarise_layer, binary_weights, sign
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.models.network_files import load_network, save_network
from pipeline.models.size import count_bits
from tests.data_files import refused

Array = NDArray[np.float64]
Shape = tuple[int, int, int]
CPU = torch.device("cpu")
DIGIT, COLOUR = (1, 8, 8), (3, 32, 32)
MLP: dict[str, Any] = {"name": "mlp", "widths": (12, 7)}
CNN: dict[str, Any] = {"name": "cnn", "widths": (4, 6, 9)}
MODELS: list[tuple[dict[str, Any], Shape]] = [
    (MLP, DIGIT),
    (CNN, DIGIT),
    ({"name": "nin", "scale": 0.05}, COLOUR),
    ({"name": "vgg_guided", "layers": (4, "M", 6, 5, "G", "M"), "hidden": (11, 8)}, COLOUR),
    ({"name": "shallow_conv", "filters": 4, "bottleneck": 6, "hidden": 16}, COLOUR),
    ({"name": "torchvision:resnet18"}, COLOUR),
]
NAMES = [model["name"] for model, _ in MODELS]
FORMS: list[dict[str, Any]] = [{"form": "weights"}, {"form": "xnor"}, {"form": "xnor", "scale_map": False}]


def images(shape: Shape, count: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def network(model: dict[str, Any], shape: Shape = DIGIT, **binary: Any) -> Network:
    torch.manual_seed(0)
    return build_network({**model, "binary": binary} if binary else model, shape, 10)


def binary_layers(made: nn.Module) -> dict[str, BinaryConv2d | BinaryLinear]:
    return {path: layer for path, layer in made.named_modules() if isinstance(layer, BinaryConv2d | BinaryLinear)}


def become(
    layer: nn.Conv2d | nn.Linear,
    form: Literal["weights", "xnor"] = "xnor",
    scale_map: bool = True,
    gradient: Literal["paper", "exact"] = "paper",
) -> Any:
    """A binary layer in evaluation mode, in float64, with a batch norm that has seen something."""
    binarise_layer(layer, form=form, scale_map=scale_map, gradient=gradient)
    assert isinstance(layer, BinaryConv2d | BinaryLinear)
    norm = layer.norm
    if norm is not None:
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            assert values is not None
            values.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(values)))
    return layer.double().eval()


def without_norm(layer: Any) -> Any:
    """Its batch norm does nothing: the layer's inputs are what the sign sees."""
    layer.norm = nn.Identity()
    return layer


def draw(*shape: int, seed: int = 3, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ slow references


def binary_filters(weights: Array) -> Array:
    filters = []
    for row in weights:
        alpha = sum(abs(value) for value in row.ravel()) / row.size
        filters.append([alpha if value >= 0 else -alpha for value in row.ravel()])
    return np.array(filters).reshape(weights.shape)


def normalised(x: Array, norm: Any) -> Array:
    """Batch norm in evaluation mode over the second axis."""
    mean, var, scale, shift = (
        value.detach().numpy().reshape(1, -1, *[1] * (x.ndim - 2))
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    done: Array = (x - mean) / np.sqrt(var + norm.eps) * scale + shift
    return done


def convolution(x: Array, layer: Any, *, binary_inputs: bool, scale_map: bool) -> Array:
    """Each output number by itself: signs or values under the kernel, zeros in the padding."""
    w, groups = binary_filters(layer.weight.detach().numpy()), layer.groups
    (sy, sx), (py, px), (dy, dx) = layer.stride, layer.padding, layer.dilation
    bias = np.zeros(len(w)) if layer.bias is None else layer.bias.detach().numpy()
    kh, kw = w.shape[2:]
    rows = (x.shape[2] + 2 * py - dy * (kh - 1) - 1) // sy + 1
    columns = (x.shape[3] + 2 * px - dx * (kw - 1) - 1) // sx + 1
    made = np.zeros((len(x), len(w), rows, columns))
    depth, per_group = w.shape[1], len(w) // groups
    for b, f, i, j in itertools.product(*map(range, made.shape)):
        total = size = 0.0
        for c, u, v in itertools.product(range(depth), range(kh), range(kw)):
            row, column = i * sy + u * dy - py, j * sx + v * dx - px
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                value = x[b, f // per_group * depth + c, row, column]
                total += w[f, c, u, v] * ((1 if value >= 0 else -1) if binary_inputs else value)
                size += abs(value) / (depth * kh * kw)
        made[b, f, i, j] = total * (size if scale_map else 1) + bias[f]
    return made


def linear(x: Array, layer: Any, *, binary_inputs: bool, scale_map: bool) -> Array:
    w = binary_filters(layer.weight.detach().numpy())
    made = np.zeros((len(x), len(w)))
    for b, f in itertools.product(range(len(x)), range(len(w))):
        values = [(1 if value >= 0 else -1) if binary_inputs else value for value in x[b]]
        size = sum(abs(value) for value in x[b]) / len(x[b])
        total = sum(a * value for a, value in zip(w[f], values, strict=True))
        made[b, f] = total * (size if scale_map else 1) + layer.bias[f].item()
    return made


def weight_gradient(weights: Array, g: Array, gradient: str) -> Array:
    """dC/dW of dC/dW~ = g, number by number."""
    made = np.zeros_like(weights)
    for f in range(len(weights)):
        n, alpha = weights[f].size, np.abs(weights[f]).mean()
        shared = sum(a * (1 if w >= 0 else -1) for a, w in zip(g[f].ravel(), weights[f].ravel(), strict=True)) / n
        for at in np.ndindex(weights[f].shape):
            through_sign = alpha if abs(weights[f][at]) <= 1 else 0.0
            of_alpha = g[f][at] / n if gradient == "paper" else shared * (1 if weights[f][at] >= 0 else -1)
            made[f][at] = of_alpha + g[f][at] * through_sign
    return made


# ------------------------------------------------------------------ the sign


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_sign_has_two_values_and_zero_is_positive(dtype: torch.dtype) -> None:
    x = torch.tensor([-3e4, -1.5, -1.0, -0.3, -1e-7, -0.0, 0.0, 1e-7, 0.7, 1.0, 3e4], dtype=dtype, requires_grad=True)
    signs = sign(x)
    assert signs.dtype == dtype
    assert signs.tolist() == [-1.0] * 5 + [1.0] * 6


def test_sign_s_gradient_is_straight_through_up_to_one() -> None:
    x = torch.tensor([-1.001, -1.0, -0.5, 0.0, 0.5, 1.0, 1.001], requires_grad=True)
    (sign(x) * torch.arange(1.0, 8.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_a_network_that_broke_does_not_look_whole() -> None:
    assert sign(torch.tensor([float("nan"), 1.0])).isnan().tolist() == [True, False]


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(("form", "scale_map"), [("weights", True), ("xnor", True), ("xnor", False)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": (2, 3), "padding": (1, 2), "dilation": (2, 1), "groups": 2},
        {"kernel_size": 3, "padding": 1, "groups": 4, "bias": False},
        {"kernel_size": 1, "stride": 2},
    ],
    ids=str,
)
def test_convolutions_are_those_of_the_slow_reference(
    options: dict[str, Any], form: Literal["weights", "xnor"], scale_map: bool
) -> None:
    layer = become(nn.Conv2d(4, 8, **options), form, scale_map)
    x = draw(2, 4, 6, 7)
    seen = normalised(x.numpy(), layer.norm) if form == "xnor" else x.numpy()
    expected = convolution(seen, layer, binary_inputs=form == "xnor", scale_map=form == "xnor" and scale_map)
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(expected))
    channels_last = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last.detach(), torch.from_numpy(expected))


@pytest.mark.parametrize(("form", "scale_map"), [("weights", True), ("xnor", True), ("xnor", False)])
def test_linear_layers_are_those_of_the_slow_reference(form: Literal["weights", "xnor"], scale_map: bool) -> None:
    layer = become(nn.Linear(9, 5), form, scale_map)
    x = draw(4, 9)
    seen = normalised(x.numpy(), layer.norm) if form == "xnor" else x.numpy()
    expected = linear(seen, layer, binary_inputs=form == "xnor", scale_map=form == "xnor" and scale_map)
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(expected))
    torch.testing.assert_close(layer(x.view(2, 2, 9)).detach().view(4, 5), torch.from_numpy(expected))


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}], ids=str)
def test_other_paddings_are_kept(options: dict[str, Any]) -> None:
    layer = without_norm(become(nn.Conv2d(4, 8, 3, bias=False, **options)))
    x = draw(2, 4, 6, 7)
    mode = "constant" if options["padding"] == "same" else "reflect"
    padded, sizes = (nn.functional.pad(values, (1, 1, 1, 1), mode=mode) for values in (sign(x), x.abs().mean(1, True)))
    weight = torch.from_numpy(binary_filters(layer.weight.detach().numpy()))
    expected = nn.functional.conv2d(padded, weight) * nn.functional.avg_pool2d(sizes, 3, 1)
    torch.testing.assert_close(layer(x).detach(), expected)


def test_options_reach_the_layers() -> None:
    made = [network(CNN, form="xnor", scale_map=on).eval()(images(DIGIT)) for on in (True, False)]
    assert not torch.allclose(*made)
    options: list[dict[str, Any]] = [{"form": "xnor", "scale_map": False}, {"form": "weights", "gradient": "exact"}]
    for binary in options:
        for layer in binary_layers(network(CNN, **binary)).values():
            its = ("weights" if layer.norm is None else "xnor", layer.scale_map, layer.gradient)
            assert its == (binary["form"], binary.get("scale_map", True), binary.get("gradient", "paper"))


def test_each_filter_has_two_values() -> None:
    weight = draw(3, 2, 3, 3)
    weight[0, 0, 0, 0] = 0.0
    made = binary_weights(weight, "paper")
    assert made[0, 0, 0, 0] > 0
    for f in range(3):
        values = np.unique(made[f]).tolist()
        assert len(values) == 2
        assert values == [-values[1], pytest.approx(weight[f].abs().mean().item())]
    assert len(np.unique(made.abs())) == 3


def test_the_scale_map_gives_what_the_signs_take() -> None:
    with_map, without = (without_norm(become(nn.Linear(9, 5), scale_map=on)) for on in (True, False))
    without.load_state_dict(with_map.state_dict())
    x = draw(4, 9)
    assert torch.equal(without(3 * x), without(x))
    bias = with_map.bias
    torch.testing.assert_close(with_map(3 * x) - bias, 3 * (with_map(x) - bias))
    sizes = x.abs().mean(1, keepdim=True)
    torch.testing.assert_close((with_map(x) - bias) / sizes, without(x) - bias)


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("gradient", ["paper", "exact"])
@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 2, 2)], ids=str)
def test_the_real_weights_get_the_formula_s_gradient(
    gradient: Literal["paper", "exact"], shape: tuple[int, ...]
) -> None:
    weight = draw(*shape)
    weight.view(-1)[:4] = torch.tensor([1.0, -1.0, 1.5, -1.0001])
    assert (weight.abs() > 1).sum() > 2
    g = draw(*shape, seed=5)
    weight.requires_grad_()
    (binary_weights(weight, gradient) * g).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    expected = weight_gradient(weight.detach().numpy(), g.numpy(), gradient)
    torch.testing.assert_close(weight.grad, torch.from_numpy(expected))


@pytest.mark.parametrize("gradient", ["paper", "exact"])
@pytest.mark.parametrize("form", ["weights", "xnor"])
def test_a_layer_s_weights_get_it_too(form: Literal["weights", "xnor"], gradient: Literal["paper", "exact"]) -> None:
    layer = become(nn.Linear(9, 5), form, gradient=gradient)
    if form == "xnor":
        without_norm(layer)
    layer.weight.data *= 5
    x, r = draw(4, 9).numpy(), draw(4, 5, seed=6)
    (layer(torch.from_numpy(x)) * r).sum().backward()
    shown = x if form == "weights" else np.where(x >= 0, 1, -1) * np.abs(x).mean(1, keepdims=True)
    g = np.einsum("bf,bd->fd", r.numpy(), shown)  # dC/dW~
    expected = weight_gradient(layer.weight.detach().numpy(), g, gradient)
    torch.testing.assert_close(layer.weight.grad, torch.from_numpy(expected))
    torch.testing.assert_close(layer.bias.grad, r.sum(0))


@pytest.mark.parametrize("scale_map", [True, False])
def test_the_inputs_gradient_passes_the_sign_and_the_scale_map(scale_map: bool) -> None:
    layer = without_norm(become(nn.Linear(9, 5), scale_map=scale_map))
    x, r = draw(4, 9), draw(4, 5, seed=6).numpy()
    x[0, :4] = torch.tensor([1.0, -1.0, 1.0001, -1.5])
    x.requires_grad_()
    (layer(x) * torch.from_numpy(r)).sum().backward()
    values, w = x.detach().numpy(), binary_filters(layer.weight.detach().numpy())
    expected = np.zeros((4, 9))
    for b, d in itertools.product(range(4), range(9)):
        size = np.abs(values[b]).mean() if scale_map else 1.0
        signs = np.where(values[b] >= 0, 1, -1)
        if abs(values[b, d]) <= 1:
            expected[b, d] += size * sum(r[b, f] * w[f, d] for f in range(5))
        if scale_map:
            expected[b, d] += signs[d] / 9 * sum(r[b, f] * (w[f] * signs).sum() for f in range(5))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.from_numpy(expected))


@pytest.mark.parametrize("scale_map", [True, False])
def test_a_convolution_of_one_position_is_a_linear_layer(scale_map: bool) -> None:
    flat = without_norm(become(nn.Linear(18, 5), scale_map=scale_map))
    over_map = without_norm(become(nn.Conv2d(2, 5, 3), scale_map=scale_map))
    over_map.weight.data, over_map.bias.data = flat.weight.data.view(5, 2, 3, 3), flat.bias.data
    x, r = draw(4, 18).requires_grad_(), draw(4, 5, seed=6)
    outputs = flat(x), over_map(x.view(4, 2, 3, 3)).flatten(1)
    torch.testing.assert_close(*outputs)
    gradients = [
        torch.autograd.grad((made * r).sum(), (x, layer.weight))
        for made, layer in zip(outputs, (flat, over_map), strict=True)
    ]
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1].flatten(1))


def test_batch_norm_stands_before_the_sign() -> None:
    """With inputs that are all positive (after a relu) the signs differ, and training moves the thresholds."""
    layer = become(nn.Linear(9, 5)).train()
    x = draw(64, 9).abs()
    seen: list[Tensor] = []
    layer.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    layer(x).square().sum().backward()
    share = (seen[0] >= 0).double().mean().item()
    assert 0.2 < share < 1.0
    assert (layer.norm.weight.grad != 0).any()
    assert (layer.norm.bias.grad != 0).any()


# ------------------------------------------------------------------ which layers


def test_first_and_last_layers_stay_real() -> None:
    made = network({"name": "mlp", "widths": (12, 7, 6)}, form="xnor")
    assert [type(made.body.get_submodule(f"{name}")) for name in ("fc1", "fc2", "fc3", "logits")] == [
        nn.Linear, BinaryLinear, BinaryLinear, nn.Linear,
    ]  # fmt: skip
    convolutional = network(CNN, form="weights")
    assert {path: type(layer) for path, layer in binary_layers(convolutional).items()} == {
        "body.conv2": BinaryConv2d, "body.fc": BinaryLinear,
    }  # fmt: skip


def test_a_resnet_keeps_its_first_convolution_and_its_output() -> None:
    made = network({"name": "torchvision:resnet18"}, COLOUR, form="xnor")
    weighted = {path for path, layer in made.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert weighted - set(binary_layers(made)) == {"body.conv1", "body.fc"}
    assert len(binary_layers(made)) == 19


class Contrary(nn.Module):
    """Defined in another order than used, with one layer used twice, one by two paths and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 10)
        self.unused = nn.Linear(6, 6)
        self.twice = nn.Linear(6, 6)
        self.also = nn.ModuleList([self.twice])
        self.hidden_from_torch = [self.twice]
        self.first = nn.Linear(64, 6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        once: Tensor = self.twice(self.first(x.flatten(1)).relu()).relu()
        made: Tensor = self.last(self.drop(self.hidden_from_torch[0](once)))
        return made


def test_the_order_of_use_decides_and_a_layer_stays_one() -> None:
    body = Contrary()
    assert binarise_network(body, DIGIT, form="weights") is body
    assert list(binary_layers(body)) == ["twice"]
    assert body.also[0] is body.twice
    assert body.hidden_from_torch[0] is body.twice
    assert (type(body.first), type(body.last), type(body.unused)) == (nn.Linear,) * 3


def test_looking_for_the_layers_leaves_no_trace() -> None:
    for training in (True, False):
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5), nn.Linear(5, 10))
        body.train(training)
        before = {name: value.clone() for name, value in body.state_dict().items()}
        binarise_network(body, DIGIT, form="xnor")
        assert all(module.training is training for module in body.modules())
        assert not [module for module in body.modules() if module._forward_pre_hooks or module._forward_hooks]
        after = body.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        added = {f"3.norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
        assert set(after) - set(before) == added


@pytest.mark.parametrize("head", [None, {"name": "channel_outputs", "channels": 3}, {"name": "multichannel"}], ids=str)
def test_binary_layers_start_from_the_weights_of_the_real_ones(head: dict[str, Any] | None) -> None:
    states, following = [], []
    for binary in (None, *FORMS):
        torch.manual_seed(7)
        made = build_network({**MLP, "widths": (12, 32), "head": head, "binary": binary}, DIGIT, 10)
        states.append(made.state_dict())
        following.append(torch.rand(3))
    assert len(binary_layers(made)) == 1
    for state, drawn in zip(states[1:], following[1:], strict=True):
        assert all(torch.equal(state[name], value) for name, value in states[0].items())
        assert torch.equal(drawn, following[0])


def test_the_head_s_last_layer_is_the_last() -> None:
    made = network({**MLP, "head": {"name": "multichannel"}, "widths": (12, 32)}, form="xnor")
    assert list(binary_layers(made)) == ["body.fc2"]
    assert type(made.body.get_submodule("channels.1")) is nn.Conv1d


@pytest.mark.parametrize("binary", FORMS, ids=str)
@pytest.mark.parametrize(("model", "shape"), MODELS, ids=NAMES)
def test_taps_stay_where_they_were(model: dict[str, Any], shape: Shape, binary: dict[str, Any]) -> None:
    plain, made = network(model, shape).eval(), network(model, shape, **binary).eval()
    assert made.taps == plain.taps
    paths = [path for path, _ in plain.body.named_modules() if path]
    shapes = [
        {
            name: tuple(value.shape)
            for name, value in each.forward_with_taps(images(shape), [*plain.taps, *paths])[1].items()
        }
        for each in (plain, made)
    ]
    assert shapes[0] == shapes[1]
    assert not torch.allclose(made(images(shape)), plain(images(shape)))


# ------------------------------------------------------------------ refused


class OwnLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) * 2


def no_layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Softmax(1))


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (
            lambda: network({"name": "mlp", "widths": (5,)}).body,
            ["binary: expected a Conv2d or Linear layer between the first and the last, which stay real, found fc1 (Linear)", "logits (Linear)",
             "leave binary out"],
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), ["found 1 (Linear)"]),
        (no_layers, ["found no layer that could be binary"]),
        (lambda: binarise_network(network(MLP).body, DIGIT, form="xnor"), ["layer fc2: ", "found BinaryLinear"]),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(64, 5), OwnLinear(5, 5), nn.Linear(5, 10)),
            ["binary: layer 3: expected a plain Conv2d or Linear, found OwnLinear"],
        ),
    ],
    ids=["two layers", "one layer", "none", "twice", "a forward pass of its own"],
)  # fmt: skip
def test_networks_that_cannot_be_binary_are_refused(body: Callable[[], nn.Module], parts: list[str]) -> None:
    made = body()
    before = set(binary_layers(made))
    with refused(*parts):
        binarise_network(made, DIGIT, form="weights")
    assert set(binary_layers(made)) == before
    assert not [module for module in made.modules() if module._forward_pre_hooks]


def test_build_refuses_what_binarised_refuses() -> None:
    with refused("binary: expected a Conv2d or Linear layer between"):
        network({"name": "mlp", "widths": (5,)}, form="weights")


def test_an_option_of_one_s_own_architecture_may_be_called_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "binary_nets.py").write_text(
        "from torch import nn\n"
        "def net(shape, classes, *, binary):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, binary), nn.Linear(binary, 4), nn.Linear(4, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "binary_nets", raising=False)
    made = build_network({"name": "binary_nets:net", "binary": 5}, DIGIT, 10)
    assert binary_layers(made) == {}
    assert made.body.get_submodule("1").weight.shape == (5, 64)


# ------------------------------------------------------------------ size


@pytest.mark.parametrize(("binary", "norms"), [({"form": "weights"}, 0), ({"form": "xnor"}, 1)], ids=str)
def test_bits_of_small_networks_by_hand(binary: dict[str, Any], norms: int) -> None:
    # fc2 has 12 x 7 weights of a bit, 7 scales, 7 biases; its batch norm four numbers for each of 12 inputs.
    mlp = 32 * (64 * 12 + 12) + (12 * 7 + 32 * 7 + 32 * 7) + norms * 32 * 4 * 12 + 32 * (7 * 10 + 10)
    assert count_bits(network(MLP, **binary)) == mlp
    conv2, fc = 6 * 4 * 25 + 32 * 6 + 32 * 6, 24 * 9 + 32 * 9 + 32 * 9
    cnn = 32 * (4 * 25 + 4) + conv2 + fc + norms * 32 * 4 * (4 + 24) + 32 * (9 * 10 + 10)
    assert count_bits(network(CNN, **binary)) == cnn


def test_bits_of_ordinary_networks() -> None:
    assert count_bits(network(MLP)) == 32 * (65 * 12 + 13 * 7 + 8 * 10)
    resnet = network({"name": "torchvision:resnet18"}, COLOUR)
    numbers = sum(value.numel() for name, value in resnet.state_dict().items() if "num_batches" not in name)
    assert numbers > resnet.parameter_count()
    assert count_bits(resnet) == count_bits(resnet.half()) == 32 * numbers
    assert count_bits(Contrary()) == 32 * (70 + 2 * 42 + 65 * 6)


# ------------------------------------------------------------------ in use


@pytest.mark.parametrize("binary", [*FORMS, {"form": "xnor", "gradient": "exact"}], ids=str)
@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_saved_and_loaded_it_is_the_same_bit_for_bit(
    tmp_path: Path, model: dict[str, Any], binary: dict[str, Any]
) -> None:
    made = network(model, **binary)
    made(images(DIGIT, 20))  # so that batch norms have seen something
    made.eval()
    card = {"model": {**model, "binary": binary}, "shape": DIGIT, "classes": list("abcdefghij")}
    save_network(tmp_path, made.state_dict(), json.loads(json.dumps(card)))
    again, read = load_network(tmp_path, CPU, "train it again")
    assert read["model"]["binary"] == binary
    assert len(binary_layers(again)) == len(binary_layers(made)) > 0
    assert torch.equal(again(images(DIGIT, 5)), made(images(DIGIT, 5)))
    assert count_bits(again) == count_bits(made)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels * 15).to(torch.uint8).view(-1, 1, 8, 8), torch.from_numpy(labels)


@pytest.mark.parametrize("binary", [*FORMS, {"form": "xnor", "gradient": "exact"}], ids=str)
@pytest.mark.parametrize(
    "model",
    [{"name": "mlp", "widths": (64, 64, 64)}, {"name": "cnn", "widths": (8, 16, 32), "dropout": 0.0}],
    ids=["mlp", "cnn"],
)
def test_binary_networks_learn(model: dict[str, Any], binary: dict[str, Any], digits: tuple[Tensor, Tensor]) -> None:
    made, (pixels, labels) = network(model, **binary), digits
    before = {path: layer.weight.detach().clone() for path, layer in binary_layers(made).items()}
    optimizer = torch.optim.Adam(made.parameters(), 2e-3)
    for _ in range(10):
        for rows in torch.randperm(1200).view(-1, 50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(made(pixels[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        right = made.eval()(pixels[1200:]).argmax(1) == labels[1200:]
    assert right.double().mean() > 0.75
    for path, layer in binary_layers(made).items():
        turned = (layer.weight >= 0) != (before[path] >= 0)
        assert turned.double().mean() > 0.01, path


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_evaluation_uses_the_running_statistics(model: dict[str, Any]) -> None:
    made = network(model, form="xnor")
    for seed in range(3):
        made(images(DIGIT, 20, seed))
    made.eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    pixels = images(DIGIT, 5, seed=9)
    together = made(pixels)
    torch.testing.assert_close(torch.cat([made(pixels[i : i + 1]) for i in range(5)]), together)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    for layer in binary_layers(made).values():
        assert layer.norm is not None
        layer.norm.reset_running_stats()
    assert not torch.allclose(made(pixels), together)


@pytest.mark.parametrize("binary", FORMS, ids=str)
def test_under_autocast_it_is_nearly_the_same(binary: dict[str, Any]) -> None:
    made = network(CNN, **binary)
    made(images(DIGIT, 20))
    made.eval()
    exact = made(images(DIGIT))
    with torch.autocast("cpu", torch.bfloat16):
        near = made(images(DIGIT))
    near.float().sum().backward()
    assert near.dtype == torch.bfloat16
    torch.testing.assert_close(near.float(), exact, rtol=0.05, atol=0.05)
    assert not torch.equal(near.float(), exact)
    assert all(layer.weight.grad is not None for layer in binary_layers(made).values())


@pytest.mark.parametrize("binary", FORMS, ids=str)
def test_it_is_one_graph_for_the_compiler(binary: dict[str, Any]) -> None:
    made = network(CNN, **binary).eval()
    compiled = torch.compile(made.body, backend="eager", fullgraph=True)
    inputs = made.scale_pixels(images(DIGIT))
    torch.testing.assert_close(compiled(inputs), made.body(inputs))
