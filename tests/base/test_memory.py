"""Sizes as people write them, and how much data a device may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.base import mapped_pages, memory
from pipeline.base.errors import InputError
from pipeline.base.memory import find_budget, parse_size
from pipeline.base.sizes import format_size

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9), ("8gb", 8 * 10**9), ("8 GB", 8 * 10**9), ("8G", 8 * 10**9), ("500MB", 5 * 10**8), ("2GiB", 2 << 30),
        ("1.5 GiB", 3 << 29), (".5k", 500), ("4096", 4096), ("4096B", 4096), ("0", 0), ("1TB", 10**12), ("3TiB", 3 << 40),
    ],
)  # fmt: skip
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text, "--memory") == size


@pytest.mark.parametrize("text", ["", " ", "GB", "8 QB", "-1GB", "8iB", "1e9", "8GBs", "eight", "8,5GB", "nan", "٣GB"])
def test_what_is_no_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--memory: expected a size such as 8GB.* found '.*; write, for instance"):
        parse_size(text, "--memory")


def test_sizes_for_people() -> None:
    sizes = (12, 1000, 93_184, 10**5, 4 * 10**8, 12_345_678_901, 2 * 10**12)
    assert [format_size(size) for size in sizes] == [
        "12 bytes",
        "1 kB",
        "93 kB",
        "0.1 MB",
        "0.4 GB",
        "12.3 GB",
        "2.0 TB",
    ]


def test_the_option_comes_before_the_variable_and_that_before_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(memory.VARIABLE, "3MB")
    assert find_budget("2MB", CPU) == 2_000_000
    assert find_budget(17, CPU) == 17
    assert find_budget(None, CPU) == 3_000_000
    monkeypatch.setenv(memory.VARIABLE, "some")
    with pytest.raises(InputError, match=r"TEACHERCACHE_MEMORY: .*write, for instance, TEACHERCACHE_MEMORY=8GB"):
        find_budget(None, CPU)
    monkeypatch.delenv(memory.VARIABLE)
    assert 0 < find_budget(None, CPU) <= psutil.virtual_memory().total / 2
    for text, expected in (("1000\n", 500), ("max\n", find_budget(None, CPU))):  # of a container
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(memory, "LIMITS", [str(tmp_path / "memory.max"), str(tmp_path / "none")])
        assert find_budget(None, CPU) == pytest.approx(expected, rel=0.2)


@pytest.mark.skipif(not mapped_pages.STATM.exists(), reason="this system does not say what a process holds")
def test_pages_of_maps_are_given_back_when_they_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros(64 << 20, np.uint8))
    mapped, calls = np.load(tmp_path / "a.npy", mmap_mode="r"), []

    def release() -> None:
        calls.append(mapped_pages.count_file_bytes())
        mapped_pages.release_pages(mapped[5:].view(np.uint8))

    monkeypatch.setattr(mapped_pages, "MOST_BYTES", 32 << 20)
    watch = mapped_pages.PageWatch(release)
    watch.check()
    assert not calls
    for _ in range(3):
        mapped.sum()
        watch.check()
        assert mapped_pages.count_file_bytes() < calls[-1] - (48 << 20)
    assert len(calls) == 3
    mapped_pages.release_pages(np.zeros(3))  # nothing is mapped there
