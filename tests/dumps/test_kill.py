"""Killed, stopped and small: whatever happens to a dump, its place holds a whole cache or none."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch

from pipeline import cache
from pipeline.base.provenance import hash_code
from pipeline.cache import store_plan
from pipeline.cache.block_files import BlockFiles, FinishedChunk
from pipeline.cache.blocks import Block
from pipeline.datasets.dataset import Dataset, ImagesFile
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.models.build import build_network
from pipeline.teacher import Ensemble, Samples, Teacher, TeacherLike, TeacherOutputs
from pipeline.views.view import Views
from tests.conftest import ROOT, STUDY, Run, copied, programs, sweep, warm_python, write_study

Store = Literal["zarr", "hdf5"]
STORES: list[Store] = ["zarr", "hdf5"]
Tree = dict[str, bytes]
BATCH = 16
BLOCKS = 40  # of the dump that is killed at random moments
FLIPPED = Views("flip", 2, 0, {})


def tree(folder: Path) -> Tree | None:
    """The bytes of all files, or None where there is no folder."""
    if not folder.exists():
        return None
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def random_dataset(rows: int, shape: tuple[int, int, int] = (1, 8, 8)) -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (rows, *shape), dtype=np.uint8)
    order = np.arange(rows)
    return Dataset(images, order % 10, (rows, rows), tuple("abcdefghij"), order, "random")


def small_teacher(dataset: Dataset) -> Teacher:
    torch.manual_seed(3)
    network = build_network({"name": "mlp", "widths": [32]}, dataset.shape, 10)
    return Teacher(Ensemble([network]), card_for(dataset), torch.device("cpu"))


def card_for(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": "big", "model": {"name": "mlp"}, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": "0" * 64, "test_accuracy": None, "test_accuracy_per_class": [None] * len(dataset.classes),
    }  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A dump that can be run again and again in children of one warm process."""

    folder: Path
    store: Store
    dataset: Dataset
    teacher: Teacher

    @property
    def target(self) -> Path:
        return self.folder / "dump"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, dtype: str = "float32") -> None:
        wanted = DumpRequest(self.target, self.work, "logits", {"dtype": dtype}, self.store)
        dump_fields(self.teacher, self.dataset, [wanted], batch=BATCH, views=FLIPPED)

    def fork(self, before: Callable[[], None] = lambda: None) -> int:
        """A child that runs the dump; its process id."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                before()
                self.run()
                code = 0
            finally:
                os._exit(code)
        return child

    def clear(self) -> None:
        for path in (self.target, self.work):
            shutil.rmtree(path, ignore_errors=True)

    def made(self, dtype: str) -> Tree:
        """What an uninterrupted run leaves."""
        self.clear()
        self.run(dtype)
        found = tree(self.target)
        assert found is not None
        cache.open(self.target)
        return found

    def check_target(self, *allowed: Tree | None) -> Tree | None:
        """The target holds one of the whole caches, or nothing; what is there opens."""
        found = tree(self.target)
        assert found in allowed, "half-written"
        if found is not None:
            cache.open(self.target)
        return found


def scene(folder: Path, store: Store, rows: int) -> Scene:
    """All that children need, imported and warm; blocks of one batch and two chunks, in no more than 16 shards."""
    torch.set_num_threads(1)
    store_plan.BLOCK_BYTES = store_plan.MAX_BLOCK_BYTES = BATCH * 10 * 4
    store_plan.PLAIN_CHUNK_BYTES = BATCH * 10 * 2
    store_plan.MAX_FILES = 16
    hash_code()
    dataset = random_dataset(rows)
    return Scene(folder, store, dataset, small_teacher(dataset))


def put(folder: Path, files: Tree) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def random_kills(folder: Path, store: Store, kills: int) -> dict[str, int]:
    """Kill dumps at random moments, some of them more than once, and compare how they end."""
    stage = scene(folder, store, BATCH * BLOCKS // FLIPPED.count)
    old, new = stage.made("float16"), stage.made("float32")
    stage.clear()
    start = time.perf_counter()
    stage.run()
    whole = time.perf_counter() - start
    stage.clear()
    chance = random.Random(0)
    seen = {"kills": 0, "rounds": 0, "with blocks": 0, "with a sealed store": 0}
    while seen["kills"] < kills and seen["rounds"] < 10 * kills:
        seen["rounds"] += 1
        stage.clear()
        before = old if chance.random() < 0.5 else None
        put(stage.target, before or {})
        for _ in range(chance.choice([1, 1, 2, 3])):
            killed = killed_after(stage, chance.uniform(0.02, 1.2) * whole)
            stage.check_target(before, new, None)
            if before is not None:
                assert stage.target.exists() or list(stage.work.glob("trash-*")), "the old cache is lost"
            seen["kills"] += killed
            seen["with blocks"] += killed and bool(list(stage.work.glob("blocks-*/*.raw")))
            seen["with a sealed store"] += killed and (stage.work / "sealed").exists()
        stage.run()
        assert stage.check_target(new) == new
        assert not stage.work.exists()
    return seen


def killed_after(stage: Scene, seconds: float) -> bool:
    """Run the dump in a child and kill it after a while; whether it was still running."""
    child = stage.fork()
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


EARLY = 7  # steps: the four of the lock, the way back, and no more than the first of the seal
CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.copyfile"}


def suicide(number: int) -> Callable[[], None]:
    """To be called in a child: kills it just before its `number`-th step that changes a file system."""
    left = [number]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in CHANGES or writes:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def kills_at_every_step(folder: Path, store: Store, _: int) -> dict[str, int]:
    """Kill a small dump before each single change that it makes to the file system."""
    stage = scene(folder, store, BATCH)
    old, new = stage.made("float16"), stage.made("float32")
    stage.clear()
    seen = {"steps": 0, "old": 0, "none": 0, "new": 0}
    while True:
        stage.clear()
        put(stage.target, old)
        child = stage.fork(suicide(seen["steps"]))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = stage.check_target(old, new, None)
        if code == 0:
            assert found == new
            return seen
        assert code == -signal.SIGKILL
        assert found is not None or list(stage.work.glob("trash-*")), "the old cache is lost"
        seen["steps"] += 1
        seen["none" if found is None else "old" if found == old else "new"] += 1
        if found is None:  # the next run puts the old one back before it does anything else
            os.waitpid(stage.fork(suicide(EARLY)), 0)
            assert stage.check_target(old) == old
        stage.run()
        assert stage.check_target(new) == new
        assert not stage.work.exists()


JOINED = 6  # blocks, three of each view, all in one shard


def kills_while_joining(folder: Path, store: Store, _: int) -> dict[str, int]:
    """Kill a dump before it reads each of its blocks back: to digest it, and to copy it."""
    stage = scene(folder, store, BATCH * JOINED // FLIPPED.count)
    store_plan.MAX_FILES = 1
    old, new = stage.made("float16"), stage.made("float32")
    assert len([name for name in new if name.startswith("data")]) == (3 if store == "zarr" else 1)
    seen = {"kills": 0, "with half a store": 0}
    while True:
        stage.clear()
        put(stage.target, old)
        child = stage.fork(suicide_at_read(seen["kills"]))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            assert stage.check_target(new) == new
            return seen
        assert code == -signal.SIGKILL
        assert stage.check_target(old) == old
        assert len(list(stage.work.glob("blocks-*/*.raw"))) == JOINED
        seen["kills"] += 1
        seen["with half a store"] += any(path.is_file() for path in (stage.work / "sealed").rglob("*"))
        stage.run()
        assert stage.check_target(new) == new
        assert not stage.work.exists()


def suicide_at_read(number: int) -> Callable[[], None]:
    """To be called in a child: kills it just before a block is read for the `number`-th time."""
    real, left = BlockFiles.read, [number]

    def read(self: BlockFiles, name: str, block: Block) -> list[FinishedChunk]:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, name, block)

    return lambda: setattr(BlockFiles, "read", read)


CLASSES, CACHE_MB = 920, 350  # of images of 784 bytes: 150 MB of them
ALLOWED = 250 << 20


@dataclass(frozen=True)
class CheapTeacher:
    """Reads the images that it is asked about, and answers with numbers that cost nothing."""

    card: Mapping[str, Any]
    device: torch.device

    def shapes(self, reads: Iterable[str]) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(reads, (CLASSES,))

    def compute_outputs(
        self, samples: Samples, reads: Iterable[str], view: int, start: int, stop: int
    ) -> Iterator[TeacherOutputs]:
        pixels = samples.images[start:stop].reshape(stop - start, -1)
        logits = np.add.outer(pixels[:, 0].astype(np.float32), np.arange(CLASSES, dtype=np.float32))
        yield TeacherOutputs(view, start, stop, dict.fromkeys(reads, torch.from_numpy(logits)))


def peak() -> int:
    """The most memory that this process has held since the count was reset, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def memory(folder: Path, store: Store, _: int) -> dict[str, int]:
    """Dump a cache far larger than the memory that it may take."""
    rows = CACHE_MB * 1_000_000 // (2 * CLASSES)
    shape = (1, 28, 28)
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (rows, *shape))[::1000] = 7
    reset_peak()
    base = peak()
    images = ImagesFile(folder / "images.npy")
    order = np.arange(rows)
    dataset = Dataset(images, order % CLASSES, (rows, rows), tuple(map(str, range(CLASSES))), order, "large")
    teacher: TeacherLike = CheapTeacher(card_for(dataset), torch.device("cpu"))
    dump_fields(
        teacher, dataset, [DumpRequest(folder / "dump", folder / "work", "logits", {"dtype": "float16"}, store)]
    )
    grown = peak() - base
    written = sum(path.stat().st_size for path in (folder / "dump").rglob("*") if path.is_file())
    shutil.rmtree(folder / "dump")
    del images, dataset
    held = np.ones(ALLOWED + (50 << 20), np.uint8)
    assert held[-1]
    return {"grown": grown, "written": written, "seen of a large array": peak() - base}


JOBS = {"random": random_kills, "steps": kills_at_every_step, "joins": kills_while_joining, "memory": memory}


def job(name: str, folder: Path, store: Store, number: int = 0) -> dict[str, int]:
    """Run one of `JOBS` in a process of its own: it forks, and its memory is its own.

    What it saw; that all ended well is asserted there.
    """
    done = warm_python(ROOT, "-m", "tests.dumps.test_kill", name, str(folder), store, str(number))
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kills", sweep([6, 50], 6))
@pytest.mark.parametrize("store", STORES)
def test_killed_at_random_moments(tmp_path: Path, store: Store, kills: int) -> None:
    seen = job("random", tmp_path, store, kills)
    assert seen["kills"] >= kills
    assert seen["with blocks"] >= kills // 2


@pytest.mark.parametrize("store", sweep(STORES, "zarr"))
def test_killed_before_every_step(tmp_path: Path, store: Store) -> None:
    seen = job("steps", tmp_path, store)
    assert seen["steps"] == seen["old"] + seen["none"] + seen["new"]
    assert seen["steps"] >= 20
    assert seen["none"] == 1  # between the two renames
    assert seen["new"] >= 1


@pytest.mark.parametrize("store", STORES)
def test_killed_while_blocks_are_joined(tmp_path: Path, store: Store) -> None:
    seen = job("joins", tmp_path, store)
    assert seen["kills"] == JOINED  # each is read once, to be digested and copied
    assert seen["with half a store"] == JOINED


@pytest.mark.parametrize("store", STORES)
def test_a_dump_takes_little_memory(tmp_path: Path, store: Store) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are read from Linux's /proc")
    seen = job("memory", tmp_path, store)
    assert seen["written"] > 345_000_000
    assert seen["seen of a large array"] > ALLOWED  # so the measure would tell
    assert seen["grown"] < ALLOWED


VIEWS = 120  # blocks of the dump that is stopped by a signal


@pytest.fixture
def stoppable(tmp_path: Path, run: Run) -> Path:
    """A study with a trained teacher, whose dump has many blocks."""
    study = copied(STUDY)
    study["datasets"]["digits"] = {"source": "digits", "validation": {"first": 100}}
    study["views"] = {"policy": "flip", "count": VIEWS}
    folder = write_study(tmp_path / "study", study)
    for command in (("prepare", "digits"), ("train-teacher", "big")):
        assert run(folder, *command) == 0
    return folder


def start_dump(folder: Path) -> subprocess.Popen[str]:
    command = [str(programs().folder / "teachercache"), "dump-logits", "big-logits"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said of an error."""
    _, words = process.communicate(timeout=100)
    return process.returncode, words


def finished_blocks(folder: Path) -> set[Path]:
    return set((folder / ".work/dump-logits-big-logits").glob("blocks-*/*.raw"))


def stopped(folder: Path, number: signal.Signals) -> tuple[int, str]:
    """Start the dump, send it a signal when it has made some blocks; its exit code and words."""
    before = finished_blocks(folder)
    process = start_dump(folder)
    while len(finished_blocks(folder) - before) < 3:
        assert process.poll() is None, "ended before it could be stopped"
        time.sleep(0.002)
    process.send_signal(number)
    return ended(process)


def test_stopped_by_a_signal(stoppable: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(stoppable, tmp_path / "whole"))
    process = start_dump(whole)  # on the other core
    for number in (signal.SIGINT, signal.SIGTERM):
        before = finished_blocks(stoppable)
        code, words = stopped(stoppable, number)
        assert code != 0, words
        assert not (stoppable / "data/cache/big-logits").exists()
        after = finished_blocks(stoppable)
        assert before < after  # what was done is kept
        assert len(after) < VIEWS
    assert ended(start_dump(stoppable)) == (0, "")
    assert ended(process) == (0, "")
    found = tree(stoppable / "data/cache/big-logits")
    assert found is not None
    assert found == tree(whole / "data/cache/big-logits")
    assert not (stoppable / ".work/dump-logits-big-logits").exists()
    assert cache.open(stoppable / "data/cache/big-logits").load().shape[0] == VIEWS


if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](Path(sys.argv[2]), cast("Store", sys.argv[3]), int(sys.argv[4]))))
