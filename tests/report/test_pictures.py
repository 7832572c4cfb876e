"""The report's pictures: what they select and order, what they read, and that they are pictures."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.base.files import read_json
from pipeline.datasets.dataset import Dataset
from pipeline.fields.batches import CachedBatches
from pipeline.graph import stages as graph
from pipeline.graph.code_dependencies import find_code_paths
from pipeline.models.network import Network
from pipeline.report.pictures import from_caches
from pipeline.report.pictures.affinities import draw_affinities, sort_pairs
from pipeline.report.pictures.canvas import choose_colours, fit_class_names
from pipeline.report.pictures.dump_choice import choose_dumps
from pipeline.report.pictures.feature_map import align_map, choose_perplexity, draw_feature_map, embed_features
from pipeline.report.pictures.hints import draw_maps, draw_vectors
from pipeline.report.pictures.multichannel import draw_bits, unpack_label_bits
from pipeline.report.pictures.sample_choice import (
    choose_tile_shape,
    find_class_runs,
    select_busiest,
    select_first_of_each,
    sort_by_class,
    sort_units_by_class,
)
from pipeline.study.params_file import parse_study
from pipeline.teacher import Samples, Teacher
from pipeline.training.batches import Batch
from pipeline.views.view import PLAIN, Views
from tests import reference
from tests.conftest import ROOT, STUDY, Capture, Run, copied, refused, shell, write_study
from tests.scenes import BATCH, CNN, digits, made, teacher_of, wanted
from tests.test_house import importing

NAMES = ("zero", "one", "a class of a long name")
CPU = torch.device("cpu")


def normal(*shape: int) -> NDArray[np.float64]:
    made: NDArray[np.float64] = np.random.default_rng(0).normal(size=shape)
    return made


def pairs(n: int) -> NDArray[np.float64]:
    p = np.abs(normal(n, n))
    p += p.T
    p /= p.sum()
    return p


IMAGES = np.random.default_rng(1).integers(0, 256, (3, 3, 5, 4), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 0, 2, 1])
DRAWN: dict[str, Callable[[float], bytes]] = {
    "affinities": lambda more: draw_affinities({"P": pairs(6), "Q": pairs(6) * (1 + more)}, LABELS, NAMES),
    "maps": lambda more: draw_maps(IMAGES, normal(3, 2, 4, 4) * [[[[1 + more]]]] + more, NAMES, [3, 7]),
    "maps of positive numbers": lambda more: draw_maps(IMAGES[:, :1], np.abs(normal(3, 2, 4, 4)) ** (1 + more), NAMES, [3, 7]),
    "vectors": lambda more: draw_vectors(normal(6, 5) + more, np.sort(LABELS), NAMES),
    "multichannel": lambda more: draw_bits(IMAGES, (normal(3, 3, 4) > more).astype(np.uint8), [0, 1, 2], NAMES),
    "feature_map": lambda more: draw_feature_map({t: normal(6, 2) ** (1 + 2 * more) for t in "abc"}, LABELS, NAMES),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_numbers_give_the_same_picture_and_others_another(name: str) -> None:
    first, again, other = (DRAWN[name](more) for more in (0.0, 0.0, 1.0))
    assert first == again
    assert first != other
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
        assert len(set(picture.convert("L").tobytes())) > 10


def test_the_teacher_stands_at_the_left() -> None:
    drawn = [draw_affinities({"P": pairs(6), "Q": pairs(6) * more}, LABELS, NAMES) for more in (1, 0.1)]
    first, other = (np.asarray(Image.open(io.BytesIO(png))) for png in drawn)
    differing = (first != other).any(axis=(0, 2)).nonzero()[0]  # columns of pixels
    assert 0.5 < differing.min() / first.shape[1] < differing.max() / first.shape[1] < 0.95


def test_the_true_class_is_framed() -> None:
    bits = np.zeros((1, 3, 4), np.uint8)
    drawings = [draw_bits(IMAGES[:1], bits, [true], NAMES) for true in range(3)]
    assert len(set(drawings)) == 3


def test_the_first_of_each_class_are_taken_class_by_class() -> None:
    labels = np.array([2, 0, 2, 1, 0, 2, 0])
    assert select_first_of_each(labels, 2).tolist() == [1, 4, 3, 0, 2]
    assert select_first_of_each(np.repeat(np.arange(12), 3), 1).tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert select_first_of_each(np.array([5, 7, 5]), 1).tolist() == [0, 1]


def test_samples_are_sorted_by_class_and_keep_their_order_within_one() -> None:
    labels = np.array([1, 0, 1, 0, 2])
    order = sort_by_class(labels)
    assert order.tolist() == [1, 3, 0, 2, 4]
    assert find_class_runs(labels[order]) == [(0, 0, 2), (1, 2, 4), (2, 4, 5)]


def test_pairs_are_sorted_in_both_directions() -> None:
    matrix = np.array([[9.0, 0.1, 0.2], [0.1, 9.0, 0.0], [0.2, 0.0, 9.0]])
    found = sort_pairs(matrix, np.array([2, 0, 1]), 0.05)
    expected = [[np.nan, 0.2, 0.05], [0.2, np.nan, 0.1], [0.05, 0.1, np.nan]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0, 2] < 0.05  # beyond the scale, so that the colour bar's end stands for it


def test_the_busiest_channels_vary_most() -> None:
    values = np.zeros((2, 4, 1, 2))
    values[0, 1], values[0, 2], values[:, 3] = [3, 0], [0, 1], 100
    assert select_busiest(values, 1).tolist() == [1]
    assert select_busiest(values, 3).tolist() == [0, 1, 2]
    assert select_busiest(np.full((3, 2), 60000, np.float16), 2).tolist() == [0, 1]


def test_units_stand_by_the_class_that_they_are_strongest_for() -> None:
    rows = np.array([[1.0, 0.0, 5.0, 0.0], [1.0, 0.0, 7.0, 0.0], [0.0, 2.0, 0.0, 9.0]])
    assert sort_units_by_class(rows, np.array([0, 0, 1])).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize(("channels", "shape"), [(36, (6, 6)), (25, (5, 5)), (12, (3, 4)), (7, (1, 7)), (1, (1, 1))])
def test_tiles_are_as_square_as_their_channels_allow(channels: int, shape: tuple[int, int]) -> None:
    assert choose_tile_shape(channels) == shape


def test_bits_are_unpacked_class_by_class() -> None:
    packed = np.array([[0b10110100, 0b11000000]], np.uint8)
    assert unpack_label_bits(packed, 2, 5).tolist() == [[[1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]]


def test_scales_suit_the_signs() -> None:
    assert choose_colours(np.array([0.0, 2.0]))[0] == "viridis"
    palette, scale = choose_colours(np.array([-3.0, 1.0]))
    assert palette == "PuOr"
    assert scale.vmin == -(scale.vmax or 0) < 0
    assert fit_class_names(["a class of a long name"]) == ["a class of …"]


def test_maps_of_features_repeat_and_lie_alike() -> None:
    features = normal(40, 5)
    points = embed_features(features)
    assert points.shape == (40, 2)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    assert points.tobytes() == embed_features(features).tobytes()
    corner = np.array([[0.6, -0.8], [-0.8, -0.6]])  # turned and mirrored
    np.testing.assert_allclose(align_map(points @ corner, points), points, atol=1e-9)


@pytest.mark.parametrize("features", [np.zeros((20, 3)), normal(20, 1), np.outer(np.arange(20.0), [1, 2])])
def test_features_of_one_dimension_or_none_are_mapped_too(features: NDArray[np.float64]) -> None:
    points = embed_features(features)
    assert np.isfinite(points).all()
    assert points.tobytes() == embed_features(features).tobytes()


def test_classes_that_lie_apart_are_mapped_apart() -> None:
    labels = np.repeat(np.arange(3), 20)
    points = embed_features(np.eye(3)[labels] * 10 + normal(60, 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.eye(60) * 1e9
    assert (labels[distances.argmin(1)] == labels).all()
    assert choose_perplexity(1000) == 30
    assert choose_perplexity(10) == 3


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> Teacher:
    return teacher_of(dataset, CNN)


def network_of(dataset: Dataset, seed: int = 1) -> Network:
    return teacher_of(dataset, CNN, seed).network.members[0].eval()  # type: ignore[return-value]


@pytest.mark.parametrize("last", ["drop", "keep"])
def test_the_first_batch_is_that_of_the_training(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, last: Literal["drop", "keep"]
) -> None:
    size = 60 if last == "drop" else 1200
    options = {"batch_size": size, "perplexity": 5.0, "dtype": "float32", "last": last, "plan_seed": 3}
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", options))
    p, ids = from_caches.read_first_batch(opened)
    assert ids.tolist() == [sample for sample in opened.load("sample_ids")[0, 0].tolist() if sample >= 0]
    labels = torch.from_numpy(dataset.labels[ids])
    batch = Batch(torch.from_numpy(ids), labels, labels, labels, epoch=0, number=0)
    np.testing.assert_allclose(p, CachedBatches.from_cache(opened, CPU).target(batch).numpy(), rtol=1e-6, atol=1e-20)
    assert p.sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dof", [3.0, "infinity"])
def test_q_and_its_divergence_are_those_of_the_loss(tmp_path: Path, dataset: Dataset, dof: Any) -> None:
    network, images, p = network_of(dataset), dataset.images[:8], np.abs(normal(8, 8))
    p = (p + p.T) * (1 - np.eye(8))
    p /= p.sum()
    q, divergence = from_caches.compute_student_affinities(
        network, images, p, {"tap": "features", "dof": dof, "floor": 1e-12}
    )
    with torch.no_grad():
        features = network.forward_with_taps(torch.from_numpy(images), ["features"])[1]["features"].double().numpy()
    expected = reference.tsne(p, features, math.inf if dof == "infinity" else dof, 1e-12)
    assert divergence == pytest.approx(expected, rel=1e-5)
    apart = ~np.eye(8, dtype=bool)
    assert q[apart].sum() == pytest.approx(1)
    assert divergence == pytest.approx((p[apart] * np.log(p[apart] / q[apart])).sum(), rel=1e-5)


def test_the_caption_says_the_divergence(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", {"batch_size": 50, "perplexity": 5.0}))
    options, network = {"tap": "features", "dof": "infinity", "floor": 1e-12}, network_of(dataset)
    p, ids = from_caches.read_first_batch(opened)
    divergence = from_caches.compute_student_affinities(network, dataset.images[ids], p, options)[1]
    drawn = from_caches.draw_affinity_picture("p", opened, dataset, {"small": (network, options)}, PLAIN)
    assert drawn.name == "affinities-p.png"
    assert (
        f"(50 samples), and Q of each student's first seed; KL(P || Q) = {divergence:.3g} for small." in drawn.caption
    )


@pytest.mark.parametrize("views", [PLAIN, Views("flip", 3, 5, {"probability": 0.5})])
def test_images_are_shown_as_the_teacher_saw_them(dataset: Dataset, views: Views) -> None:
    ids = np.array([4, 0, 9, 33, 7])
    seen = torch.cat([rows[:n] for rows, n in Samples(dataset.images, 40, BATCH, views).batches(0, 0, 40, CPU)])
    shown = from_caches._view_images(dataset, ids, views)
    assert (shown == seen.numpy()[ids]).all()
    assert (shown == dataset.images[ids]).all() == views.is_identity


def test_hints_are_drawn_tap_by_tap(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "h", "hints", {"taps": ("features", "block2", "block1")}))
    drawn = from_caches.draw_hint_pictures("h", opened, dataset, PLAIN)
    assert [picture.name for picture in drawn] == ["hints-h-1.png", "hints-h-2.png", "hints-h-3.png"]
    assert [picture.caption for picture in drawn] == [
        "Hints of big at tap features: all 16 units, 100 training samples.",
        "Hints of big at tap block2: all 6 channels, as maps of 2 x 2.",
        "Hints of big at tap block1: all 4 channels, as maps of 4 x 4.",
    ]
    assert len({picture.png for picture in drawn}) == 3


def test_channels_keep_the_networks_numbers(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    some = made(teacher, dataset, wanted(tmp_path, "some", "hints", {"taps": ("block2",), "channels": (5, 2)}))
    first = made(teacher, dataset, wanted(tmp_path, "first", "hints", {"taps": ("block2",), "channels": 2}))
    assert from_caches._channel_numbers(some, 2) == [5, 2]
    assert from_caches._channel_numbers(first, 2) == [0, 1]


def test_a_few_classes_are_drawn_too(tmp_path: Path, dataset: Dataset) -> None:
    some = np.flatnonzero(dataset.labels < 2)
    few = Dataset(dataset.images[some], dataset.labels[some], (100, 150), ("0", "1"), dataset.origin[some])
    headed = teacher_of(few, {**CNN, "head": {"name": "multichannel", "kernel": 5}})
    opened = made(headed, few, wanted(tmp_path, "bits", "multichannel", {}))
    ids = [int(np.flatnonzero(few.labels == label)[0]) for label in range(2)]
    bits = np.unpackbits(opened.rows(ids), axis=1, count=24).reshape(2, 2, 12)
    true, others = bits[[0, 1], [0, 1]].mean(), bits[[0, 1], [1, 0]].mean()
    assert from_caches.draw_multichannel_picture("bits", opened, few, PLAIN).caption == (
        "Multi-channel labels of big: 12 bits a class, dark where they are one; "
        f"the true class, framed, has {100 * true:.0f} % ones in these samples, the others {100 * others:.0f} %."
    )
    hints = made(headed, few, wanted(tmp_path, "hints", "hints", {"taps": ("block1", "features")}))
    assert len(from_caches.draw_hint_pictures("hints", hints, few, PLAIN)) == 2
    network = network_of(dataset)
    drawn = from_caches.draw_feature_picture("hints", hints, few, {"small": network}, PLAIN, tap="features")
    assert "of the same 60 training samples: hints, and the first seed of small, each turned" in drawn.caption


def test_features_are_read_at_the_tap_or_else_as_logits(dataset: Dataset) -> None:
    network, images = network_of(dataset), dataset.images[:150]  # more than it is shown at a time
    with torch.no_grad():
        logits, taps = network.forward_with_taps(torch.from_numpy(images), ["features"])
    read, values = from_caches.compute_student_features(network, images, "features")
    assert read == "features"
    np.testing.assert_allclose(values, taps["features"].double().numpy(), rtol=1e-4, atol=1e-6)
    read, values = from_caches.compute_student_features(network, images, "none such")
    assert read == "logits"
    np.testing.assert_allclose(values, logits.double().numpy(), rtol=1e-4, atol=1e-6)


def test_a_strangers_numbers_are_refused(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "h", "hints", {"taps": ("features",)}))
    with pytest.raises(InputError, match="array 'features': expected finite numbers"):
        from_caches._require_finite(opened, np.array([1.0, np.inf]), "features")


def full_study() -> dict[str, Any]:
    """The tiny study with every field, and a student of each."""
    study: dict[str, Any] = copied(STUDY)
    teacher = {"model": {"name": "cnn", "widths": [4, 4, 16], "dropout": 0.0}, "epochs": 1, "batch_size": 50}
    study["teachers"]["conv"] = {**teacher, "head": {"multichannel": {"kernel": 5}}}
    study["dumps"] |= {
        "conv-hints": {"field": "hints", "of": "conv", "taps": ["block1", "features"]},
        "conv-p": {"field": "affinities", "of": "conv", "batch_size": 50, "perplexity": 8},
        "conv-bits": {"field": "multichannel", "of": "conv"},
    }
    small = {**study["students"]["baseline"], "epochs": 1, "seeds": 1}
    study["students"] = {
        "baseline": small,
        "tsne": {**small, "losses": {"ce": {}, "tsne": {"weight": 0.1, "dof": 5}}},
        "hinted": {**small, "pretrain": [{"losses": {"hint_mse": {"hint": "features"}}, "epochs": 1}]},
    }
    return study


def test_what_is_drawn() -> None:
    chosen = choose_dumps(parse_study(full_study()))
    assert {dump: dict(students) for dump, students in chosen.affinities.items()} == {
        "conv-p": {"tsne": {"tap": "features", "dof": 5.0, "floor": 1e-12}}
    }
    assert chosen.hints == ("conv-hints",)
    assert chosen.multichannel == ("conv-bits",)
    assert chosen.feature_map == "conv-hints"
    assert chosen.left_out == ()
    assert chosen.dumps == ("conv-p", "conv-hints", "conv-bits")


def test_a_study_of_logits_alone_is_not_drawn(study: dict[str, Any]) -> None:
    assert choose_dumps(parse_study(study)).dumps == ()


def test_logits_are_mapped_where_no_features_are_cached() -> None:
    study = full_study()
    del study["students"]["hinted"]
    study["dumps"]["conv-hints"]["taps"] = ["block1"]
    assert choose_dumps(parse_study(study)).feature_map == "big-logits"
    study["dumps"]["big-logits"] |= {"top_k": 3, "temperature": 2.0}
    assert choose_dumps(parse_study(study)).feature_map is None
    study["dumps"]["of-student"] = {"field": "hints", "of": "baseline"}
    assert choose_dumps(parse_study(study)).feature_map is None


def test_affinities_that_are_learnt_before_the_labels_are_drawn() -> None:
    study = full_study()
    taught = study["students"]["tsne"]
    taught |= {"losses": {"ce": {}}, "pretrain": [{"losses": {"tsne": {"dof": 2}}, "epochs": 1}]}
    assert choose_dumps(parse_study(study)).affinities["conv-p"]["tsne"]["dof"] == 2
    del study["students"]["tsne"]
    assert choose_dumps(parse_study(study)).affinities == {}


def test_many_are_drawn_in_part_and_the_report_says_so() -> None:
    study = full_study()
    study["dumps"] |= {f"bits-{n}": {"field": "multichannel", "of": "conv"} for n in range(3)}
    study["students"] |= {f"more-{n}": study["students"]["tsne"] for n in range(4)}
    chosen = choose_dumps(parse_study(study))
    assert chosen.multichannel == ("conv-bits", "bits-0", "bits-1")
    assert list(chosen.affinities["conv-p"]) == ["tsne", "more-0", "more-1"]
    assert chosen.left_out == (
        "Pictures show conv-bits, bits-0, bits-1: 3 of the 4 dumps of multi-channel labels.",
        "Pictures show tsne, more-0, more-1: 3 of the 5 students of conv-p.",
    )


def test_what_no_stage_makes_and_nobody_reads_is_not_drawn() -> None:
    study = full_study()
    study["teachers"]["away"] = {"external": "a" * 64}
    study["dumps"] = {"far": {"field": "hints", "of": "away"}, **study["dumps"]}
    study["students"]["hinted"]["pretrain"][0]["losses"] = {"hint_mse": {"hint": "features", "reads": "conv-hints"}}
    assert choose_dumps(parse_study(study)).hints == ("conv-hints",)
    study["students"]["hinted"]["pretrain"][0]["losses"]["hint_mse"]["reads"] = "far"
    assert choose_dumps(parse_study(study)).hints == ("far", "conv-hints")


def test_the_stage_depends_on_what_is_drawn(study: dict[str, Any]) -> None:
    stage = graph.compile_stages(parse_study(full_study()))[-1]
    assert {dep for dep in stage.deps if "metrics" not in dep} == {
        "data/prepared/digits", "data/cache/conv-p", "data/cache/conv-hints", "data/cache/conv-bits",
        "data/students/baseline", "data/students/tsne", "data/students/hinted",
    }  # fmt: skip
    code = set(find_code_paths(stage.modules, ROOT, ROOT))
    assert {"pipeline/models/mlp.py", "pipeline/cache", "pipeline/views/none.py", "pipeline/report"} < code
    plain = graph.compile_stages(parse_study(study))[-1]
    assert not any("cache" in dep or "prepared" in dep for dep in plain.deps)


def test_siblings_of_the_room_do_not_import_each_other() -> None:
    folder = Path(from_caches.__file__).parent
    siblings = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "canvas",
        "sample_choice",
        "dump_choice",
        "from_caches",
    }
    assert len(siblings) == 4
    for name in siblings:
        others = [f"pipeline.report.pictures.{other}" for other in siblings - {name}]
        assert not importing(
            folder / f"{name}.py",
            *others,
            "torch",
            "pipeline.study.part_sections",
            "pipeline.study.sections",
            "pipeline.cache",
        ), name
    for path in folder.glob("*.py"):
        assert not importing(path, "pipeline.teacher", "pipeline.student"), path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full study with everything made but the report, and no teacher left."""
    folder = write_study(tmp_path_factory.mktemp("whole") / "study", full_study())
    for line in (
        "prepare digits", "train-teacher big", "train-teacher conv", "dump-hints conv-hints", "dump-affinities conv-p",
        "dump-multichannel conv-bits", "train-student baseline", "train-student tsne", "train-student hinted",
    ):  # fmt: skip
        shell(folder, f"teachercache {line}")
    shutil.rmtree(folder / "data/teachers")
    return folder


NEW = [
    "feature-map-conv-hints.png", "affinities-conv-p.png", "hints-conv-hints-1.png", "hints-conv-hints-2.png",
    "multichannel-conv-bits.png",
]  # fmt: skip


def test_the_report_command_draws_every_field(run: Run, whole: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    assert run(study, "report") == 0
    folder = study / "data/report"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    own = ["accuracy.png", "pareto.png", "curves.png"]
    assert set(first) == {*own, "report.html", "report.md", "statistics.json", *NEW}
    markdown, page = first["report.md"].decode(), first["report.html"].decode()
    assert [line.partition("](")[2][:-1] for line in markdown.splitlines() if line.startswith("![")] == own + NEW
    assert page.count("<figcaption>") == markdown.count("\n*") == len(NEW) + 1
    assert page.count("data:image/png;base64,") == len(NEW) + 3
    assert "| student hinted | hint_mse (hint features), then 1.0 ce |" in markdown
    assert "KL(P || Q) = " in markdown
    assert "12 bits a class" in markdown
    assert "the first seed of baseline, " in markdown
    assert run(study, "report") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_a_cache_that_is_missing_or_another_is_refused(run: Run, whole: Path, tmp_path: Path, capsys: Capture) -> None:
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    changed = full_study()
    changed["dumps"]["conv-p"]["perplexity"] = 9
    write_study(study, changed)
    assert "perplexity" in refused(run, capsys, study, "report")
    write_study(study, full_study())
    shutil.rmtree(study / "data/cache/conv-bits")
    assert "run `teachercache dump-multichannel conv-bits`" in refused(run, capsys, study, "report")
    assert not (study / "data/report").exists()


def test_metrics_say_the_phases_that_the_report_shows(whole: Path) -> None:
    metrics = read_json(whole / "data/metrics/students/hinted.json", "")
    assert metrics["pretrain"] == [{"hint_mse": {"weight": 1.0, "options": {"hint": "features"}}}]
