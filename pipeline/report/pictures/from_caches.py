"""From opened caches, data sets and students to the report's pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.cache import Cache
from pipeline.datasets.dataset import Dataset
from pipeline.fields.batches import CachedBatches
from pipeline.losses.outputs import Outputs
from pipeline.losses.tsne import log_affinities, tsne
from pipeline.models.network import Network
from pipeline.report.figures.style import fit_names
from pipeline.report.pictures.affinities import draw_affinities
from pipeline.report.pictures.canvas import Picture
from pipeline.report.pictures.feature_map import align_map, choose_perplexity, draw_feature_map, embed_features
from pipeline.report.pictures.hints import draw_maps, draw_vectors
from pipeline.report.pictures.multichannel import draw_bits, unpack_label_bits
from pipeline.report.pictures.sample_choice import select_busiest, select_first_of_each, sort_units_by_class
from pipeline.views.view import Views

ROWS = 6  # samples in a picture that shows images
CHANNELS = 6  # of maps
UNITS = 256  # of vectors
TAPS = 3  # of a dump
OF_A_CLASS = 10  # samples, where they are rows of a heat map
MAPPED_OF_A_CLASS = 30  # samples, where they are dots
PIECE = 64  # images that a student answers for at a time


def draw_affinity_picture(
    name: str,
    cache: Cache,
    dataset: Dataset,
    students: Mapping[str, tuple[Network, Mapping[str, Any]]],
    views: Views,
) -> Picture:
    """The first batch of a dump of affinities: P, and the Q of students.

    Args:
        name: of the dump.
        cache: of field affinities.
        dataset: that it is of.
        students: by name, each network and the options of its loss `tsne`.
        views: the augmentation; affinities are of view 0.
    """
    p, ids = read_first_batch(cache)
    images, labels = _view_images(dataset, ids, views), dataset.labels[ids]
    teacher = cache.manifest.teacher.name
    panels, learnt = {f"teacher {fit_names([teacher])[0]}: P": p}, []
    for shown, (student, (network, options)) in zip(fit_names(list(students)), students.items(), strict=True):
        q, divergence = compute_student_affinities(network, images, p, options)
        (tap,) = fit_names([options["tap"]])
        panels[f"student {shown}: Q of tap {tap},\ndof {options['dof']}, KL(P || Q) = {divergence:.3g}"] = q
        learnt.append(f"{divergence:.3g} for {student}")
    caption = (
        f"Affinities of {name}: P of {teacher} in the plan's first batch ({len(ids)} samples), "
        f"and Q of each student's first seed; KL(P || Q) = {', '.join(learnt)}."
    )
    return Picture(f"affinities-{name}.png", caption, draw_affinities(panels, labels, dataset.classes))


def read_first_batch(cache: Cache) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """P (n, n) of the first batch of the first plan, and its sample ids (n,)."""
    field = CachedBatches.from_cache(cache, torch.device("cpu"))
    ids = field.plans[0, 0].numpy()
    ids = ids[ids >= 0]
    return field.matrix(0, 0, len(ids)).double().numpy(), ids


def compute_student_affinities(
    network: Network, images: NDArray[np.uint8], p: NDArray[np.float64], options: Mapping[str, Any]
) -> tuple[NDArray[np.float64], float]:
    """A student's Q (n, n) of images (n, C, H, W), and the KL(P || Q) that its loss has for them.

    Args:
        network: in evaluation mode.
        images: of the batch.
        p: (n, n).
        options: of the loss `tsne`.
    """
    features = _run_network(network, images, options["tap"])
    outputs = Outputs(features, torch.zeros(len(images), dtype=torch.int64), {options["tap"]: features})
    divergence = float(tsne(outputs, torch.from_numpy(p), **options))
    dof = math.inf if options["dof"] == "infinity" else options["dof"]
    return log_affinities(features, dof).exp().double().numpy(), divergence


def draw_hint_pictures(name: str, cache: Cache, dataset: Dataset, views: Views) -> list[Picture]:
    """A picture of each of a dump's first taps."""
    taps = cache.manifest.field.parameters["taps"][:TAPS]
    return [
        _draw_hint_picture(f"hints-{name}-{number}.png", tap, cache, dataset, views)
        for number, tap in enumerate(taps, start=1)
    ]


def _draw_hint_picture(file: str, tap: str, cache: Cache, dataset: Dataset, views: Views) -> Picture:
    ids = select_first_of_each(_training_labels(dataset), OF_A_CLASS)
    labels = dataset.labels[ids]
    values = _require_finite(cache, cache.rows(ids, array=tap), tap)
    what = f"Hints of {cache.manifest.teacher.name} at tap {tap}"
    if values.ndim != 4:
        flat = values.reshape(len(values), -1)
        most = select_busiest(flat, UNITS)
        drawn = flat[:, most][:, sort_units_by_class(flat[:, most], labels)]
        caption = f"{what}: {_describe_share(len(most), flat.shape[1], 'units')}, {len(ids)} training samples."
        return Picture(file, caption, draw_vectors(drawn, labels, dataset.classes))
    most, rows = select_busiest(values, CHANNELS), _select_one_of_each(labels)
    share = _describe_share(len(most), values.shape[1], "channels")
    caption = f"{what}: {share}, as maps of {values.shape[2]} x {values.shape[3]}."
    names = [dataset.classes[label] for label in labels[rows]]
    channels = [_channel_numbers(cache, values.shape[1])[channel] for channel in most]
    return Picture(
        file, caption, draw_maps(_view_images(dataset, ids[rows], views), values[rows][:, most], names, channels)
    )


def draw_multichannel_picture(name: str, cache: Cache, dataset: Dataset, views: Views) -> Picture:
    """The bits of a few samples, of the first ten classes."""
    channels = cache.manifest.field.parameters["channels"]
    ids = select_first_of_each(_training_labels(dataset), 1)
    classes = dataset.labels[ids]
    bits = unpack_label_bits(cache.rows(ids), len(dataset.classes), channels)[:, classes]  # (n, classes shown, K)
    own = np.eye(len(ids), dtype=bool)
    caption = (
        f"Multi-channel labels of {cache.manifest.teacher.name}: {channels} bits a class, dark where they are one; "
        f"the true class, framed, has {_format_mean(bits[own])} ones in these samples, "
        f"the others {_format_mean(bits[~own])}."
    )
    names = [dataset.classes[label] for label in classes]
    images = _view_images(dataset, ids[:ROWS], views)
    return Picture(f"multichannel-{name}.png", caption, draw_bits(images, bits[:ROWS], range(len(images)), names))


def draw_feature_picture(
    name: str, cache: Cache, dataset: Dataset, students: Mapping[str, Network], views: Views, *, tap: str
) -> Picture:
    """Maps of the teacher's features and the students', for the same samples.

    Args:
        name: of the dump.
        cache: of field hints or logits.
        dataset: that it is of.
        students: by name.
        views: the augmentation; features are of view 0.
        tap: of the features; of a dump without it the logits are drawn, and of a student without it.
    """
    array = tap if tap in cache.manifest.arrays else "logits"
    ids = select_first_of_each(_training_labels(dataset), MAPPED_OF_A_CLASS)
    images = _view_images(dataset, ids, views)
    rows = _require_finite(cache, cache.rows(ids, array=array), array).reshape(len(ids), -1)
    teacher = embed_features(rows)
    panels = {_format_title(f"teacher {fit_names([cache.manifest.teacher.name])[0]}", array, rows): teacher}
    for student, network in zip(fit_names(list(students)), students.values(), strict=True):
        read, features = compute_student_features(network, images, array)
        panels[_format_title(f"student {student}", read, features)] = align_map(embed_features(features), teacher)
    caption = (
        f"t-SNE maps (perplexity {choose_perplexity(len(ids)):g}, no unit) of the same {len(ids)} training samples: "
        f"{name}, and the first seed of {', '.join(students) or 'no student'}, each turned to lie as the teacher's."
    )
    return Picture(f"feature-map-{name}.png", caption, draw_feature_map(panels, dataset.labels[ids], dataset.classes))


def compute_student_features(network: Network, images: NDArray[np.uint8], tap: str) -> tuple[str, NDArray[np.float64]]:
    """What was read of a student, and the values (n, d): at the tap, or logits where it has no such tap."""
    read = tap if tap in network.taps else "logits"
    return read, _run_network(network, images, None if read == "logits" else read).double().numpy()


@torch.no_grad()
def _run_network(network: Network, images: NDArray[np.uint8], tap: str | None) -> torch.Tensor:
    """A network's values (n, d) at a tap, or its logits, a few images at a time: activations are large."""
    parts = []
    for piece in torch.split(torch.from_numpy(images), PIECE):
        logits, taps = network.forward_with_taps(piece, [tap] if tap else [])
        parts.append(taps[tap].flatten(1) if tap else logits)
    return torch.cat(parts)


def _format_title(who: str, read: str, features: NDArray[np.floating]) -> str:
    return f"{who}\n{read}, {features.shape[1]}-d"


def _training_labels(dataset: Dataset) -> NDArray[np.int64]:
    """Every cache has the training samples, whose ids come first."""
    return dataset.labels[: dataset.bounds[0]]


def _view_images(dataset: Dataset, ids: NDArray[np.int64], views: Views) -> NDArray[np.uint8]:
    """Images (n, C, H, W) as view 0 shows them."""
    images = torch.from_numpy(np.ascontiguousarray(dataset.images[ids]))
    where = torch.from_numpy(ids)
    if not views.is_identity:
        images = views.apply(images, views.words(where, torch.zeros_like(where)))
    shown: NDArray[np.uint8] = images.numpy()
    return shown


def _select_one_of_each(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the first samples of the first few classes."""
    return np.unique(labels, return_index=True)[1][:ROWS]


def _channel_numbers(cache: Cache, kept: int) -> list[int]:
    """The network's own numbers of the channels that a dump of hints kept."""
    named = cache.manifest.field.parameters.get("channels")
    return list(named) if isinstance(named, list) else list(range(kept))


def _describe_share(shown: int, of: int, what: str) -> str:
    return f"all {of} {what}" if shown == of else f"the {shown} of {of} {what} that vary most"


def _format_mean(bits: NDArray[np.uint8]) -> str:
    return f"{100 * bits.mean():.0f} %" if bits.size else "none"


def _require_finite(cache: Cache, values: NDArray[Any], array: str) -> NDArray[Any]:
    """The values, all numbers (a stranger's cache may hold anything)."""
    if not np.isfinite(values).all():
        raise InputError(
            f"cache {cache.folder.name}: array {array!r}", expected="finite numbers", found="others", fix=cache.fix
        )
    return values
