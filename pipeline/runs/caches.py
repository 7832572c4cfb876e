"""The caches that a study configures, opened as exactly what params.yaml describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.base.expected_values import ANYTHING, differences
from pipeline.cache import Cache
from pipeline.cache.manifest import Manifest
from pipeline.cache.reader import refuse_mismatch
from pipeline.cache.root_pins import refuse_other_root, split_pin
from pipeline.cache.url_systems import hide_password
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.field import EXTERNAL, select_decisive
from pipeline.dumps.hooks import count_rows, list_derived_parameters, needs_head, plan_arrays, select_plan_options
from pipeline.models.heads import CHANNELS
from pipeline.models.network import Network
from pipeline.runs.networks import describe_architecture, recorded_weights
from pipeline.runs.pinned_caches import fetch_pinned
from pipeline.study.dump_stages import find_dump_stage
from pipeline.study.layout import Layout
from pipeline.study.part_sections import DumpParams, ForwardParams
from pipeline.study.sections import Study


def open_dump(study: Study, dump: str, dataset: Dataset) -> Cache:
    """The cache of a configured dump, refused unless it is exactly what params.yaml describes.

    The teacher itself is not looked at: it need not be there. Where its metrics file is (git
    keeps it), the weights it names must be those that made the cache.
    """
    spec = study.dumps[dump]
    expect = {
        "field.name": spec.field,
        "field.parameters": expected_parameters(spec),
        **_expected_rows(study, spec, dataset),
    }
    if spec.at is None:
        expect |= _expected_network(study, spec)
        opened = cache.open(Layout(Path()).cache(dump), expect, fix=_how_to_make(study, dump))
        _refuse_other_forward(opened, spec)
    else:
        opened = _open_pinned(spec.at, expect, study.teachers[spec.of].external)
    parameters = opened.manifest.field.parameters
    opened.refuse_other_arrays(plan_arrays(spec.field, parameters, len(dataset.classes)))
    return opened


def _open_pinned(url: str, expect: Mapping[str, Any], weights: str | None) -> Cache:
    """The cache at a URL that is pinned: how it was computed and stored is its own, what it says is checked as ever."""
    of_it = {key: value for key, value in expect.items() if key not in ("batch", "store")}
    folder = fetch_pinned(url)
    fix, shown = f"delete {folder}, and it is fetched again", hide_password(url)
    opened = cache.open(folder, fix=fix)
    refuse_other_root(folder.name, opened.manifest, split_pin(url)[1], fix)
    of_it["teacher.weights_sha256"] = weights
    refuse_mismatch(shown, opened.manifest, of_it, f"see `teachercache cache inspect {shown}`")
    return opened


def read_forward(manifest: Manifest) -> dict[str, Any]:
    """How a cache's network was computed, as `ForwardParams`; one that does not say was computed as by default."""
    computed = manifest.computed
    return ForwardParams().model_dump() if computed is None else computed.model_dump(exclude={"device"})


def _refuse_other_forward(opened: Cache, spec: DumpParams) -> None:
    for key, wanted, found in differences(spec.forward.model_dump(), read_forward(opened.manifest)):
        raise InputError(
            f"cache {opened.folder.name} was computed otherwise: forward.{key}",
            expected=str(wanted),
            found=str(found),
            fix=opened.fix,
        )


def expected_parameters(spec: DumpParams) -> dict[str, Any]:
    """What a manifest says of a dump's field: its options, and whatever the network decides."""
    return {**select_decisive(spec.options), **dict.fromkeys(list_derived_parameters(spec.field), ANYTHING)}


def _expected_network(study: Study, spec: DumpParams) -> dict[str, Any]:
    """What a manifest says of the network that was dumped."""
    teacher = study.teachers.get(spec.of)
    if teacher is None:
        architecture = describe_architecture(study.students[spec.of])
        weights, seed = recorded_weights(study, "student", spec.of, spec.of_seed), spec.of_seed
    elif teacher.external is not None:
        architecture, weights, seed = dict(EXTERNAL), teacher.external, None
    else:
        architecture, weights, seed = describe_architecture(teacher), recorded_weights(study, "teacher", spec.of), None
    named = {"name": spec.of, "architecture": architecture, "weights_sha256": weights, "seed": seed}
    return {f"teacher.{key}": value for key, value in named.items()}


def _expected_rows(study: Study, spec: DumpParams, dataset: Dataset) -> dict[str, Any]:
    """What a manifest says of the data set, the views and the store."""
    samples = dataset.bounds[0] if spec.samples == "train" else len(dataset)
    return {
        "dataset.fingerprint": dataset.fingerprint,
        "dataset.classes": list(dataset.classes),
        "dataset.samples": len(dataset),
        "dataset.bounds": list(dataset.bounds),
        "axes": "plan, batch" if select_plan_options(spec.field, spec.options) else "view, sample",
        "views": study.views.views().parameters,
        "rows": count_rows(spec.field, spec.options, samples),
        "batch": spec.batch,
        "store": spec.format,
    }


def _how_to_make(study: Study, dump: str) -> str:
    spec, layout = study.dumps[dump], Layout(Path())
    if spec.of in study.teachers and study.teachers[spec.of].external is not None:
        return f"make it with `teachercache cache create {layout.cache(dump)}`"
    return layout.how_to_make(find_dump_stage(study, dump).name, f"dump-{spec.field} {dump}")


@torch.no_grad()
def refuse_other_channels(network: Network, caches: Mapping[str, Cache], dataset: Dataset) -> None:
    """Raise InputError unless a student has as many channels a class as the channel labels that it learns.

    Rows of equally many bytes may hold other numbers of channels, so the bytes alone do not tell.
    """
    learnt = {name: each.manifest.field for name, each in caches.items() if needs_head(each.manifest.field.name)}
    if not learnt:
        return
    scores = network.forward_with_taps(torch.zeros((2, *dataset.shape), dtype=torch.uint8), [CHANNELS])[1][CHANNELS]
    for name, field in learnt.items():
        if field.parameters["channels"] != scores.shape[2]:
            raise InputError(
                f"dump {name!r}",
                expected=f"{scores.shape[2]} channels a class, as the student has",
                found=str(field.parameters["channels"]),
                fix="give both as many: `head: {channel_outputs: {channels: K}}`",
            )
