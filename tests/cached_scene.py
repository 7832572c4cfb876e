"""Caches of every kind, opened, and recipes that read them: what trainings in different ways are compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import cache
from pipeline.datasets.dataset import Dataset, load_dataset, save_dataset
from pipeline.fields import load_field
from pipeline.losses.recipe import Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.student_phase import CachedField
from pipeline.training.rows import Splits
from pipeline.views.view import PLAIN, Views
from tests.scenes import CNN, CPU, digits, made, teacher_of, wanted

N = 30
CHANNELS = 16
VIEWS = Views("crop_flip", 3, 5, {"padding": 1})
DRAWN = replace(VIEWS, order="draw")
STUDENT = {"name": "mlp", "widths": [12], "dropout": 0.2}
DUMPS: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("logits", {"dtype": "float16"}),
    "exact": ("logits", {"dtype": "float32"}),
    "brain": ("logits", {"dtype": "bfloat16"}),
    "packed": ("logits", {"dtype": "float32", "codec": "zstd"}),
    "top": ("logits", {"dtype": "float16", "top_k": 3, "temperature": 2.0}),
    "hints": ("hints", {"taps": ["features"], "dtype": "float16"}),
    "bits": ("multichannel", {}),
    "p": ("affinities", {"batch_size": N, "perplexity": 8.0, "dtype": "float32", "plans": 2}),
    "short": ("affinities", {"batch_size": N, "perplexity": 8.0, "dtype": "float16", "last": "keep"}),
}


@dataclass(frozen=True)
class Scene:
    """Prepared data on disk, and opened caches, of one view and of several."""

    dataset: Dataset
    caches: Mapping[str, cache.Cache]

    def splits(self, streamed: bool) -> Splits:
        return Splits.from_dataset(self.dataset, CPU, streamed=streamed)

    def fields(self, streamed: bool, *names: str) -> dict[str, CachedField]:
        return {name: load_field(self.caches[name], CPU, streamed=streamed) for name in names}


def make_scene(folder: Path) -> Scene:
    """The digits and all of DUMPS, in a folder."""
    save_dataset(digits(), folder / "digits")
    dataset = load_dataset(folder / "digits", resident=False)
    headed = {"name": "mlp", "widths": [20], "head": {"name": "multichannel"}}
    plain, channels = teacher_of(dataset, CNN), teacher_of(dataset, headed)
    caches = {}
    for name, (field, options) in DUMPS.items():
        teacher = channels if field == "multichannel" else plain
        caches[name] = made(
            teacher, dataset, wanted(folder, name, field, options, "hdf5" if name == "exact" else "zarr")
        )
    for name in ("logits", "top", "hints"):
        field, options = DUMPS[name]
        caches[f"{name}-views"] = made(plain, dataset, wanted(folder, f"{name}-views", field, options), VIEWS)
    return Scene(dataset, caches)


def term(loss: str, dumps: Any = None, **options: Any) -> Term:
    return Term(loss, steady(1, value=0.5), options, dumps)


CE = term("ce")
HINT = partial(term, "hint_mse", tap="features", hint=None)
CASES: dict[str, tuple[tuple[Term, ...], Views, dict[str, Any]]] = {
    "no field": ((CE,), PLAIN, {}),
    "fp16 logits": ((CE, term("soft_targets", "logits", temperature=4.0)), PLAIN, {}),
    "fp32 logits of hdf5": ((term("logits_mse", "exact"),), PLAIN, {}),
    "bf16 logits": ((term("logits_mse", "brain"),), PLAIN, {}),
    "compressed": ((term("logits_mse", "packed"),), PLAIN, {}),
    "top-k": ((term("soft_targets", "top", temperature=2.0),), PLAIN, {}),
    "hints": ((CE, HINT("hints")), PLAIN, {}),
    "several": ((CE, term("soft_targets", "logits", temperature=4.0), HINT("hints")), PLAIN, {"drop_last": True}),
    "affinities": ((CE, term("tsne", "p", tap="features", dof=1.0)), PLAIN, {"batch_size": N}),
    "a short batch": ((CE, term("tsne", "short", tap="features", dof="infinity")), PLAIN, {"batch_size": N}),
    "affinities and rows": ((term("tsne", "p", tap="features"), HINT("hints")), PLAIN, {"batch_size": N}),
    "views": ((CE, term("soft_targets", "logits-views", temperature=4.0)), VIEWS, {}),
    "drawn views": ((CE, term("soft_targets", "top-views", temperature=2.0), HINT("hints-views")), DRAWN, {}),
    "one view for all": ((term("logits_mse", "exact"),), VIEWS, {}),
    "half an epoch": ((CE, HINT("hints")), PLAIN, {"epochs": None, "steps": 35}),
    "large batches": ((CE, HINT("hints")), PLAIN, {"batch_size": 1000}),
}
