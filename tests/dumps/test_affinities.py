"""Affinities: the cache holds the P of each batch of its plan, and students follow that plan."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor
from torch.optim import Adam

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.fields import load_field
from pipeline.fields.batches import CachedBatches
from pipeline.fields.dataset import CachedDataset
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.perplexity import joint_probabilities
from pipeline.student import train_student
from pipeline.teacher import Teacher
from pipeline.training import network_trainer as trainee
from pipeline.training.batch_plan import make_batch_plan
from pipeline.training.batches import Batch
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.training.rows import Splits
from pipeline.training.sample_order import shuffle_blocks
from pipeline.views.view import PLAIN, Views
from tests import reference
from tests.conftest import Capture, Run, refused, write_study
from tests.scenes import CNN, CPU, activations, made, teacher_of, tree, wanted

N = 30
OPTIONS: dict[str, Any] = {"batch_size": N, "perplexity": 8.0, "dtype": "float32"}


def features(teacher: Teacher, dataset: Dataset, tap: str = "features", views: Views = PLAIN) -> NDArray[np.float64]:
    return activations(teacher, dataset, tap, views=views).reshape(dataset.bounds[0], -1).astype(np.float64)


def full(opened: cache.Cache, plan: int, batch: int) -> NDArray[np.float64]:
    """P (n, n) as the manifest's documentation says it is stored."""
    triangle = opened.load("p")[plan, batch].astype(np.float64)
    real = (opened.load("sample_ids")[plan, batch] >= 0).sum()
    p = np.zeros((N, N))
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N)]
    for value, (i, j) in zip(triangle, pairs, strict=True):
        p[i, j] = p[j, i] = value / (real * (real - 1))
    return p


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_each_batch_of_each_plan_has_its_p(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, store: Literal["zarr", "hdf5"]
) -> None:
    options = {**OPTIONS, "plans": 3, "plan_seed": 4}
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", options, store))
    plan = make_batch_plan(dataset.bounds[0], N, plans=3, seed=4)
    assert np.array_equal(opened.load("sample_ids"), plan)
    assert opened.manifest.axes == "plan, batch"
    x = features(teacher, dataset)
    for number, batch in ((0, 0), (1, 5), (2, plan.shape[1] - 1)):
        expected = reference.joint(x[plan[number, batch]], 8.0)
        p = full(opened, number, batch)
        assert np.allclose(p, expected, rtol=1e-5, atol=1e-12)
        assert abs(p.sum() - 1) < 1e-5
    assert "epoch e follows plan e mod 3" in (tmp_path / "p/card.md").read_text()


def test_float16_keeps_small_probabilities(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    exact = made(teacher, dataset, wanted(tmp_path, "a", "affinities", OPTIONS)).load("p")
    rounded = made(teacher, dataset, wanted(tmp_path, "b", "affinities", {**OPTIONS, "dtype": "float16"})).load("p")
    # Both are rounded from float64, once: where float32 fell on a tie, rounding that again may go the other way.
    apart = rounded.view(np.int16).astype(int) - exact.astype(np.float16).view(np.int16)
    assert np.abs(apart).max() <= 1
    assert np.count_nonzero(apart) < 1e-3 * apart.size
    assert abs(exact.mean() - 1) < 1e-3
    assert np.abs(rounded - exact)[exact > 1e-4].max() <= np.abs(exact[exact > 1e-4] * 2.0**-11).max()


def test_pixels_and_views(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    views = Views("crop_flip", 2, 5, {"padding": 1})
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", {**OPTIONS, "tap": "pixels"}), views)
    shown = features(teacher, dataset, "pixels", views) / 255  # view 0, not the images as they are
    ids = opened.load("sample_ids")[0, 3]
    assert np.allclose(full(opened, 0, 3), reference.joint(shown[ids], 8.0), rtol=1e-4, atol=1e-12)
    plain = features(teacher, dataset, "pixels") / 255
    assert not np.allclose(full(opened, 0, 3), reference.joint(plain[ids], 8.0), rtol=1e-2)


@pytest.mark.parametrize("over", ["batch", "all"])
def test_pca_is_that_of_the_batch_or_of_all(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, over: Literal["batch", "all"]
) -> None:
    options = {**OPTIONS, "tap": "pixels", "pca": 5, "pca_over": over}
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", options))
    x = features(teacher, dataset, "pixels") / 255
    ids = opened.load("sample_ids")[0, 2]
    fitted = PCA(5, svd_solver="full").fit(x[ids] if over == "batch" else x)
    expected = reference.joint(fitted.transform(x[ids]), 8.0)
    assert np.allclose(full(opened, 0, 2), expected, rtol=1e-3, atol=1e-9)
    assert not np.allclose(full(opened, 0, 2), reference.joint(x[ids], 8.0), rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize(("last", "batches"), [("drop", 38), ("keep", 39), ("wrap", 39)])
def test_what_becomes_of_the_last_samples(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, last: str, batches: int
) -> None:
    assert divmod(dataset.bounds[0], N) == (38, 10)
    options = {**OPTIONS, "last": last, "perplexity": 5.0}
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", options))
    assert opened.manifest.rows == batches
    ids = opened.load("sample_ids")[0]
    x = features(teacher, dataset)
    real = ids[-1][ids[-1] >= 0]
    expected = np.zeros((N, N))
    expected[: len(real), : len(real)] = reference.joint(x[real], 5.0)
    assert np.allclose(full(opened, 0, batches - 1), expected, rtol=1e-5, atol=1e-12)
    field = CachedBatches.from_cache(opened, CPU)
    images = torch.zeros((len(real), 1, 8, 8), dtype=torch.uint8)
    zeros = torch.zeros(len(real), dtype=torch.int64)
    target = field.target(Batch(torch.from_numpy(real), zeros, images, zeros, 0, batches - 1))
    assert np.allclose(target, expected[: len(real), : len(real)], rtol=1e-5, atol=1e-12)
    assert torch.equal(target, target.T)
    if last == "keep":
        with pytest.raises(InputError, match="perplexity 12 in the last batch, of 10 samples: expected below 9"):
            made(teacher, dataset, wanted(tmp_path, "q", "affinities", {**options, "perplexity": 12.0}))


class LivePlan:
    """Asks the teacher and searches the perplexities in every step."""

    def __init__(self, teacher: Teacher, dataset: Dataset) -> None:
        self.x = features(teacher, dataset)
        self.plans = torch.from_numpy(make_batch_plan(len(self.x), N, plans=2))
        self.asked = 0

    def target(self, batch: Batch) -> Tensor:
        self.asked += 1
        assert torch.equal(batch.ids, self.plans[batch.epoch % 2, batch.number])
        p = joint_probabilities(self.x[batch.ids.numpy()][None], 8.0)[0]
        return torch.from_numpy((p * (N * (N - 1))).astype(np.float32)) / (N * (N - 1))


def trained(
    dataset: Dataset, target: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[NDArray[np.float64], TrainedStudent]:
    tables: list[NDArray[np.float64]] = []
    monkeypatch.setattr(trainee, "refuse_non_finite", lambda table, *_: tables.append(table))
    options = {"tap": "features", "dof": "infinity", "floor": 1e-12}
    terms = (Term("ce", steady(1, value=1.0), {}), Term("tsne", steady(1, value=0.1), options, "p"))
    training = TrainingOptions(partial(Adam, lr=0.01), constant, epochs=3, batch_size=N)
    model = {"name": "mlp", "widths": [12]}
    run = train_student(
        Splits.from_dataset(dataset, CPU), {"p": target}, Recipe(terms), model=model, options=training, seed=1, what="s"
    )
    return np.concatenate(tables), run


def test_a_student_cannot_tell_the_cache_from_the_live_teacher(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", {**OPTIONS, "plans": 2}))
    live = LivePlan(teacher, dataset)
    from_live, with_live = trained(dataset, live, monkeypatch)
    from_cache, with_cache = trained(dataset, load_field(opened, CPU), monkeypatch)
    assert live.asked == 3 * 38
    assert from_cache.shape == (3 * 38, 2)
    assert from_cache.tobytes() == from_live.tobytes()
    state, other = with_cache.state("last"), with_live.state("last")
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_two_plans_another_batch_size_or_an_order_are_refused_by_the_engine(dataset: Dataset) -> None:
    class Fixed:
        def __init__(self, plans: NDArray[np.int64]) -> None:
            self.plans = torch.from_numpy(plans)

        def target(self, batch: Batch) -> Tensor:
            raise NotImplementedError

    fields = {str(seed): Fixed(make_batch_plan(300, N, seed=seed)) for seed in (1, 2)}
    options = {"tap": "features", "dof": "infinity", "floor": 0.0}
    both = Recipe(tuple(Term("tsne", steady(1, value=1.0), options, dump, label=f"t-{dump}") for dump in fields))
    training = TrainingOptions(partial(Adam, lr=0.01), constant, epochs=1, batch_size=N)
    how = {"model": {"name": "mlp", "widths": [4]}, "seed": 0, "what": "student 's'"}
    splits = Splits.from_dataset(dataset, CPU)
    with pytest.raises(InputError, match="dumps '1' and '2': expected one batch plan, found two"):
        train_student(splits, fields, both, options=training, **how)  # type: ignore[arg-type]
    one = Recipe(both.terms[:1])
    other = TrainingOptions(partial(Adam, lr=0.01), constant, epochs=1, batch_size=N + 1)
    with pytest.raises(InputError, match=f"batch_size: expected {N} .*, found {N + 1}"):
        train_student(splits, fields, one, options=other, **how)  # type: ignore[arg-type]
    ordered = replace(training, order=shuffle_blocks)
    with pytest.raises(InputError, match="order: expected none, since dump '1' brings a batch plan, found one"):
        train_student(splits, fields, one, options=ordered, **how)  # type: ignore[arg-type]


def damaged_plan(plan: NDArray[np.int64], kind: str) -> NDArray[np.int64]:
    plan = plan.copy()
    if kind == "beyond":
        plan[0, 0, 0] = 10**6
    elif kind == "twice":
        plan[0, 0, 0] = plan[0, 0, 1]
    elif kind == "hole":
        plan[0, 0, 3] = -1
    elif kind == "below":
        plan[0, -1, -1] = -2
    elif kind == "uneven":
        plan[1, -1, -1] = -1
    elif kind == "moved":
        plan[0, [0, 1]] = plan[0, [1, 0]]
    elif kind == "empty":
        plan[:, -1] = -1
    return plan


@pytest.mark.parametrize("kind", ["sound", "beyond", "twice", "hole", "below", "uneven", "empty", "moved"])
def test_a_strangers_plan_that_is_none_is_refused(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.dumps import affinities

    monkeypatch.setattr(
        affinities, "_compute_triangles", lambda _joint, ids, *_: np.ones((len(ids), N * (N - 1) // 2), "f4")
    )
    real = make_batch_plan

    def planned(*arguments: Any, **options: Any) -> NDArray[np.int64]:
        return damaged_plan(real(*arguments, **options), kind)

    monkeypatch.setattr(affinities, "make_batch_plan", planned)
    monkeypatch.setattr(affinities, "_refuse_short_batch", lambda *_: None)
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", {**OPTIONS, "plans": 2}))
    if kind == "sound":
        CachedBatches.from_cache(opened, CPU)
        return
    with pytest.raises(InputError, match="array 'sample_ids': expected the batch plan that its parameters describe"):
        CachedBatches.from_cache(opened, CPU)


@pytest.mark.parametrize("kind", ["zero", "large", "negative", "nan"])
def test_a_strangers_numbers_that_are_no_probabilities_are_refused(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.dumps import affinities

    def triangles(_joint: Any, ids: NDArray[np.int64], *_: Any) -> NDArray[Any]:
        made = np.ones((len(ids), N * (N - 1) // 2), "f4")
        made[2, :2] = {"zero": (0, 0), "large": (90, 1), "negative": (3, -1), "nan": (np.nan, 1)}[kind]
        made[2] *= kind != "zero"
        return made

    monkeypatch.setattr(affinities, "_compute_triangles", triangles)
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", OPTIONS))
    with pytest.raises(InputError, match="array 'p': expected probabilities of pairs, whose sum is 1"):
        CachedBatches.from_cache(opened, CPU)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"plans": 3}, "arrays: expected p and sample_ids of 3 plans"),
        ({"batch_size": 10**9}, "arrays: expected p and sample_ids of 1 plans"),
        ({"batch_size": "30"}, "parameters: expected those of a batch plan, found batch_size"),
        ({"last": "never"}, "parameters: expected those of a batch plan, found last"),
        ({"plan_seed": 1}, "array 'sample_ids': expected the batch plan"),
    ],
)
def test_a_strangers_parameters_that_are_not_its_arrays_are_refused(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, changed: dict[str, Any], message: str
) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", OPTIONS))
    field = opened.manifest.field
    forged = field.model_copy(update={"parameters": {**field.parameters, **changed}})
    stranger = replace(opened, manifest=opened.manifest.model_copy(update={"field": forged}))
    with pytest.raises(InputError, match=message):
        CachedBatches.from_cache(stranger, CPU)


def test_a_tiny_last_batch_of_large_ones_does_not_overflow(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    options = {"batch_size": 1144, "perplexity": 3.0, "last": "keep", "dtype": "float16"}
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", options))
    assert (opened.load("sample_ids")[0, 1] >= 0).sum() == 6
    assert np.isfinite(opened.load("p")).all()
    CachedBatches.from_cache(opened, CPU)


def test_features_that_are_not_finite_name_the_sample(tmp_path: Path, dataset: Dataset) -> None:
    broken = teacher_of(dataset, CNN)
    with torch.no_grad():
        broken.network.members[0].body.fc.bias.fill_(math.inf)  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match="features at tap 'features' of 'big' for sample 0: expected finite"):
        made(broken, dataset, wanted(tmp_path, "p", "affinities", OPTIONS))
    assert not (tmp_path / "p").exists()


def test_a_loop_of_ones_own_is_told_that_there_are_no_rows(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", OPTIONS))
    with pytest.raises(InputError, match="cache 'p': expected a field of samples, found affinities"):
        CachedDataset(dataset, {"p": opened})


def test_convert_keeps_or_rounds(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    from pipeline.cache.rewrite import convert_cache

    opened = made(teacher, dataset, wanted(tmp_path, "p", "affinities", OPTIONS))
    other = convert_cache(opened, tmp_path / "h", tmp_path / "w", store="hdf5", codec="gzip")
    assert other.values == opened.manifest.values
    half = convert_cache(opened, tmp_path / "half", tmp_path / "w2", dtype="float16")
    direct = made(teacher, dataset, wanted(tmp_path, "d", "affinities", {**OPTIONS, "dtype": "float16"}))
    assert half.field == direct.manifest.field
    converted = cache.open(tmp_path / "half").load("p")
    assert np.array_equal(converted, opened.load("p").astype(np.float16))


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"perplexity": 49.0}, {}, "dumps.p: perplexity: expected above 1 and below batch_size - 1 = 49, found 49.0"),
    ({"perplexity": 1.0}, {}, "dumps.p: perplexity: expected above 1"),
    ({"batch_size": 2}, {}, "dumps.p.batch_size"),
    ({"pca_over": "all"}, {}, "dumps.p: pca_over: only with pca"),
    ({"pca": 49}, {}, "dumps.p: pca: expected below batch_size - 1 = 49, all that a batch has, found 49"),
    ({}, {"losses": {"tsne": {"dof": "much"}}}, "losses.tsne.dof: expected a number above 0, or infinity, found 'much'"),
    ({"shuffle": False, "plans": 2}, {}, "dumps.p: plans: expected 1 without shuffle"),
    ({"shuffle": False, "plan_seed": 2}, {}, "dumps.p: plan_seed: only with shuffle"),
    ({"samples": "all"}, {}, "dumps.p.samples: expected train, since only training batches are planned"),
    ({}, {"batch_size": 64}, "students.t.batch_size: expected 50, that of the batch plan of dump 'p', found 64"),
    ({}, {"drop_last": True}, "students.t.drop_last: the batch plan of dump 'p' decides that"),
    (
        {}, {"order": {"name": "blocks", "rows": 64}},
        "students.t.order: expected shuffled, since dump 'p' brings a batch plan, found 'blocks'",
    ),
    ({}, {"losses": {"tsne": {"reads": "q"}}}, "students.t.losses.tsne.reads: unknown dump 'q'"),
    (
        {}, {"pretrain": [{"losses": {"tsne": {}}, "epochs": 1, "batch_size": 7}]},
        "students.t.pretrain.0.batch_size: expected 50",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dump", "student", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_mistakes_are_refused_before_anything_runs(
    run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any], dump: Any, student: Any, message: str
) -> None:
    study["dumps"]["p"] = {"field": "affinities", "of": "big", "batch_size": 50, "perplexity": 10.0, **dump}
    study["students"]["t"] = {**study["students"]["baseline"], "losses": {"ce": {}, "tsne": {}}, **student}
    assert message in refused(run, capsys, write_study(tmp_path, study), "graph")


def test_the_commands_make_and_read_it_and_repair_it(made: Path, tmp_path: Path, run: Run, capsys: Capture) -> None:
    import shutil

    from tests.conftest import STUDY, copied

    study = copied(STUDY)
    study["dumps"]["big-p"] = {"field": "affinities", "of": "big", "batch_size": 50, "perplexity": 10.0, "plans": 2}
    study["students"]["tsne"] = {
        **study["students"]["baseline"], "losses": {"ce": {}, "tsne": {"weight": 0.1}},
    }  # fmt: skip
    folder = Path(shutil.copytree(made, tmp_path / "study"))
    write_study(folder, study)
    assert run(folder, "dump-affinities", "big-p") == 0
    assert "big-p: 4 batches" in capsys.readouterr().out
    assert run(folder, "train-student", "tsne") == 0
    assert run(folder, "cache", "inspect", "data/cache/big-p") == 0
    assert "4 a plan" in capsys.readouterr().out
    before = tree(folder / "data/cache/big-p")
    chunk = next(path for path in (folder / "data/cache/big-p").rglob("c/1/0/0"))
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    assert "found another SHA-256" in refused(run, capsys, folder, "train-student", "tsne")
    assert run(folder, "cache", "verify", "data/cache/big-p", "--repair", "data/cache/sound") == 0
    assert tree(folder / "data/cache/sound") == before
    assert run(folder, "plan") == 0
    assert "affinities" in capsys.readouterr().out
