"""Binary labels of a teacher's channels: dumped, learnt and looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from pipeline import cache
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.dumps.foreign.teacher import ForeignTeacher
from pipeline.dumps.hooks import list_derived_parameters, plan_arrays
from pipeline.fields.rows import CachedRows
from pipeline.inspection.overview import inspect_cache
from pipeline.losses.hooks import term_fields, term_taps
from pipeline.losses.multichannel_bce import multichannel_bce, unpack_bits
from pipeline.losses.outputs import Outputs
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.build import build_network
from pipeline.models.heads import CHANNELS
from pipeline.models.network import Network
from pipeline.student import train_student
from pipeline.study.params_file import parse_study
from pipeline.teacher import Ensemble, Samples, Teacher, train_teacher
from pipeline.training.batches import Batch
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.training.rows import Splits, evaluate
from pipeline.views.view import PLAIN, Views
from tests import reference
from tests.conftest import Capture, Run, write_study
from tests.conftest import refused as refused_command
from tests.data_files import refused

CPU = torch.device("cpu")
BATCH = 256
CLASSES, CHANNELS_A_CLASS = 10, 25
HEADED = {"name": "mlp", "widths": [256], "head": {"name": "multichannel"}}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return prepare_dataset("digits", "digits", Place("digits"), validation=0.2)


@pytest.fixture(scope="module")
def splits(dataset: Dataset) -> Splits:
    return Splits.from_dataset(dataset, CPU)


def training_options(epochs: int, lr: float = 0.005) -> TrainingOptions:
    return TrainingOptions(partial(Adam, lr=lr), constant, epochs=epochs, batch_size=64)


@pytest.fixture(scope="module")
def network(splits: Splits) -> Network:
    return train_teacher(splits, model=HEADED, options=training_options(10), seed=0, what="teacher")[0]


def answering(network: nn.Module, dataset: Dataset) -> Teacher:
    card = {
        "name": "big", "model": {"name": "mlp"}, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": "0" * 64, "test_accuracy": 0.1, "test_accuracy_per_class": [0.1] * CLASSES,
    }  # fmt: skip
    ensemble = network if isinstance(network, Ensemble) else Ensemble([network])  # type: ignore[list-item]
    return Teacher(ensemble, card, CPU)


@pytest.fixture
def teacher(network: Network, dataset: Dataset) -> Teacher:
    return answering(network, dataset)


def made(
    teacher: Any, dataset: Dataset, folder: Path, store: Literal["zarr", "hdf5"] = "zarr", views: Views = PLAIN, **options: Any
) -> cache.Cache:  # fmt: skip
    dump_fields(
        teacher,
        dataset,
        [DumpRequest(folder / "dump", folder / "work", "multichannel", options, store)],
        batch=BATCH,
        views=views,
    )
    return cache.open(folder / "dump")


def scores_of(teacher: Teacher, samples: Samples, view: int = 0) -> NDArray[np.float32]:
    """All rows of the fixed partition, (rows, classes * K)."""
    answers = teacher.compute_outputs(samples, [CHANNELS], view, 0, samples.rows)
    return np.concatenate([answer.numpy(CHANNELS).reshape(answer.stop - answer.start, -1) for answer in answers])


# ------------------------------------------------------------------ the field


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_bits_are_the_thresholded_channels_of_every_view(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, store: Literal["zarr", "hdf5"], threshold: float
) -> None:
    views = Views("crop_flip", 3, 7, {"padding": 1})
    opened = made(teacher, dataset, tmp_path, store, views, threshold=threshold)
    rows = dataset.bounds[0]
    stored = opened.load()
    assert stored.shape == (3, rows, 32)
    assert stored.dtype == np.uint8
    assert opened.manifest.field.parameters == {"threshold": threshold, "channels": CHANNELS_A_CLASS}
    samples = Samples(dataset.images, rows, BATCH, views)
    for view in range(3):
        sigmoid = 1 / (1 + np.exp(-scores_of(teacher, samples, view).astype(np.float64)))
        live = (sigmoid >= threshold).astype(int)
        assert 0.02 < live.mean() < 0.98
        some = [0, 1, BATCH - 1, BATCH, rows - 1]
        assert stored[view, some].tolist() == reference.packed(live[some].tolist())
        assert np.array_equal(np.unpackbits(stored[view], axis=1, count=250), live)
    assert not np.array_equal(stored[0], stored[1])


class Scripted:
    """A teacher whose scores are written down."""

    device = CPU

    def __init__(self, scores: NDArray[np.float32], dataset: Dataset) -> None:
        self.scores, self.card = torch.from_numpy(scores), dict(answering(nn.Identity(), dataset).card)

    def shapes(self, reads: Any) -> dict[str, tuple[int, ...]]:
        return {read: tuple(self.scores.shape[1:]) for read in reads}

    def compute_outputs(self, samples: Samples, reads: Any, view: int, start: int, stop: int) -> Any:
        from pipeline.teacher import TeacherOutputs

        assert tuple(reads) == (CHANNELS,)
        yield TeacherOutputs(view, start, stop, {CHANNELS: self.scores[start:stop]})


def test_bits_stand_class_by_class_and_equality_is_a_one(tmp_path: Path, dataset: Dataset) -> None:
    scores = np.full((dataset.bounds[0], CLASSES, 3), -1, np.float32)
    scores[0, 0, 1] = 2
    scores[0, 3, 0] = 0.0  # sigmoid(0) is the threshold
    scores[0, 9, 2] = np.inf
    scores[1, 2, 1] = -1e-30
    stored = made(Scripted(scores, dataset), dataset, tmp_path).load()[0]
    assert stored.shape[1] == 4
    assert stored[0].tolist() == [0b01000000, 0b01000000, 0, 0b00000100]  # bits 1, 9 and 29 of 30
    assert stored[1:].sum() == 0
    at = np.float32(np.log(0.8 / 0.2))
    scores[0] = -1
    scores[0, 0, :2] = at, np.nextafter(at, np.float32(0))
    assert made(Scripted(scores, dataset), dataset, tmp_path, threshold=0.8).load()[0, 0, 0] == 0b10000000


def test_a_score_that_is_nan_names_its_sample(tmp_path: Path, dataset: Dataset) -> None:
    scores = np.zeros((dataset.bounds[0], CLASSES, 3), np.float32)
    scores[300, 4, 1] = np.nan
    with refused("channels of 'big' for sample 300: expected numbers, found NaN; train the network again"):
        made(Scripted(scores, dataset), dataset, tmp_path)
    assert not (tmp_path / "dump").exists()


def test_10_classes_of_36_channels_take_45_bytes(dataset: Dataset) -> None:
    (plan,) = plan_arrays("multichannel", {"channels": 36}, 10).values()
    assert (plan.row_shape, plan.dtype) == ((45,), "uint8")
    assert list_derived_parameters("multichannel") == ("channels",)


@pytest.mark.parametrize("channels", [None, 0, -3, "25", True, 2.0])
def test_a_manifest_without_a_number_of_channels_is_refused(channels: Any) -> None:
    with refused("field.parameters.channels: expected a number from 1, found"):
        plan_arrays("multichannel", {"threshold": 0.5, "channels": channels}, 10)


def test_networks_without_channels_are_refused(tmp_path: Path, dataset: Dataset, network: Network) -> None:
    advice = "train it with `head: {multichannel: {}}`"
    plain = build_network({"name": "mlp", "widths": [8]}, dataset.shape, CLASSES)
    with refused("channels of 'big': expected a single network with a tap `channels`", "unknown tap", advice):
        made(answering(plain, dataset), dataset, tmp_path)
    with refused("found tap 'channels': expected one network, found an ensemble of 2", advice):
        made(answering(Ensemble([network, network]), dataset), dataset, tmp_path)
    card = dict(answering(plain, dataset).card)
    foreign = ForeignTeacher(np.zeros((len(dataset), CLASSES), np.float32), card)
    with refused("'channels' of 'big': expected logits, all that its file holds", advice):
        made(foreign, dataset, tmp_path)


def test_a_student_s_channels_are_dumped_as_well(tmp_path: Path, dataset: Dataset) -> None:
    torch.manual_seed(0)
    head = {"name": "channel_outputs", "channels": 3}
    student = answering(build_network({"name": "mlp", "widths": [8], "head": head}, dataset.shape, CLASSES), dataset)
    opened = made(student, dataset, tmp_path)
    live = scores_of(student, Samples(dataset.images, dataset.bounds[0], BATCH)) >= 0
    assert opened.manifest.field.parameters["channels"] == 3
    assert np.array_equal(np.unpackbits(opened.load()[0], axis=1, count=30), live)
    assert 0 < live.mean() < 1


# ------------------------------------------------------------------ the loss


def batch(rows: int = 5, classes: int = 4, channels: int = 3) -> tuple[Tensor, list[list[int]], Tensor]:
    """Scores (B, C, K), bits, and the bits packed by the reference."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(rows, classes, channels, dtype=torch.float64, generator=generator).mul_(3).requires_grad_()
    bits = torch.randint(0, 2, (rows, classes * channels), generator=generator).tolist()
    return scores, bits, torch.tensor(reference.packed(bits), dtype=torch.uint8)


def outputs(scores: Tensor) -> Outputs:
    labels = torch.zeros(len(scores), dtype=torch.int64)
    return Outputs(scores.sigmoid().sum(2), labels, {CHANNELS: scores})


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("channels", [1, 2, 3])  # 4, 8 and 12 bits
@pytest.mark.parametrize(("over_channels", "reduction"), [("mean", "mean"), ("sum", "mean"), ("mean", "sum")])
def test_multichannel_bce_follows_the_reference(rows: int, channels: int, over_channels: Any, reduction: Any) -> None:
    scores, bits, packed = batch(rows, 4, channels)
    slow = reference.multichannel_bce(scores.detach().numpy(), bits) / (4 * channels if over_channels == "mean" else 1)
    found = multichannel_bce(outputs(scores), packed, over_channels=over_channels, reduction=reduction)
    assert found.item() == pytest.approx(getattr(np, reduction)(slow), abs=1e-10)
    (gradient,) = torch.autograd.grad(found, scores)
    p = 1 / (1 + np.exp(-scores.detach().numpy()))
    by_hand = (p - np.array(bits).reshape(p.shape)) / (4 * channels if over_channels == "mean" else 1)
    assert np.abs(gradient.numpy() - by_hand / (rows if reduction == "mean" else 1)).max() < 1e-10


def test_every_byte_is_unpacked_as_numpy_does_it() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(-1, 2)
    found = unpack_bits(torch.from_numpy(every), 13)
    assert np.array_equal(found.numpy(), np.unpackbits(every, axis=1, count=13))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_huge_scores_in_half_precision_stay_finite(dtype: torch.dtype) -> None:
    scores = torch.full((2, 10, 36), 60_000.0, dtype=dtype, requires_grad=True)
    packed = torch.zeros((2, 45), dtype=torch.uint8)
    overs: tuple[Literal["mean", "sum"], ...] = ("mean", "sum")
    for over in overs:
        loss = multichannel_bce(outputs(scores), packed, over_channels=over)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    with torch.autocast("cpu", dtype):
        assert multichannel_bce(outputs(scores), packed, over_channels="sum").isfinite()


def test_students_that_do_not_fit_are_refused() -> None:
    scores, _, packed = batch()
    with refused("loss multichannel_bce: expected a student with channels, found none", "channel_outputs"):
        multichannel_bce(Outputs(torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64)), packed)
    with refused("labels of 1 bytes a sample, found 12 channels, which take 2", "channel_outputs"):
        multichannel_bce(outputs(scores), packed[:, :1])


def test_the_loss_says_what_it_reads() -> None:
    assert term_fields("multichannel_bce", {}) == {"target": "multichannel"}
    assert term_taps("multichannel_bce", {}) == ("channels",)


# ------------------------------------------------------------------ from teacher to student


class LiveBits:
    """Runs the teacher inside the training loop, over the fixed partition."""

    plans = None

    def __init__(self, teacher: Teacher, dataset: Dataset) -> None:
        samples = Samples(dataset.images, dataset.bounds[0], BATCH)
        self.answer: Callable[[], NDArray[np.float32]] = lambda: scores_of(teacher, samples)
        self.asked = 0

    def target(self, batch: Batch) -> Tensor:
        self.asked += 1
        return torch.from_numpy(np.packbits(self.answer()[batch.ids.numpy()] >= 0, axis=1))


def taught(splits: Splits, target: Any, epochs: int) -> TrainedStudent:
    model = {"name": "mlp", "widths": [48], "head": {"name": "channel_outputs", "channels": CHANNELS_A_CLASS}}
    recipe = Recipe((Term("multichannel_bce", steady(1, value=1.0), {}, "dump"),))
    return train_student(
        splits, {"dump": target}, recipe, model=model, options=training_options(epochs), seed=5, what="student"
    )


def test_training_from_cached_bits_is_training_with_the_live_teacher(
    tmp_path: Path, dataset: Dataset, splits: Splits, teacher: Teacher
) -> None:
    live = LiveBits(teacher, dataset)
    with_live = taught(splits, live, 2)
    with_cache = taught(splits, CachedRows.from_cache(made(teacher, dataset, tmp_path), CPU), 2)
    assert live.asked > 30
    assert with_live.fitted.history == with_cache.fitted.history
    state, other = with_cache.state("last"), with_live.state("last")
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_a_teacher_with_channels_is_good_and_its_bits_teach(
    tmp_path: Path, dataset: Dataset, splits: Splits, network: Network, teacher: Teacher
) -> None:
    right, _ = evaluate(network, splits.validation)
    assert right.double().mean() > 0.94
    student = taught(splits, CachedRows.from_cache(made(teacher, dataset, tmp_path), CPU), 12)
    assert student.fitted.history[-1]["validation/accuracy"] > 0.9
    assert student.fitted.history[0]["validation/accuracy"] < 0.8  # it has learnt that


# ------------------------------------------------------------------ params and commands


def wanting(study: dict[str, Any]) -> dict[str, Any]:
    """A study whose student learns bits."""
    study["teachers"]["big"]["head"] = {"multichannel": {"kernel": 4, "stride": 3}}  # 16 units: 5 channels
    study["dumps"] = {"bits": {"field": "multichannel", "of": "big", "batch": 64}}
    study["students"] = {
        "pupil": {
            **study["students"]["baseline"],
            "losses": {"multichannel_bce": {}},
            "head": {"channel_outputs": {"channels": 5}},
        }
    }
    return study


def test_a_dump_of_bits_is_a_field_like_any_other(study: dict[str, Any]) -> None:
    made = parse_study(wanting(study))
    assert made.dumps["bits"].options == {"threshold": 0.5, "codec": "none"}
    assert made.students["pupil"].losses["multichannel_bce"].reads == {"target": "bits"}
    study["dumps"]["own"] = {"field": "multichannel", "of": "pupil", "codec": "zstd", "threshold": 0.25}
    study["students"]["pupil"]["losses"]["multichannel_bce"] = {"reads": "bits"}
    assert parse_study(study).dumps["own"].options == {"threshold": 0.25, "codec": "zstd"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("dumps", "bits", "threshold", 1.0), ["dumps.bits.threshold: expected less than 1, found 1.0"]),
        (("dumps", "bits", "threshold", 0.0), ["dumps.bits.threshold: expected greater than 0, found 0.0"]),
        (("dumps", "bits", "channels", 36), ["dumps.bits: unknown key 'channels'"]),
        (("dumps", "bits", "codec", "lz4"), ["dumps.bits.codec: expected 'none'", "'lz4'"]),
        (
            ("teachers", "big", "head", None),
            ["dumps.bits.of: expected a network with channels, found 'big'", "`head: {multichannel: {}}`"],
        ),
        (
            ("students", "pupil", "head", None),
            ["students.pupil.losses.multichannel_bce: expected a student with channels", "channel_outputs"],
        ),
        (
            ("students", "pupil", "losses", {"multichannel_bce": {"over_channels": "max"}}),
            ["losses.multichannel_bce.over_channels: expected 'mean' or 'sum', found 'max'"],
        ),
        (
            ("dumps", "bits", "field", "logits"),
            ["students.pupil.losses.multichannel_bce: needs a dump of field 'multichannel'"],
        ),
    ],
)
def test_mistakes_are_named(study: dict[str, Any], change: tuple[str, str, str, Any], parts: list[str]) -> None:
    section, name, key, value = change
    wanting(study)[section][name][key] = value
    if value is None:
        del study[section][name][key]
    with refused("params.yaml: ", *parts):
        parse_study(study)


def test_the_commands(run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any]) -> None:
    folder = write_study(tmp_path, wanting(study))
    for command in (
        "graph", "prepare digits", "train-teacher big", "dump-multichannel bits", "train-student pupil", "plan",
    ):  # fmt: skip
        assert run(folder, *command.split()) == 0
    assert "dump-multichannel-bits" in (folder / "dvc.yaml").read_text()
    metrics = json.loads((folder / "data/metrics/students/pupil.json").read_bytes())
    assert metrics["taught_by"] == ["big"]
    capsys.readouterr()
    assert run(folder, "cache", "inspect", "data/cache/bits", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["arrays"]["bits"]["shape"] == [1, 200, 7]
    assert 0 <= shown["facts"]["agreement_with_labels"] <= 1
    assert run(folder, "cache", "inspect", "data/cache/bits") == 0
    table = capsys.readouterr().out
    assert f"channels: 5 a class; always 0: {shown['facts']['always_zero']}, always 1: " in table
    assert f"{100 * shown['facts']['ones_per_class'][3]:.2f}" in table
    assert "entropy (bits)" in table
    assert run(folder, "cache", "convert", "data/cache/bits", "h", "--format", "hdf5", "--codec", "gzip") == 0
    assert np.array_equal(cache.open(folder / "h").load(), cache.open(folder / "data/cache/bits").load())
    assert "nothing to choose for multichannel" in refused_command(
        run, capsys, folder, "cache", "convert", "h", "i", "--dtype", "float16"
    )
    study["students"]["pupil"]["head"] = {"channel_outputs": {"channels": 6}}
    write_study(folder, study)
    message = refused_command(run, capsys, folder, "train-student", "pupil")
    assert "dump 'bits': expected 6 channels a class, as the student has, found 5" in message
    study["teachers"]["big"]["head"] = {"multichannel": {"kernel": 4, "stride": 2}}
    study["students"]["pupil"]["head"] = {"channel_outputs": {"channels": 5}}
    write_study(folder, study)
    assert "teacher.architecture.head.stride expected 2, found 3" in refused_command(
        run, capsys, folder, "train-student", "pupil"
    )


# ------------------------------------------------------------------ inspection


def test_inspection_of_bits_against_numbers_by_hand(tmp_path: Path, dataset: Dataset) -> None:
    rows = dataset.bounds[0]
    scores = np.full((rows, CLASSES, 2), -1, np.float32)
    scores[:, 0, 0] = 1  # always one
    scores[: rows // 4, 1, :] = 1  # both channels of class 1 for the first quarter
    opened = made(Scripted(scores, dataset), dataset, tmp_path)
    labels = np.zeros(rows, np.int64)
    labels[: rows // 8] = 1
    labels[-1] = 2
    facts = inspect_cache(opened, labels)["facts"]
    share = (rows // 4) / rows
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert facts["ones"] == [[1.0, 0.0], [share, share], *[[0.0, 0.0]] * 8]
    assert facts["ones_per_class"] == pytest.approx([0.5, share, *[0.0] * 8])
    assert (facts["always_zero"], facts["always_one"]) == (17, 1)
    assert facts["always_zero_per_class"] == [1, 0, *[2] * 8]
    assert facts["always_one_per_class"] == [1, *[0] * 9]
    assert facts["channel_entropy"]["mean"] == pytest.approx(2 * entropy / 20)
    assert facts["channel_entropy"]["per_class"] == pytest.approx([0.0, entropy, *[0.0] * 8])
    assert facts["chosen_per_class"] == [rows - rows // 4, rows // 4, *[0] * 8]
    wrong = rows // 4 - rows // 8 + 1
    assert facts["agreement_with_labels"] == pytest.approx(1 - wrong / rows)
    zeros = rows - rows // 8 - 1
    assert facts["agreement_per_class"] == [
        pytest.approx((zeros - wrong + 1) / zeros), 1.0, 0.0, *[None] * 7,
    ]  # fmt: skip
    assert "agreement_with_labels" not in inspect_cache(opened, None)["facts"]


def test_inspection_counts_every_view(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    views = Views("crop_flip", 2, 7, {"padding": 2})
    opened = made(teacher, dataset, tmp_path, views=views)
    labels = dataset.labels[: dataset.bounds[0]]
    facts = inspect_cache(opened, labels)["facts"]
    bits = np.unpackbits(opened.load(), axis=2, count=250).reshape(2, len(labels), 10, 25)
    assert np.allclose(facts["ones"], bits.mean((0, 1)))
    right = bits.sum(3).argmax(2) == labels
    assert facts["agreement_with_labels"] == pytest.approx(right.mean())
    assert facts["agreement_per_class"] == pytest.approx([right[:, labels == label].mean() for label in range(10)])
