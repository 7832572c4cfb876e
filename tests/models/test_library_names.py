"""Architectures of libraries: known by name without importing the library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torchvision

from pipeline.base.registry import NestedError
from pipeline.models import MODELS, library_names
from pipeline.models.library_names import list_architectures, outline_library_model
from pipeline.study.part_sections import ModelParams


def test_the_names_in_torchvisions_files_are_its_list() -> None:
    assert list_architectures("torchvision") == {*torchvision.models.list_models(module=torchvision.models)}


def test_an_absent_library_has_no_names() -> None:
    assert list_architectures("a_library_that_is_not_here") == frozenset()


def test_names_stand_below_the_decorator_that_registers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm writes them, which is not always installed."""
    models = tmp_path / "lib_of_models" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise AssertionError")
    (models / "nets.py").write_text(
        "@register_model\ndef small(pretrained=False): ...\n\n@register_model()\n@other(1)\ndef large(): ...\n\ndef no(): ..."
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list_architectures("lib_of_models") == {"small", "large"}


@pytest.mark.parametrize("name", ["resnet18", "torchvision:no_such_net", "own.module:resnet18", "timm"])
def test_of_other_names_nothing_is_said(name: str) -> None:
    assert outline_library_model(name, ()) is None


def test_an_option_of_the_architecture_asks_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outline_library_model("torchvision:vit_b_16", {"weights"}) is not None
    assert outline_library_model("torchvision:vit_b_16", {"weights", "image_size"}) is None
    made = MODELS.parse({"name": "torchvision:vit_b_16", "image_size": 32}, tag="name", base=ModelParams)
    assert made.extra_options(ModelParams)["image_size"] == 32
    with pytest.raises(NestedError, match="imagesize"):
        MODELS.parse({"name": "torchvision:vit_b_16", "imagesize": 32}, tag="name", base=ModelParams)


def test_either_way_a_model_is_written_out_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"name": "torchvision:resnet18", "norm_momentum": 0.1}
    light = MODELS.parse(value, tag="name", base=ModelParams)
    monkeypatch.setattr(library_names, "list_architectures", lambda _: frozenset())
    whole = MODELS.parse(value, tag="name", base=ModelParams)
    assert type(light) is not type(whole)
    assert light.model_dump(mode="json") == whole.model_dump(mode="json")
