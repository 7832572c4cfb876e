"""What a step may not do: read a number back from the device, or mix devices. On a GPU each read would stall it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from pipeline.losses import TERMS, multichannel_bce
from pipeline.losses.outputs import Outputs
from pipeline.losses.recipe import Recipe
from pipeline.models.build import build_network
from pipeline.student import train_cohort
from pipeline.student_phase import Phase, StudentRun
from pipeline.training import stack
from pipeline.training.optimizers import adam, constant
from pipeline.training.options import TrainingOptions
from pipeline.training.run import Run
from pipeline.training.sample_order import PlannedOrder
from pipeline.views import random_resized_crop
from pipeline.views.view import Views
from tests.cached_scene import CASES, STUDENT, Scene, make_scene

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default, torch.ops.aten.nonzero.default}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("steps"))


class CountReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations whose result the processor must wait for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads, self.operations = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.reads += func in READS
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountReads]:
    """Counts in the steps of epochs, and refuses copies to the processor there."""
    mode = CountReads()

    def watch(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def watched(self: Any) -> None:
            with mode, pytest.MonkeyPatch.context() as refusing:
                for copy in ("cpu", "numpy", "tolist", "item"):
                    refusing.setattr(Tensor, copy, partial(pytest.fail, f"Tensor.{copy} in a step"))
                real(self)

        monkeypatch.setattr(owner, name, watched)

    def draw(self: PlannedOrder, epoch: int) -> Tensor:
        with _disable_current_modes():  # a plan lies in memory, and is read once an epoch
            return ids(self, epoch)

    ids = PlannedOrder.ids
    monkeypatch.setattr(PlannedOrder, "ids", draw)
    watch(Run, "run_steps")
    watch(stack.Stack, "run_steps")
    yield mode


def options(**changes: Any) -> TrainingOptions:
    made = {"optimizer": partial(adam, lr=0.01), "scheduler": constant, "epochs": 2, "batch_size": 64}
    return TrainingOptions(**{**made, **changes})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seeds", [1, 2])
def test_no_step_reads_a_number(scene: Scene, monkeypatch: pytest.MonkeyPatch, case: str, seeds: int) -> None:
    terms, views, changes = CASES[case]
    fields = scene.fields(False, *{dump for each in terms for dump in each.reads.values()})
    phase = Phase(Recipe(terms), options(**changes))
    runs = [StudentRun(STUDENT, [phase], seed, "s") for seed in range(seeds)]
    with counted(monkeypatch) as mode:
        train_cohort(scene.splits(False), fields, runs, views=views)
    assert mode.operations > 100
    assert mode.reads == 0


def test_a_read_would_be_counted() -> None:
    with CountReads() as mode:
        torch.ones(1).sum().item()
    assert mode.reads == 1


NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "widths": [12], "dropout": 0.2},
    "cnn": {"name": "cnn", "widths": [3, 4, 8]},
    "nin": {"name": "nin", "scale": 0.1},
    "shallow_conv": {"name": "shallow_conv", "filters": 4, "bottleneck": 8, "hidden": 16},
    "vgg_guided": {"name": "vgg_guided", "layers": (4, "M", 6, 5, "G", "M"), "hidden": (11, 8)},
    "binary": {"name": "cnn", "widths": [3, 4, 8], "binary": {"form": "xnor"}},
    "torchvision": {"name": "torchvision:resnet18"},
}


def on_gpu(network: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers as tensors without content that say that they lie on a GPU."""
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype, device="cuda", requires_grad=name in trained)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_a_gpu_mixes_no_devices(name: str) -> None:
    network = build_network(NETWORKS[name], (3, 32, 32), 10).train()
    with FakeTensorMode():
        tensors = on_gpu(network)
        images = torch.zeros((8, 3, 32, 32), dtype=torch.uint8, device="cuda")
        logits = functional_call(network, tensors, (images,))  # torch goes back on real devices alone
        assert logits.device.type == "cuda"
        assert logits.requires_grad


LOSSES: dict[str, tuple[tuple[int, ...] | None, torch.dtype, dict[str, Any]]] = {
    "ce": (None, torch.float32, {}),
    "soft_targets": ((8, 10), torch.float32, {"temperature": 4.0}),
    "logits_mse": ((8, 10), torch.float32, {}),
    "probe_rmse": ((8, 10), torch.float32, {"between": "softmax"}),
    "hint_mse": ((8, 12), torch.float32, {"tap": "features"}),
    "tsne": ((8, 8), torch.float32, {"tap": "features", "dof": 1.0}),
    "multichannel_bce": ((8, 4), torch.uint8, {}),
    "mutual_kl": (None, torch.float32, {}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_on_a_gpu_mixes_no_devices(name: str) -> None:
    shape, dtype, how = LOSSES[name]
    multichannel_bce._bit_table.cache_clear()
    with FakeTensorMode():
        logits = torch.zeros((8, 10), device="cuda", requires_grad=True)
        features = torch.zeros((8, 12), device="cuda", requires_grad=True)
        channels = torch.zeros((8, 10, 3), device="cuda", requires_grad=True)
        taps = {"features": features, "channels": channels}
        peers = torch.zeros((2, 8, 10), device="cuda")
        outputs = Outputs(logits, torch.zeros(8, dtype=torch.int64, device="cuda"), taps, peers=peers)
        target = None if shape is None else torch.zeros(shape, dtype=dtype, device="cuda")
        loss = TERMS.import_function(name)(outputs, target, **how)
        assert loss.device.type == "cuda"
        assert loss.requires_grad
    multichannel_bce._bit_table.cache_clear()


@pytest.mark.parametrize("policy", ["flip", "crop_flip", "random_resized_crop"])
def test_a_view_on_a_gpu_mixes_no_devices(policy: str) -> None:
    views = Views(policy, 3, 5, {})
    random_resized_crop._aspects.cache_clear()
    with FakeTensorMode():
        ids = torch.zeros(8, dtype=torch.int64, device="cuda")
        images = torch.zeros((8, 3, 16, 16), dtype=torch.uint8, device="cuda")
        assert views.apply(images, views.words(ids, views.epoch_views(ids, 0))).device.type == "cuda"
    random_resized_crop._aspects.cache_clear()


def test_a_mix_of_devices_would_be_found() -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match=r"same device|two different devices"):
        torch.zeros(3, device="cuda") + torch.zeros(3)
