"""The affinities field: t-SNE's joint probabilities of each batch of a plan (METHODS: t-SNE regulariser)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.base.errors import InputError
from pipeline.base.progress import progress_bar
from pipeline.cache.block_files import BlockFunction
from pipeline.cache.blocks import ArrayForm, ArrayPlan, Block
from pipeline.cache.codecs import Codec
from pipeline.dumps.field import BatchField, Gather, RowField
from pipeline.perplexity.pca import fit_projection, project_batch
from pipeline.training.batch_plan import Last, count_batches, make_batch_plan

if TYPE_CHECKING:  # a student's process reads this module's options, and must not load a teacher's room
    from pipeline.teacher import Samples, TeacherLike, TeacherOutputs


AffinitiesType = Literal["float16", "float32"]
PIECE_BYTES = 64 << 20  # of features, or of full matrices, in memory at a time

Array = NDArray[np.float64]


def affinities(
    teacher: TeacherLike,
    samples: Samples,
    *,
    tap: str = "features",
    batch_size: Annotated[int, Field(ge=3)] = 100,
    perplexity: PositiveFloat = 20.0,
    pca: PositiveInt | None = None,
    pca_over: Literal["batch", "all"] = "batch",
    plans: PositiveInt = 1,
    shuffle: bool = True,
    plan_seed: NonNegativeInt = 0,
    last: Last = "drop",
    precision: Literal["float64", "float32"] = "float64",
    dtype: AffinitiesType = "float16",
    codec: Codec = "none",
) -> BatchField:
    """Arrays `p` (plans, batches, n(n-1)/2), and `sample_ids` (plans, batches, n) int64, the plan itself.

    `p` is the upper triangle, row by row, of m(m-1) p_ij for a batch of m samples (n, or fewer in a
    short one), which is 1 on average (p_ij itself would be subnormal in float16); 0 where a short
    batch has no pair. p_ij = (p_{j|i} + p_{i|j}) / 2n of the features in view 0, sum 1, zero diagonal; see
    `pipeline.perplexity`.

    Args:
        teacher: the network whose features they are.
        samples: that the batches are made of.
        tap: where features are read (flattened), or "pixels" (scaled to [0, 1]).
        batch_size: n.
        perplexity: 2^H of each point's neighbours; below n - 1.
        pca: reduce features to so many dimensions before, as the classic t-SNE code does.
        pca_over: each batch for itself, or all samples together.
        plans, shuffle, plan_seed, last: see `pipeline.training.batch_plan.make_batch_plan`.
        precision: of the search.
        dtype: on disk.
        codec: compression.

    Raises:
        InputError: no such tap, too few samples; (when computed) features that are not finite.
    """
    width = _count_features(teacher, tap, pca)
    batches = make_batch_plan(samples.rows, batch_size, plans=plans, shuffle=shuffle, seed=plan_seed, last=last)
    _refuse_short_batch(batches, perplexity)

    def prepare(gather: Gather) -> BlockFunction:
        from pipeline.perplexity import compile_kernels, joint_probabilities  # numba takes half a second to import

        with progress_bar("compile or load the perplexity search", 1) as bar:
            bar(1, f"{compile_kernels():.1f} s")
        reduce = _make_reduction(gather, samples.rows, pca, pca_over)

        def compute_joint(features: Array, out: NDArray[Any]) -> NDArray[Any]:
            return joint_probabilities(reduce(features), perplexity, dtype=precision, out=out)

        def compute(block: Block) -> dict[str, NDArray[Any]]:
            ids = batches[block.view, block.start : block.stop]
            return {"p": _compute_triangles(compute_joint, ids, gather, precision, dtype), "sample_ids": ids}

        return compute

    pairs = batch_size * (batch_size - 1) // 2
    return BatchField(
        {"p": ArrayPlan((pairs,), dtype, codec), "sample_ids": ArrayPlan((batch_size,), "int64", codec)},
        plans,
        batches.shape[1],
        _make_features_field(teacher.card["name"], tap, width),
        prepare,
    )


def _count_features(teacher: TeacherLike, tap: str, pca: int | None) -> int:
    """The features of a sample at a tap; InputError where there are none, or too few for the PCA."""
    shape = teacher.shapes([tap])[tap]
    if not shape:
        raise InputError(f"tap {tap!r}", expected="features of each sample", found="one number a sample")
    width = int(np.prod(shape))
    if pca is not None and pca >= width:
        raise InputError(
            f"pca of tap {tap!r}",
            expected=f"below its {width} features",
            found=str(pca),
            fix="lower it or leave it out",
        )
    return width


def _make_features_field(name: str, tap: str, width: int) -> RowField:
    """The rows (width,) float32 that batches are made from: flattened activations, or pixels in [0, 1]."""

    def extract(answer: TeacherOutputs) -> dict[str, NDArray[Any]]:
        rows = answer.values[tap].flatten(1).to(torch.float32)
        _refuse_non_finite(rows, f"features at tap {tap!r} of {name!r} for sample", answer.start)
        return {"features": (rows / 255 if tap == "pixels" else rows).cpu().numpy()}

    return RowField({"features": ArrayPlan((width,), "float32")}, (tap,), extract)


def check_options(
    *,
    batch_size: int,
    perplexity: float,
    pca: int | None,
    pca_over: str,
    plans: int,
    shuffle: bool,
    plan_seed: int,
    **_: Any,
) -> None:
    """Raise ValueError for a perplexity that no batch can have, and for options that would change nothing."""
    if not 1 < perplexity < batch_size - 1:
        raise ValueError(
            f"perplexity: expected above 1 and below batch_size - 1 = {batch_size - 1}, found {perplexity}"
        )
    if pca is not None and pca_over == "batch" and pca >= batch_size - 1:
        raise ValueError(f"pca: expected below batch_size - 1 = {batch_size - 1}, all that a batch has, found {pca}")
    if pca is None and pca_over == "all":
        raise ValueError("pca_over: only with pca, the number of dimensions")
    if not shuffle and plans > 1:
        raise ValueError(f"plans: expected 1 without shuffle, since all would be the same, found {plans}")
    if not shuffle and plan_seed:
        raise ValueError("plan_seed: only with shuffle")


def plan_arrays(parameters: Mapping[str, Any], classes: int) -> dict[str, ArrayForm]:
    """The arrays of a cache with these parameters."""
    n = parameters["batch_size"]
    return {"p": ArrayForm((n * (n - 1) // 2,), parameters["dtype"]), "sample_ids": ArrayForm((n,), "int64")}


def list_taps(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """What it reads inside of the network."""
    return () if parameters["tap"] == "pixels" else (parameters["tap"],)


def count_rows(parameters: Mapping[str, Any], samples: int) -> int:
    """Batches of one plan."""
    return count_batches(samples, parameters["batch_size"], parameters["last"])


def select_plan_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the batch plan."""
    return {key: parameters[key] for key in ("batch_size", "plans", "shuffle", "plan_seed", "last")}


def _refuse_short_batch(batches: NDArray[np.int64], perplexity: float) -> None:
    """A short last batch has fewer neighbours."""
    least = int((batches[0, -1] >= 0).sum())
    if perplexity >= least - 1:
        raise InputError(
            f"perplexity {perplexity:g} in the last batch, of {least} samples",
            expected=f"below {least - 1}" if least > 2 else "at least 3 samples",
            found=f"{perplexity:g}" if least > 2 else str(least),
            fix="set last: drop or last: wrap, or choose another batch_size",
        )


def _refuse_non_finite(rows: torch.Tensor, what: str, first: int) -> None:
    finite = rows.isfinite().all(1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0])
        raise InputError(f"{what} {first + bad}", expected="finite numbers", found="NaN or inf", fix="train it again")


def _make_reduction(gather: Gather, rows: int, pca: int | None, over: str) -> Callable[[Array], Array]:
    """From features (b, n, d) to those whose distances count."""
    if pca is None:
        return lambda features: features
    if over == "batch":
        return lambda features: project_batch(features, pca)
    return fit_projection(gather, rows, pca)


def _compute_triangles(
    compute_joint: Callable[[Array, NDArray[Any]], NDArray[Any]],
    ids: NDArray[np.int64],
    gather: Gather,
    precision: str,
    dtype: str,
) -> NDArray[Any]:
    """The triangles (b, n(n-1)/2) of n(n-1) P for batches of sample ids (b, n); `compute_joint` gives P of features."""
    n = ids.shape[1]
    made = np.zeros((len(ids), n * (n - 1) // 2), dtype)
    places = np.zeros((n, n), np.int64)
    places[np.triu_indices(n, 1)] = np.arange(made.shape[1])
    real, width = (ids >= 0).sum(1), gather(ids[0, :1]).shape[1]
    for count in np.unique(real):
        upper = np.triu_indices(count, 1)
        mine = np.flatnonzero(real == count)
        piece = min(len(mine), max(1, PIECE_BYTES // (8 * count * max(count, width))))
        room = np.empty((piece, count, count), precision)
        for start in range(0, len(mine), piece):
            part = mine[start : start + piece]
            features = gather(ids[part, :count].reshape(-1)).reshape(len(part), count, -1)
            p = compute_joint(features.astype(np.float64), room[: len(part)])
            made[part[:, None], places[upper]] = p[:, *upper] * (count * (count - 1))
    return made
