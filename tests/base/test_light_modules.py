"""What parts say of themselves without their libraries is what they say with them."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.base import light_modules
from pipeline.base.light_modules import LightModule, read_module, read_outline
from pipeline.base.registry import Registry, Section, create_options_section
from pipeline.datasets import SOURCES
from pipeline.dumps import FIELDS
from pipeline.losses import TERMS
from pipeline.losses.weights import SCHEDULES
from pipeline.models import MODELS
from pipeline.models.heads import HEADS
from pipeline.training.registries import LR_SCHEDULES, OPTIMIZERS, ORDERS
from pipeline.views import POLICIES

REGISTRIES = (SOURCES, FIELDS, TERMS, SCHEDULES, MODELS, HEADS, LR_SCHEDULES, OPTIMIZERS, ORDERS, POLICIES)
PARTS = [(registry, name) for registry in REGISTRIES for name in registry.entries]

MODULE = '''"""A part with a heavy library."""

from __future__ import annotations

import absent_library
from absent_library import Tensor

from pipeline.base.registry import Section, UNSET as LATER

READS = "logits"
LIMIT = len(READS) + 1
BROKEN = absent_library.constant


class Choice(Section):
    """Of options."""


def taps(options, more=LIMIT):
    return (options["tap"], *_others(more))


def _others(more: int) -> list[str]:
    return [READS] * more if more else taps({}, 0)


def part(outputs: Tensor, *, width: int = LIMIT, tap: str | None = None) -> Tensor:
    """What it does."""
    return absent_library.run(outputs, width)
'''


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module above, as if it were one of ours that nobody has imported."""
    (tmp_path / "light_part.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(light_modules, "OURS", "light_")
    yield "light_part"
    light_modules._open_module.cache_clear()
    read_outline.cache_clear()
    assert "light_part" not in sys.modules


def describe_options(function: Callable[..., Any]) -> dict[str, str]:
    """What each option may be; of its validators the names, since a function is another one when it is defined again."""
    fields = create_options_section(function, Section).model_fields
    return {key: re.sub(r" at 0x\w+", "", repr(field)) for key, field in fields.items()}


@pytest.mark.parametrize(("registry", "name"), PARTS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_outline_has_the_options_of_the_whole_function(registry: Registry, name: str) -> None:
    module, _, function = registry.entries[name].partition(":")
    whole = registry.import_function(name)
    outline = LightModule(module).outline(function)
    assert outline is not whole
    assert outline.__doc__ == whole.__doc__
    assert describe_options(outline) == describe_options(whole)


@pytest.mark.parametrize("registry", [TERMS, FIELDS], ids=lambda registry: registry.kind)
def test_what_hooks_read_is_the_same_without_the_module(registry: Registry) -> None:
    names = ("READS", "PEERS", "NEEDS_HEAD", "DERIVED")
    for name, path in registry.entries.items():
        light, whole = LightModule(path.partition(":")[0]), registry.import_part(name)
        for each in names:
            found, expected = (getattr(module, each, None) for module in (light, whole))
            if callable(found) and callable(expected):
                assert inspect.getsource(found) == inspect.getsource(expected), (name, each)
            else:
                assert found == expected, (name, each)


def test_only_what_is_asked_for_runs(part: str) -> None:
    module: Any = read_module(part)
    assert isinstance(module, LightModule)
    assert module.READS == "logits"
    assert module.LIMIT == 7
    assert module.taps({"tap": "features"}, 2) == ("features", "logits", "logits")
    with pytest.raises(ModuleNotFoundError, match="absent_library"):
        _ = module.BROKEN
    with pytest.raises(ModuleNotFoundError, match="absent_library"):  # a class is imported with its module
        _ = module.Choice
    assert getattr(module, "missing", None) is None


def test_an_outline_needs_neither_the_body_nor_what_is_no_option(part: str) -> None:
    outline = read_outline(f"{part}:part")
    assert outline.__doc__ == "What it does."
    assert create_options_section(outline, Section)(tap="x").model_dump() == {"width": 7, "tap": "x"}


def test_a_module_that_is_imported_is_taken_as_it_is() -> None:
    module = importlib.import_module("pipeline.losses.tsne")
    assert isinstance(read_module("pipeline.losses.tsne"), ModuleType)
    assert read_module("pipeline.losses.tsne") is module


STUDY = """
datasets: {digits: {source: digits}}
views: {policy: crop_flip, padding: 1, count: 2}
teachers:
  big: {model: {name: mlp, widths: [8]}, epochs: 1, optimizer: {name: sgd, momentum: 0.9, nesterov: true}}
  resnet: {model: {name: "torchvision:resnet18", norm_momentum: 0.1}, epochs: 1, lr_schedule: {name: step, every: 2}}
dumps:
  logits: {field: logits, of: big}
  hints: {field: hints, of: big, taps: [features]}
  affinities: {field: affinities, of: big, batch_size: 32, perplexity: 5.0}
students:
  first: {model: {name: cnn, widths: [4, 4, 4]}, binary: xnor, order: blocks, epochs: 1, losses: {ce: {}, hint_mse: {}}}
  second: {model: {name: cnn, widths: [4, 4, 4]}, epochs: 1, batch_size: 32, init: first, losses: {soft_targets: {}, tsne: {}}}
"""


def test_a_graph_is_compiled_without_any_of_the_heavy_libraries(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(STUDY)
    code = (
        "import sys; from pipeline import runs; runs.compile_graph(runs.open_study('params.yaml'));"
        "print(*sorted({'torch', 'torchvision', 'timm', 'numba', 'scipy', 'sklearn', 'matplotlib', 'dvc', 'dvclive',"
        "'pandas', 'h5py'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert "train-student-second" in (tmp_path / "dvc.yaml").read_text()
