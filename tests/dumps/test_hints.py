"""Hints: the cache holds what the network's taps say, or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.models.network import Network
from pipeline.teacher import Ensemble, Teacher
from pipeline.views.view import Views
from tests.conftest import Capture, Run, refused, write_study
from tests.scenes import CNN, CPU, activations, digits, made, teacher_of, wanted


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_several_taps_are_held_bit_for_bit(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, store: Literal["zarr", "hdf5"]
) -> None:
    options = {"taps": ("block1", "block2", "features"), "dtype": "float32", "codec": "gzip"}
    opened = made(teacher, dataset, wanted(tmp_path, "hints", "hints", options, store))
    shapes = {name: tuple(array.shape) for name, array in opened.manifest.arrays.items()}
    rows = dataset.bounds[0]
    assert shapes == {"block1": (1, rows, 4, 4, 4), "block2": (1, rows, 6, 2, 2), "features": (1, rows, 16)}
    for tap in options["taps"]:
        assert opened.load(tap)[0].tobytes() == activations(teacher, dataset, tap).tobytes()
    assert np.ptp(opened.load("features")) > 0


def test_float16_rounds_to_nearest(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "hints", "hints", {"taps": ("features",)}))
    assert opened.manifest.arrays["features"].codec == "zstd"
    assert opened.load().tobytes() == activations(teacher, dataset, "features").astype(np.float16)[None].tobytes()


def test_each_view_has_its_own_hints(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    views = Views("crop_flip", 3, 5, {"padding": 1})
    opened = made(teacher, dataset, wanted(tmp_path, "hints", "hints", {"dtype": "float32"}), views)
    for view in range(3):
        assert opened.load()[view].tobytes() == activations(teacher, dataset, "features", view, views).tobytes()
    assert not np.array_equal(opened.load()[0], opened.load()[1])


def test_pooling_and_channels(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    exact = activations(teacher, dataset, "block1")

    def held(name: str, **options: Any) -> NDArray[Any]:
        given = {"taps": ("block1", "features"), "dtype": "float32", **options}
        opened = made(teacher, dataset, wanted(tmp_path, name, "hints", given))
        values: NDArray[Any] = opened.load("block1")[0]
        return values

    assert np.allclose(held("a", pool="global"), exact.mean((2, 3)), atol=1e-6)
    squares = exact.reshape(-1, 4, 2, 2, 2, 2).mean((3, 5))
    assert np.allclose(held("b", pool=2), squares, atol=1e-6)
    assert np.array_equal(held("c", channels=3), exact[:, :3])
    assert np.array_equal(held("d", channels=(3, 1)), exact[:, [3, 1]])
    with pytest.raises(InputError, match=r"tap 'block1': channels: expected 0\.\.3, found 4"):
        held("e", channels=(4,))
    with pytest.raises(InputError, match="tap 'block1': pool: expected at most 4"):
        held("f", pool=5)


def test_overflow_names_tap_and_sample(tmp_path: Path, dataset: Dataset) -> None:
    loud = teacher_of(dataset, CNN)
    (network,) = loud.network.members
    with torch.no_grad():
        layer = network.body.fc  # type: ignore[union-attr]
        layer.weight.mul_(1e6)  # type: ignore[union-attr, operator]
    exact = activations(loud, dataset, "features")
    first = int(np.flatnonzero((np.abs(exact) >= 65520).any(1))[0])
    with pytest.raises(InputError, match=rf"hint 'features' of 'big' for sample {first}: .*dtype: float32"):
        made(loud, dataset, wanted(tmp_path, "hints", "hints", {}))
    assert not (tmp_path / "hints").exists()
    opened = made(loud, dataset, wanted(tmp_path, "wide", "hints", {"dtype": "float32"}))
    assert opened.load()[0].tobytes() == exact.tobytes()


@pytest.mark.parametrize("value", [65519.0, 65520.0, -65520.0, float("inf"), float("nan")])
def test_the_limit_of_float16_is_exact(tmp_path: Path, dataset: Dataset, value: float) -> None:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 10), value) + 0 * images.sum()

    loud = teacher_of(dataset, CNN)
    loud.network.members[0].body.add_module("logits", Constant())  # type: ignore[union-attr]
    each = wanted(tmp_path, "hints", "hints", {"taps": ("logits",)})
    if value == 65519.0:
        assert (made(loud, dataset, each).load() == 65504).all()
        return
    with pytest.raises(InputError, match=r"sample 0: expected finite float16 numbers, found (65520|NaN or inf)"):
        made(loud, dataset, each)


def test_any_module_path_of_torchvision(tmp_path: Path) -> None:
    tiny = digits()
    few = Dataset(tiny.images[:60], tiny.labels[:60], (40, 50), tiny.classes, np.arange(60), "few")
    resnet = teacher_of(few, {"name": "torchvision:resnet18"})
    opened = made(
        resnet, few, wanted(tmp_path, "hints", "hints", {"taps": ("layer1.1", "avgpool"), "dtype": "float32"})
    )
    assert {name: tuple(array.shape) for name, array in opened.manifest.arrays.items()} == {
        "layer1.1": (1, 40, 64, 2, 2), "avgpool": (1, 40, 512, 1, 1),
    }  # fmt: skip
    assert opened.load("layer1.1")[0].tobytes() == activations(resnet, few, "layer1.1").tobytes()
    with pytest.raises(InputError, match="unknown tap 'layer9'"):
        made(resnet, few, wanted(tmp_path, "none", "hints", {"taps": ("layer9",)}))


def test_an_ensemble_has_no_taps(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    both = Teacher(Ensemble([*teacher.network.members] * 2), teacher.card, CPU)
    with pytest.raises(InputError, match="tap 'features': expected one network, found an ensemble of 2"):
        made(both, dataset, wanted(tmp_path, "hints", "hints", {}))


REFUSED = [
    ({"taps": ["features", "features"]}, "dumps.h: taps: expected each once, found 'features' 2 times"),
    ({"taps": []}, "dumps.h: taps: expected at least one, such as [features]"),
    ({"taps": ["_private"]}, "dumps.h: taps: expected names that an array can have"),
    ({"pool": "globl"}, "dumps.h.pool: expected the side of a square, from 1, or global, found 'globl'"),
    ({"channels": [1, 1]}, "dumps.h.channels: expected a number from 1, or a list of different numbers from 0"),
    ({"taps": ["pixels"]}, "dumps.h: taps: expected activations"),
    ({"pool": 0}, "dumps.h.pool"),
    ({"dtype": "bfloat16"}, "dumps.h.dtype: expected 'float16' or 'float32', found 'bfloat16'"),
    ({"codec": "zstd", "format": "hdf5"}, "dumps.h.codec: expected one of none, gzip for hdf5, found 'zstd'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_mistakes_are_refused(
    run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    study["dumps"]["h"] = {"field": "hints", "of": "big", **options}
    assert message in refused(run, capsys, write_study(tmp_path, study), "graph")


def test_the_studys_formats_are_taken_where_they_fit(
    run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any]
) -> None:
    from pipeline.study.params_file import parse_study

    study["dumps"]["h"] = {"field": "hints", "of": "big"}
    study["cache"] = {"format": "hdf5", "dtype": "float32"}
    spec = parse_study(study).dumps["h"]
    assert spec.options["codec"] == "gzip"
    assert spec.options["dtype"] == "float32"
    study["cache"]["dtype"] = "bfloat16"
    line = refused(run, capsys, write_study(tmp_path, study), "graph")
    assert "dumps.h.dtype: expected 'float16' or 'float32', found 'bfloat16' (from cache.dtype)" in line


def test_a_tap_that_a_network_lacks_is_refused_before_it_is_trained(
    run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any]
) -> None:
    study["dumps"]["h"] = {"field": "hints", "of": "big", "taps": ["hidden1", "hiden2"]}
    study["students"]["hinted"] = {
        **study["students"]["baseline"],
        "pretrain": [{"losses": {"hint_mse": {"tap": "block1", "hint": "hidden1"}}, "epochs": 1}],
    }
    folder = write_study(tmp_path, study)
    assert run(folder, "prepare", "digits") == 0
    line = refused(run, capsys, folder, "train-teacher", "big")
    assert "params.yaml: dumps.h: unknown tap 'hiden2': expected one of " in line
    assert not (folder / "data/teachers").exists()
    line = refused(run, capsys, folder, "train-student", "hinted")
    assert "params.yaml: students.hinted: loss hint_mse: unknown tap 'block1'" in line


class Windows(nn.Module):
    """Four windows an image, mixed by a module that sees windows in the place of images."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 5)
        self.unused = nn.Linear(2, 2)
        self.out = nn.Linear(20, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        windows = images.reshape(-1, 16)
        mixed: torch.Tensor = self.out(self.mix(windows).reshape(len(images), -1))
        return mixed


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("mix", r"tap 'mix': expected a row for each of 2 images, found shape \(8, 5\)"),
        ("unused", "tap 'unused': expected a module that a pass calls, found one that it does not"),
    ],
)
@pytest.mark.parametrize("field", ["hints", "affinities"])
def test_a_tap_that_has_no_row_for_each_image_is_refused(
    tmp_path: Path, dataset: Dataset, field: str, tap: str, message: str
) -> None:
    strange = teacher_of(dataset, CNN)
    strange.network.members[0] = Network(Windows())
    options = {"taps": (tap,)} if field == "hints" else {"tap": tap, "batch_size": 30, "perplexity": 5.0}
    with pytest.raises(InputError, match=message):
        made(strange, dataset, wanted(tmp_path, "h", field, options))


def test_pooling_needs_a_map(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    with pytest.raises(InputError, match=r"pool: expected a tap with maps \(C, H, W\), found none among features"):
        made(teacher, dataset, wanted(tmp_path, "h", "hints", {"pool": 2}))


def test_convert_keeps_to_the_fields_formats(
    run: Run, capsys: Capture, tmp_path: Path, dataset: Dataset, teacher: Teacher
) -> None:
    made(teacher, dataset, wanted(tmp_path, "h", "hints", {"dtype": "float32"}))
    line = refused(run, capsys, tmp_path, "cache", "convert", "h", "other", "--dtype", "bfloat16")
    assert "--dtype of field hints: expected 'float16' or 'float32', found 'bfloat16'" in line
    assert run(tmp_path, "cache", "convert", "h", "half", "--dtype", "float16", "--format", "hdf5") == 0
    assert run(tmp_path, "cache", "inspect", "half") == 0
    assert "features" in capsys.readouterr().out


def test_a_strangers_parameters_end_in_one_line(
    run: Run, capsys: Capture, tmp_path: Path, dataset: Dataset, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.dumps import dump_fields as room

    monkeypatch.setattr(room, "select_decisive", lambda _: {})
    made(teacher, dataset, wanted(tmp_path, "h", "hints", {}))
    line = refused(run, capsys, tmp_path, "cache", "inspect", "h")
    assert "parameters of field hints: expected those of a dump" in line


@pytest.mark.parametrize("options", [{"pool": 2, "channels": [0, 2]}, {"pool": "global", "channels": 3}, {}])
def test_options_are_written_out_as_they_were_given(study: dict[str, Any], options: dict[str, Any]) -> None:
    from pipeline.study.params_file import parse_study

    study["dumps"]["h"] = {"field": "hints", "of": "big", **options}
    written = parse_study(study).dumps["h"].model_dump(mode="json")
    assert {key: written[key] for key in options} == options
