"""Fields and images that stay on disk: a student cannot tell them from those that lie on its device."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.cache.folder import LocalFolder
from pipeline.fields import checked_values, load_field, measure_field
from pipeline.fields.batches import CachedBatches
from pipeline.fields.rows import CachedRows, Target
from pipeline.fields.streamed import StreamedBatches, StreamedRows
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.recipe import Recipe, Term
from pipeline.student import Checkpoints, train_cohort
from pipeline.student_phase import Phase, StudentRun, samples_per_epoch
from pipeline.training import feeder
from pipeline.training.batches import Batch, iterate_batches
from pipeline.training.optimizers import constant
from pipeline.training.options import Restore, TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.training.rows import evaluate
from pipeline.training.sample_order import RandomOrder
from pipeline.training.trainable_part import TrainablePart
from pipeline.views.view import PLAIN, Views
from tests.cached_scene import CASES, CE, CHANNELS, HINT, STUDENT, VIEWS, N, Scene, make_scene, term
from tests.scenes import CNN, CPU, stopped_at_save, teacher_of


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("streamed"))


def options(**changes: Any) -> TrainingOptions:
    made = {"optimizer": partial(Adam, lr=0.01), "scheduler": constant, "epochs": 3, "batch_size": 64}
    return TrainingOptions(**{**made, **changes})


def cohort(
    scene: Scene, streamed: bool, terms: tuple[Term, ...], views: Views = PLAIN, **how: Any
) -> list[TrainedStudent]:
    recipe = Recipe(terms)
    fields = scene.fields(streamed, *{dump for each in terms for dump in each.reads.values()})
    phases = [*how.pop("before", ()), Phase(recipe, how.pop("options", None) or options())]
    run = StudentRun(how.pop("model", STUDENT), phases, 4, "s")
    return train_cohort(scene.splits(streamed), fields, [run], views=views, **how)[0]


def refuse_difference(one: list[TrainedStudent], other: list[TrainedStudent]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.fitted.history == b.fitted.history
        assert a.prepared == b.prepared
        for select in ("best", "last"):
            assert torch.equal(a.correct[select], b.correct[select])
            assert all(torch.equal(a.state(select)[name], b.state(select)[name]) for name in a.state(select))


@pytest.mark.parametrize("name", CASES)
def test_a_student_ends_with_the_same_bits(scene: Scene, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, views, changes = CASES[name]
    here = cohort(scene, False, terms, views, options=options(**changes))
    for streamed_bytes in (feeder.PIECE_BYTES, 1):  # several batches at a time, and one
        monkeypatch.setattr(feeder, "PIECE_BYTES", streamed_bytes)
        refuse_difference(here, cohort(scene, True, terms, views, options=options(**changes)))


@pytest.mark.parametrize("widths", [[12], [40, 30]])
def test_channel_labels_and_networks_of_other_kinds(scene: Scene, widths: list[int]) -> None:
    model = {"name": "mlp", "widths": widths, "head": {"name": "channel_outputs", "channels": CHANNELS}}
    here, there = (cohort(scene, each, (term("multichannel_bce", "bits"),), model=model) for each in (False, True))
    refuse_difference(here, there)
    refuse_difference(*(cohort(scene, each, (CE, HINT("hints")), model=CNN) for each in (False, True)))


def test_peers_phases_and_what_is_prepared(scene: Scene) -> None:
    first = Phase(Recipe((HINT("hints"),)), options(epochs=2), trainable=TrainablePart(up_to="features"))
    discriminator = DiscriminatorOptions(epochs=2, least_accuracy=0.0)
    prepared = term("adversarial", {"teacher": "exact", "initial": "logits"}, discriminator=discriminator)
    here, there = (
        cohort(scene, each, (CE, HINT("hints"), term("mutual_kl"), prepared), before=[first], peers=2)
        for each in (False, True)
    )
    refuse_difference(here, there)


def test_an_epoch_that_is_taken_back(scene: Scene) -> None:
    """Rates that overflow: the same epochs are tried again."""
    wild = options(optimizer=partial(torch.optim.SGD, lr=1e12), on_nan=Restore(divide=1e13, at_most=3))
    here, there = (cohort(scene, each, (CE, HINT("hints")), options=wild) for each in (False, True))
    assert here[0].restores == there[0].restores > 0
    refuse_difference(here, there)


def test_a_killed_training_goes_on_with_another_budget(scene: Scene, tmp_path: Path) -> None:
    terms = (CE, term("soft_targets", "logits-views", temperature=4.0))
    whole = cohort(scene, False, terms, VIEWS)
    for first in (False, True):
        path = tmp_path / f"{first}.pt"
        with stopped_at_save(2):
            cohort(scene, first, terms, VIEWS, checkpoints=Checkpoints(path, 0))
        refuse_difference(whole, cohort(scene, not first, terms, VIEWS, checkpoints=Checkpoints(path)))


@pytest.mark.parametrize("name", ["logits", "exact", "brain", "packed", "top", "hints", "bits", "logits-views"])
def test_a_batch_reads_the_same_rows(scene: Scene, name: str) -> None:
    here, there = scene.fields(False, name)[name], scene.fields(True, name)[name]
    assert isinstance(here, CachedRows)
    assert isinstance(there, StreamedRows)
    ids = torch.randperm(scene.dataset.bounds[0])[:50]
    batch = Batch(ids, torch.arange(50) % (3 if "views" in name else 1), ids, ids, 0, 0)
    one, other = by_name(here.target(batch)), by_name(there.target(batch))
    assert one.keys() == other.keys()
    assert all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)


def by_name(target: Target) -> Mapping[str, Tensor]:
    return {"": target} if isinstance(target, Tensor) else target


@pytest.mark.parametrize("name", ["p", "short"])
def test_a_batch_of_a_plan_reads_the_same_matrix(scene: Scene, name: str) -> None:
    here, there = scene.fields(False, name)[name], scene.fields(True, name)[name]
    assert isinstance(here, CachedBatches)
    assert isinstance(there, StreamedBatches)
    assert torch.equal(here.plans, there.plans)
    last = here.plans.shape[1] - 1
    for epoch, number in ((0, 0), (1, 3), (4, last)):
        plan = here.plans[epoch % len(here.plans), number]
        ids = plan[plan >= 0]
        batch = Batch(ids, torch.zeros_like(ids), ids, ids, epoch, number)
        assert torch.equal(here.target(batch), there.target(batch))
    splits = scene.splits(True)
    assert samples_per_epoch(splits, {"f": here}, ["f"]) == samples_per_epoch(splits, {"f": there}, ["f"])


def test_an_evaluation_reads_images_from_disk(scene: Scene) -> None:
    here, there = scene.splits(False), scene.splits(True)
    network = teacher_of(scene.dataset, CNN).network
    for split in ("train", "test"):
        one, other = (evaluate(network, getattr(each, split)) for each in (here, there))
        assert torch.equal(one[0], other[0])
        assert one[1] == other[1]
    assert not isinstance(there.test.images, Tensor)
    assert torch.equal(there.train.images[:5], here.train.images[:5])  # a few at once, too
    assert torch.equal(there.test.images[torch.tensor([7, 2])], here.test.images[torch.tensor([7, 2])])


# ------------------------------------------------------------------ fields are looked at once


def place_of(opened: cache.Cache) -> Path:
    assert isinstance(opened.folder, LocalFolder)
    return opened.folder.path


def copied(scene: Scene, name: str, tmp_path: Path) -> cache.Cache:
    return cache.open(Path(shutil.copytree(place_of(scene.caches[name]), tmp_path / name)))


@pytest.mark.parametrize("name", ["top", "p", "logits-views"])
def test_all_numbers_are_looked_at_once_a_copy(
    scene: Scene, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, looked = copied(scene, name, tmp_path), []
    real = checked_values.iterate_pieces
    monkeypatch.setattr(checked_values, "PIECE_BYTES", 1 << 10)

    def watching(of: cache.Cache, array: str) -> Any:
        for view, rows, values in real(of, array):
            looked.append((array, view, rows.start, len(values)))
            yield view, rows, values

    monkeypatch.setattr("pipeline.fields.streamed.iterate_pieces", watching)
    load_field(opened, CPU, streamed=True)
    expected = {key: info.shape for key, info in opened.manifest.arrays.items() if key != "sample_ids"}
    for array, shape in expected.items():
        assert sum(count for which, *_, count in looked if which == array) == shape[0] * shape[1]
    seen = len(looked)
    assert seen > 5
    load_field(opened, CPU, streamed=True)
    load_field(cache.open(place_of(opened)), CPU, streamed=True)
    assert len(looked) == seen
    file = next(path for path in place_of(opened).rglob("*") if path.is_file())
    file.touch()
    load_field(cache.open(place_of(opened)), CPU, streamed=True)
    assert len(looked) == 2 * seen


def broken(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """From now on the stored numbers come out changed: the last row of each piece."""
    real = cache.Cache.rows

    def rows(self: cache.Cache, ids: Any, view: Any = 0, array: str | None = None) -> Any:
        found = np.array(real(self, ids, view, array))
        change(array, found)
        return found

    monkeypatch.setattr(cache.Cache, "rows", rows)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("top", lambda array, rows: rows.__setitem__(-1, 10) if array == "indices" else None, "'indices': expected classes 0..9"),
        ("hints", lambda _, rows: rows.__setitem__(-1, np.nan), "'features': expected finite numbers"),
        ("p", lambda _, rows: rows.__setitem__(-1, rows[-1] * 1.1), "'p': expected probabilities of pairs"),
        ("p", lambda _, rows: rows.__setitem__(-1, -rows[-1]), "'p': expected probabilities of pairs"),
    ],
)  # fmt: skip
def test_what_no_field_holds_is_refused_and_not_remembered(
    scene: Scene, name: str, change: Any, message: str, tmp_path: Path
) -> None:
    opened = copied(scene, name, tmp_path)
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            broken(patch, change)
            with pytest.raises(InputError, match=message):
                load_field(opened, CPU, streamed=True)
    load_field(opened, CPU, streamed=True)


def test_damage_that_a_thread_finds_is_told_as_it_is(scene: Scene, tmp_path: Path) -> None:
    """A block that changes after the cache was opened: its own line, from the training, and no thread stays."""
    opened = copied(scene, "logits", tmp_path)
    field = load_field(opened, CPU, streamed=True)
    opened._arrays.clear()  # as in a process that has not read it yet
    block = max((path for path in place_of(opened).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)
    with pytest.raises(InputError, match=r"logits.*CRC-32C"):
        train_cohort(
            scene.splits(True), {"logits": field},
            [StudentRun(STUDENT, [Phase(Recipe((term("logits_mse", "logits"),)), options())], 4, "s")],
        )  # fmt: skip
    refuse_threads()


def refuse_threads() -> None:
    import threading

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feeder")]


def test_an_epoch_that_is_given_up_leaves_no_thread(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "PIECE_BYTES", 1)
    train, field = scene.splits(True).train, scene.fields(True, "logits")["logits"]
    assert isinstance(field, StreamedRows)
    batches = iterate_batches(train, RandomOrder(len(train), 0).ids(0), 16, 999, 0, streams=[field])
    next(batches)
    batches.close()
    refuse_threads()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        cohort(scene, True, (CE, HINT("hints")))
    refuse_threads()


def test_a_field_says_what_it_takes(scene: Scene) -> None:
    logits = measure_field("a", scene.caches["logits-views"], 64)
    assert (logits.name, logits.bytes, logits.batch_bytes) == ("a", 3 * scene.dataset.bounds[0] * 20, 64 * 20)
    top = measure_field("b", scene.caches["top"], 10)
    assert top.batch_bytes == 10 * scene.fields(True, "top")["top"].count_bytes(1)  # type: ignore[attr-defined]
    p = measure_field("c", scene.caches["p"], N)
    assert p.batch_bytes >= 4 * N * (N - 1) // 2
