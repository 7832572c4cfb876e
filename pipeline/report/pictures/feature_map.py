"""Feature maps: t-SNE of the same samples in the teacher's features and in the students'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from threadpoolctl import threadpool_limits

from pipeline.report.figures.style import encode_png
from pipeline.report.pictures.canvas import fit_class_names, hide_axes

PERPLEXITY = 30
ITERATIONS = 500  # 250 of them with exaggeration; more move a few hundred points little

# Ten colours for the colour-blind (Petroff 2021); each class is named in its place as well.
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def draw_feature_map(
    maps: Mapping[str, NDArray[np.floating]], labels: NDArray[np.int64], classes: Sequence[str]
) -> bytes:
    """Maps side by side, a dot a sample, coloured by class.

    Args:
        maps: by title, (n, 2) of the same samples, each centred.
        labels: (n,) of at most ten classes.
        classes: names, by label.
    """
    reach = 1.1 * np.abs(np.stack(list(maps.values()))).max((0, 1))  # (2,): all panels have one scale
    columns = min(len(maps), 2)
    rows = -(-len(maps) // columns)
    height = 4.2 * float(np.clip(reach[1] / reach[0], 0.5, 1.2))
    figure = Figure(figsize=(4.3 * columns, (height + 0.5) * rows), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        hide_axes(axes)
    for axes, (title, points) in zip(panels, maps.items(), strict=False):
        axes.set_title(title, fontsize=9)
        axes.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]))
        axes.set_aspect("equal")
        axes.spines[:].set(visible=True, color="#cccccc")
        for colour, label in zip(PALETTE, np.unique(labels), strict=False):
            _draw_class(axes, points[labels == label], colour, classes[label])
    return encode_png(figure)


def embed_features(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """A t-SNE map (n, 2) of features (n, d): the same for the same numbers, centred."""
    from sklearn.manifold import TSNE

    wide = features.astype(np.float64)
    # Features that vary along one line alone have no second component to start from.
    start = "pca" if np.linalg.matrix_rank(wide - wide.mean(0)) > 1 else "random"
    tsne = TSNE(perplexity=choose_perplexity(len(wide)), init=start, max_iter=ITERATIONS, random_state=0, n_jobs=1)
    # A few hundred points keep one thread busy; several that wait for each other take ten times as long.
    with threadpool_limits(1):
        points = tsne.fit_transform(wide)
    made: NDArray[np.float64] = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    return made


def choose_perplexity(samples: int) -> float:
    """Of a map of so many samples: each has three times as many neighbours to choose from."""
    return min(PERPLEXITY, (samples - 1) / 3)


def align_map(points: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map (n, 2), turned and mirrored to lie as another one of the same samples does; a map has no north."""
    rotation, _ = orthogonal_procrustes(points, to)
    made: NDArray[np.float64] = points @ rotation
    return made


def _draw_class(axes: Axes, points: NDArray[np.floating], colour: str, name: str) -> None:
    """One class's dots, and its name where most of them are."""
    axes.scatter(points[:, 0], points[:, 1], s=9, color=colour, linewidths=0)
    x, y = np.median(points, axis=0)
    outline = [withStroke(linewidth=2.5, foreground="white")]
    axes.text(
        x, y, fit_class_names([name])[0], ha="center", va="center", fontsize=10, weight="bold", path_effects=outline
    )
