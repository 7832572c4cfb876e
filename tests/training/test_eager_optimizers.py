"""Optimisers that do not import a compiler take the steps of torch's own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.training import eager_optimizers

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.01}),
    ("AdamW", {"lr": 0.01, "betas": (0.8, 0.9)}),
]


def train(kind: Any, options: dict[str, Any], steps: int, state: Any = None) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    images, labels = torch.randn(20, 5), torch.arange(20) % 3
    optimizer = kind(network.parameters(), **options)
    if state is not None:
        network.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(images), labels))
        optimizer.step()
        schedule.step()
    return [parameter.detach().clone() for parameter in network.parameters()], optimizer


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_each_takes_torchs_own_steps_to_the_last_bit(name: str, options: dict[str, Any]) -> None:
    ours, mine = train(getattr(eager_optimizers, name), options, 5)
    theirs, its = train(getattr(torch.optim, name), options, 5)
    assert all(map(torch.equal, ours, theirs))
    assert isinstance(mine, type(its))
    assert mine.state_dict()["param_groups"] == its.state_dict()["param_groups"]
    begun, _ = train(getattr(eager_optimizers, name), options, 0)
    assert not any(map(torch.equal, ours, begun))


def test_torchs_own_stay_as_they_are() -> None:
    assert torch.optim.Adam.zero_grad is not eager_optimizers.Adam.zero_grad
    assert hasattr(torch.optim.Adam.zero_grad, "__wrapped__")


def test_a_step_imports_no_compiler() -> None:
    code = (
        "import sys, torch; from pipeline.training.optimizers import adam, cosine;"
        "p = torch.nn.Parameter(torch.ones(3)); o = adam([p]); s = cosine(o, 3); p.sum().backward();"
        "o.step(); s.step(); o.zero_grad(); o.load_state_dict(o.state_dict());"
        "print(p.detach().sum().item() < 3, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
