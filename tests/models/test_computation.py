"""Precision and layout of networks: bounds against float32, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from pipeline.models.build import draw_network
from pipeline.models.network import Network
from pipeline.models.network_files import load_network, save_network
from pipeline.study.params_file import parse_study
from pipeline.study.sections import describe_model
from tests.data_files import refused

CPU, SHAPE = torch.device("cpu"), (3, 32, 32)
NETS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (12, 7)},
    "cnn": {"widths": (4, 6, 9)},
    "nin": {"scale": 0.05},
    "vgg_guided": {"layers": (4, "M", 6, 5, "G", "M"), "hidden": (11, 8)},
    "shallow_conv": {"filters": 4, "bottleneck": 6, "hidden": 16},
    "torchvision:resnet18": {},
}


def drawn(name: str, **computed: str) -> Network:
    return draw_network({"name": name, **NETS[name], "computed": computed}, SHAPE, 10, seed=3, device=CPU).eval()


def images() -> Tensor:
    return torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def distance(found: Tensor, wanted: Tensor) -> float:
    """The root mean square of their difference, by that of what is wanted."""
    return float(((found - wanted).norm() / wanted.norm()).item())


@pytest.mark.parametrize("name", NETS)
def test_bfloat16_is_float32_within_bounds_and_gives_float32(name: str) -> None:
    plain, half = drawn(name), drawn(name, precision="bfloat16")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), half.parameters(), strict=True))
    tap = "layer2" if name.startswith("torchvision") else next(iter(plain.taps))
    wanted, activations = plain.forward_with_taps(images(), [tap])
    logits, halved = half.forward_with_taps(images(), [tap])
    assert logits.dtype == halved[tap].dtype == torch.float32
    assert 0 < distance(logits, wanted) < 0.05
    assert 0 < distance(halved[tap], activations[tap]) < 0.05
    labels = torch.arange(6)
    losses = [nn.functional.cross_entropy(each, labels).item() for each in (logits, wanted)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    torch.autograd.backward(nn.functional.cross_entropy(logits, labels))
    assert {each.dtype for each in half.parameters()} == {torch.float32}
    assert all(each.grad is not None and each.grad.isfinite().all() for each in half.parameters())
    assert torch.equal(half(images()), half(images()))


@pytest.mark.parametrize("name", NETS)
def test_layouts_agree(name: str) -> None:
    rows, last = (drawn(name, layout=layout) for layout in ("contiguous", "channels_last"))
    torch.testing.assert_close(last(images()), rows(images()), rtol=1e-5, atol=1e-5)
    assert all(weight.is_contiguous() for weight in rows.parameters())
    wide = [weight for weight in last.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)


def test_a_saved_network_is_the_same_bytes_in_either_layout_and_is_read_in_float32(tmp_path: Path) -> None:
    model = {"name": "cnn", **NETS["cnn"]}
    card = {"model": model, "shape": SHAPE, "classes": list("0123456789")}
    digests = [
        save_network(tmp_path / layout, drawn("cnn", layout=layout, precision="bfloat16").state_dict(), card)
        for layout in ("contiguous", "channels_last")
    ]
    assert digests[0] == digests[1]
    network, _ = load_network(tmp_path / "contiguous", CPU, "train it")
    assert torch.equal(network(images()), drawn("cnn")(images()))


def test_bfloat16_networks_can_be_stacked() -> None:
    nets = [
        draw_network(
            {"name": "cnn", **NETS["cnn"], "computed": {"precision": "bfloat16"}}, SHAPE, 10, seed=n, device=CPU
        ).eval()
        for n in range(3)
    ]
    batch = images()
    stacked, _ = torch.func.stack_module_state(nets)

    def run(weights: dict[str, Tensor]) -> Tensor:
        made: Tensor = torch.func.functional_call(nets[0], weights, (batch,))
        return made

    together = torch.func.vmap(run)(stacked)
    for logits, net in zip(together, nets, strict=True):
        assert distance(logits, net(images())) < 0.05


def test_each_pass_sets_how_a_gpu_rounds_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors that are nowhere, of a card that is not there; a backward pass finds the switch as its forward left it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, found = (matmul.allow_tf32, cudnn.allow_tf32), []
    matmul.allow_tf32, cudnn.allow_tf32 = False, True  # as torch begins
    for precision in ("float32", "tf32", "float32", "tf32", "bfloat16"):
        network = drawn("mlp")
        network.compute_in(precision)
        with FakeTensorMode(allow_non_fake_inputs=True):
            network.set_products(torch.empty(1, device="cuda").device)
        found.append((matmul.allow_tf32, cudnn.allow_tf32))
    matmul.allow_tf32, cudnn.allow_tf32 = before
    assert found == [(False, False), (True, True), (False, False), (True, True), (False, False)]


def study_of(**keys: Any) -> dict[str, Any]:
    return {
        "datasets": {"digits": {"source": "digits"}},
        "teachers": {"big": {"model": {"name": "mlp", "widths": [8]}, "epochs": 1, **keys}},
    }


def test_the_section_decides_and_the_architecture_of_cards_does_not_tell() -> None:
    plain = parse_study(study_of()).teachers["big"]
    stated = parse_study(study_of(precision="bfloat16", layout="contiguous")).teachers["big"]
    assert describe_model(stated) == {
        **describe_model(plain),
        "computed": {"precision": "bfloat16", "layout": "contiguous"},
    }
    assert describe_model(stated, "json") == describe_model(plain, "json")


@pytest.mark.parametrize("key", ["precision", "layout"])
def test_another_choice_is_refused(key: str) -> None:
    with refused(f"teachers.big.{key}", "int4"):
        parse_study(study_of(**{key: "int4"}))


@pytest.mark.parametrize("kind", [{"members": ["big", "big"]}, {"external": "0" * 64}, {"weights": "w.safetensors"}])
def test_a_teacher_that_is_not_trained_here_has_no_such_key(kind: dict[str, Any]) -> None:
    raw = study_of()
    model = {"model": {"name": "mlp", "widths": [8]}} if "weights" in kind else {}
    raw["teachers"]["other"] = {**model, **kind, "precision": "bfloat16"}
    with refused("teachers.other", "precision", "not trained here"):
        parse_study(raw)
