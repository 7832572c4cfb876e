from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.build import build_network
from pipeline.models.cost import ImageCost, measure_image_cost
from pipeline.models.network import Layers, Network
from pipeline.teacher import Ensemble

Shape = tuple[int, int, int]
FLOAT = 4  # bytes
DIGIT, GREY, COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def network(name: str, shape: Shape, classes: int = 10, **options: Any) -> Network:
    torch.manual_seed(0)
    return build_network({"name": name, **options}, shape, classes)


def test_a_multilayer_perceptron_counted_by_hand() -> None:
    multiply_adds = 64 * 12 + 12 * 7 + 7 * 10
    assert measure_image_cost(network("mlp", DIGIT, widths=[12, 7]), DIGIT) == ImageCost(
        multiply_adds, FLOAT * (64 + 12)
    )


def test_a_convolutional_net_counted_by_hand() -> None:
    convolutions = 28 * 28 * 4 * 25 * 1 + 14 * 14 * 6 * 25 * 4
    products = (7 * 7 * 6) * 9 + 9 * 10
    # The first map, and what its pooling makes of it; the positions of the maxima are integers, and left out.
    peak = FLOAT * (28 * 28 * 4 + 14 * 14 * 4)
    made = network("cnn", GREY, widths=[4, 6, 9])
    assert measure_image_cost(made, GREY) == ImageCost(convolutions + products, peak)


def body(**layers: nn.Module) -> Network:
    return Network(Layers(layers, {}))


def test_a_layer_in_place_takes_no_memory_of_its_own() -> None:
    first = {"flatten": nn.Flatten(), "wide": nn.Linear(4, 50)}
    apart = body(**first, relu=nn.ReLU(), end=nn.Linear(50, 2))
    inside = body(**first, relu=nn.ReLU(inplace=True), end=nn.Linear(50, 2))
    assert measure_image_cost(apart, (1, 2, 2)).activation_bytes == FLOAT * (50 + 50)
    assert measure_image_cost(inside, (1, 2, 2)).activation_bytes == FLOAT * (4 + 50)


class Residual(nn.Module):
    """x + three layers of x: the input lies there until it is added."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 50), nn.Linear(50, 30), nn.Linear(30, 4))

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.layers(images) + images.flatten(1)
        return made


def test_a_value_lies_in_memory_until_it_is_read_for_the_last_time() -> None:
    cost = measure_image_cost(Network(Residual()), (1, 2, 2))
    assert cost == ImageCost(4 * 50 + 50 * 30 + 30 * 4, FLOAT * (4 + 50 + 30))


def test_half_precision_takes_half_of_the_memory() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 50), nn.Linear(50, 40)).bfloat16()

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.layers(images.bfloat16())
            return made

    assert measure_image_cost(Network(Half()), (1, 2, 2)).activation_bytes == 2 * (50 + 40)


MODELS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "mlp": (DIGIT, {"name": "mlp", "widths": [12, 7], "dropout": 0.2}),
    "mlp channels": (DIGIT, {"name": "mlp", "widths": [12], "head": {"name": "channel_outputs", "channels": 3}}),
    "mlp filters": (DIGIT, {"name": "mlp", "widths": [32], "head": {"name": "multichannel"}}),
    "cnn": (GREY, {"name": "cnn", "widths": [4, 6, 9]}),
    "cnn weights": (GREY, {"name": "cnn", "widths": [4, 6, 9], "binary": {"form": "weights"}}),
    "nin": (COLOUR, {"name": "nin", "scale": 0.05}),
    "nin filters": (COLOUR, {"name": "nin", "scale": 0.05, "head": {"name": "multichannel"}}),
    "vgg_guided": (COLOUR, {"name": "vgg_guided", "layers": [4, "M", 6, 5, "G", "M"], "hidden": [11, 8]}),
    "shallow_conv": (COLOUR, {"name": "shallow_conv", "filters": 4, "bottleneck": 6, "hidden": 16}),
    "resnet18": (COLOUR, {"name": "torchvision:resnet18"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_counts_as_torch_s_own_counter_counts(name: str) -> None:
    shape, model = MODELS[name]
    made = build_network(model, shape, 10)
    cost = measure_image_cost(made, shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made.eval()(torch.zeros((1, *shape), dtype=torch.uint8))
    assert cost.multiply_adds == counter.get_total_flops() // 2 > 0
    assert cost.activation_bytes >= FLOAT * torch.Size(shape).numel()


def test_a_binary_layer_counts_as_the_real_one_and_its_scale_map_as_a_convolution() -> None:
    options: dict[str, Any] = {"widths": [4, 6, 9], "dropout": 0.0}
    real = measure_image_cost(network("cnn", GREY, **options), GREY)
    weights = measure_image_cost(network("cnn", GREY, **options, binary={"form": "weights"}), GREY)
    xnor = measure_image_cost(network("cnn", GREY, **options, binary={"form": "xnor"}), GREY)
    unscaled = measure_image_cost(network("cnn", GREY, **options, binary={"form": "xnor", "scale_map": False}), GREY)
    assert weights == real  # what is computed from weights alone is no activation
    assert unscaled.multiply_adds == real.multiply_adds
    assert xnor.multiply_adds == real.multiply_adds + 14 * 14 * 25  # one mean map through a box of 5 x 5


class Attention(nn.Module):
    """Self-attention of 4 tokens of 6 numbers, 2 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.logits = nn.Linear(24, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2)  # (B, 4, 6)
        logits: Tensor = self.logits(self.attention(tokens, tokens, tokens, need_weights=False)[0].flatten(1))
        return logits


def test_attention_counts_its_products_and_kernels_are_chosen_as_before() -> None:
    before = torch.backends.mha.get_fastpath_enabled(), torch._C._get_flash_sdp_enabled()
    cost = measure_image_cost(Network(Attention()), (4, 2, 3))
    assert cost.multiply_adds == 4 * (4 * 6 * 6) + 2 * (2 * 4 * 4 * 3) + 24 * 2
    assert (torch.backends.mha.get_fastpath_enabled(), torch._C._get_flash_sdp_enabled()) == before


def test_an_ensemble_takes_the_sum_and_its_members_run_in_turn() -> None:
    members = [network("mlp", DIGIT, widths=[width]) for width in (12, 7)]
    costs = [measure_image_cost(member, DIGIT) for member in members]
    both = measure_image_cost(Ensemble(members), DIGIT)
    assert both.multiply_adds == sum(cost.multiply_adds for cost in costs)
    # Beside the second member's layer lie the first one's logits.
    assert both.activation_bytes == max(FLOAT * (64 + 12), FLOAT * (10 + 64 + 7))


def test_the_network_is_left_as_it_was() -> None:
    made = network("cnn", GREY, widths=[4, 6, 9], binary={"form": "xnor"})
    made.get_submodule("body.features").eval()
    modes = [module.training for module in made.modules()]
    state = {name: value.clone() for name, value in made.state_dict().items()}
    measure_image_cost(made, GREY)
    assert [module.training for module in made.modules()] == modes
    assert len(set(modes)) == 2
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_what_a_network_was_trained_in_does_not_count(precision: str) -> None:
    """It is read in float32 later: by `predict`, by `cost`, by dumps."""
    made = network("cnn", GREY, widths=[4, 6, 9])
    expected = measure_image_cost(made, GREY)
    made.compute_in(precision)
    assert measure_image_cost(made, GREY) == expected
    assert made.precision == precision


def test_torch_s_compiler_is_not_imported() -> None:
    """Its import alone takes most of a second."""

    code = (
        "import sys; from pipeline.models.build import build_network; from pipeline.models.cost import *\n"
        "measure_image_cost(build_network({'name': 'mlp', 'widths': [3]}, (1, 2, 2), 2), (1, 2, 2))\n"
        "print('torch._dynamo' in sys.modules, 'torch.utils.flop_counter' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
