"""Which device a name stands for, and what is said of one that is not there, does not work, or is full."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.base.device import (
    collect_nondeterministic,
    describe_device,
    describe_execution,
    resolve_device,
)
from pipeline.base.errors import InputError
from pipeline.base.full_memory import explain_lack_of_memory
from tests.conftest import Run, write_study


@pytest.mark.parametrize(
    "name",
    ["", "cpu:", "cpu:0", "cuda:", "cuda:00", "cuda:-1", "cuda:+1", "cuda:1.0", "gpu", "CPU", "cuda: 0", "cuda:٣"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device: expected auto, cpu, cuda or cuda:NUMBER, found"):
        resolve_device(name)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One card, as far as torch says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def fail(*_: Any, **how: Any) -> torch.Tensor:
    raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore lines")


@pytest.mark.usefixtures("gpu")
def test_a_card_that_is_not_there() -> None:
    with pytest.raises(InputError, match="--device cuda:1: expected one of 1 CUDA devices, found none such; use"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("gpu")
def test_a_card_that_does_not_work_is_refused_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(
        InputError, match=r"--device cuda: expected a GPU that works, found CUDA error: all .* unavailable; see"
    ):
        resolve_device("cuda")


@pytest.mark.usefixtures("gpu")
def test_float32_on_a_card_is_float32(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    real = torch.zeros

    def make(size: int, device: torch.device) -> torch.Tensor:
        assert device.type == "cuda"
        return real(size)

    monkeypatch.setattr(torch, "zeros", make)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    card = SimpleNamespace(name="Card 5", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    before = torch.backends.cudnn.allow_tf32
    try:
        with caplog.at_level(logging.INFO):
            assert resolve_device("auto") == torch.device("cuda")
        assert caplog.messages == ["on cuda: Card 5, 80.0 GB of memory"]
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        with torch.backends.cudnn.flags(enabled=False):  # torch itself can still read them all
            assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("gpu")
def test_auto_says_why_it_takes_the_processor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "zeros", fail)
    with caplog.at_level(logging.WARNING):
        assert resolve_device("auto") == torch.device("cpu")
    (line,) = caplog.messages
    assert line.startswith("the GPU does not work (CUDA error: all CUDA-capable devices are busy or unavailable)")


def test_a_machine_without_a_card_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO):
        assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    assert not caplog.messages


def test_full_memory_is_one_line() -> None:
    gpu = explain_lack_of_memory(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
    )
    assert gpu is not None
    assert str(gpu).startswith("memory of the GPU: expected room for")
    assert "Tried to allocate 2.00 GiB" in str(gpu)
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**50, dtype=torch.uint8)
    assert str(explain_lack_of_memory(full.value)).startswith("memory: expected room for")
    assert "--memory" in str(explain_lack_of_memory(full.value))
    assert explain_lack_of_memory(RuntimeError("shapes do not fit")) is None


def test_a_command_whose_memory_is_full_ends_in_one_line(tmp_path: Any, study: dict[str, Any], run: Run) -> None:
    folder = write_study(tmp_path, study)
    assert run(folder, "prepare", "digits") == 0
    code = (
        "import torch\n"
        "def full(*_, **how): torch.empty(2**50, dtype=torch.uint8)\n"
        "import pipeline.training.fit as fit\n"
        "fit.fit_runs = full\n"
        "from stages.main import main; main()"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, "train-teacher", "big"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 2
    lines = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: memory: expected room for the networks")
    assert "Traceback" not in made.stderr
    assert not (folder / "data/teachers/big").exists()


POOLING = (
    "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True, warn_only=True)'. You can file an issue at ..."
)


def test_what_a_card_computes_in_another_order_each_time_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), collect_nondeterministic() as found:
        for text in (POOLING, POOLING, POOLING.replace("adaptive_avg_pool2d", "upsample_bilinear2d"), POOLING):
            warnings.warn(text, stacklevel=1)
    assert found == ["adaptive_avg_pool2d_backward_cuda", "upsample_bilinear2d_backward_cuda"]
    assert [line.partition(": not deterministic here")[0] for line in caplog.messages] == found
    said = describe_execution(torch.device("cpu"), found[::-1])
    assert said == {"device": "cpu", "nondeterministic": found}
    assert describe_execution(torch.device("cpu"), []) == {"device": "cpu"}


@pytest.mark.parametrize("kernel", ["Flash Attention", "Memory Efficient attention", "cuDNN Attention"])
def test_attention_says_so_in_other_words_and_once_a_process(kernel: str) -> None:
    assert not torch.is_warn_always_enabled()
    with collect_nondeterministic() as found:
        assert torch.is_warn_always_enabled()
        told = f"{kernel} defaults to a non-deterministic algorithm. To explicitly enable determinism call ..."
        warnings.warn(told, stacklevel=1)
    assert found == [kernel]
    assert not torch.is_warn_always_enabled()


def test_another_warning_is_none_of_that_and_stays_one() -> None:
    with pytest.warns(UserWarning, match="something else"), collect_nondeterministic() as found:
        warnings.warn("something else", stacklevel=1)
    assert not found
    with pytest.raises(UserWarning, match="deterministic"):  # outside of it, as before
        warnings.warn(POOLING, stacklevel=1)


def test_torch_still_warns_in_these_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is torch's own: if it changes, nothing would be found any more."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with collect_nondeterministic() as found:
            # (Of the few operations that have no deterministic form on a processor.)
            torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    assert found == ["put_"]


def test_a_device_as_cards_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    assert describe_device(torch.device("cpu")) == "cpu"
    assert describe_device(torch.device("cuda:3")) == "cuda (Card 3)"
