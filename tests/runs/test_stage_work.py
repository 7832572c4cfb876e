"""Unfinished work: whose is taken up, whose is thrown away, whose is kept for another device."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipeline.runs.stage_work import open_stage_work
from pipeline.study.layout import Layout


def stop() -> None:
    raise KeyboardInterrupt


def leave_checkpoint(root: Path, device: str, *inputs: str) -> Path:
    """A run that was killed after its first checkpoint."""
    opened = open_stage_work(Layout(root), "train-student-s", root / "out", *inputs, device=device)
    with suppress(KeyboardInterrupt), opened as work:
        work.folder.mkdir(exist_ok=True)
        work.checkpoint().write_bytes(device.encode())
        stop()
    return work.checkpoint()


def test_a_run_on_the_processor_keeps_what_the_gpu_has_begun(tmp_path: Path) -> None:
    began = leave_checkpoint(tmp_path, "cuda", "a")
    other = leave_checkpoint(tmp_path, "cpu", "a")
    assert began.read_bytes() == b"cuda"
    assert other.read_bytes() == b"cpu"
    assert leave_checkpoint(tmp_path, "cuda", "a") == began


def test_other_inputs_of_the_same_device_are_thrown_away(tmp_path: Path) -> None:
    kept, stale = leave_checkpoint(tmp_path, "cuda", "a"), leave_checkpoint(tmp_path, "cpu", "a")
    fresh = leave_checkpoint(tmp_path, "cpu", "b")
    assert kept.exists()
    assert fresh.exists()
    assert not stale.exists()


def test_a_finished_run_leaves_nothing(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path, "cuda", "a")
    with open_stage_work(Layout(tmp_path), "train-student-s", tmp_path / "out", "a") as work:
        (work.out / "file").write_text("made")
    assert (tmp_path / "out/file").read_text() == "made"
    assert not Layout(tmp_path).work("train-student-s").exists()
