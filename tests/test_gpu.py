"""What only a GPU shows: the same run gives the same bytes there, and (nearly) the numbers of the processor."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.base.device import collect_nondeterministic, resolve_device
from pipeline.base.errors import InputError
from pipeline.base.full_memory import explain_lack_of_memory
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.dump_fields import dump_fields
from pipeline.fields import load_field
from pipeline.losses import TERMS
from pipeline.losses.outputs import Outputs
from pipeline.losses.recipe import Recipe
from pipeline.models import MODELS
from pipeline.models.build import build_network
from pipeline.student import train_cohort
from pipeline.student_phase import Phase, StudentRun
from pipeline.teacher import Ensemble, Teacher, train_teacher
from pipeline.training import run as run_module
from pipeline.training import stack as stack_module
from pipeline.training.batches import Batch, iterate_batches
from pipeline.training.optimizers import adam, constant, sgd
from pipeline.training.options import TrainingOptions
from pipeline.training.recorded_graph import RecordedGraph, record
from pipeline.training.rows import Rows, Splits
from pipeline.views.view import PLAIN, Views
from tests.cached_scene import CASES, STUDENT, Scene, make_scene
from tests.conftest import Capture, Run, refused
from tests.scenes import BATCH, digits, stopped_at_save, teacher_of, tree, wanted
from tests.student.test_steps import LOSSES, NETWORKS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: none here"),
]
DEVICE = torch.device("cuda")
CPU = torch.device("cpu")
VIEWS = Views("crop_flip", 2, 1, {"padding": 1})
HEADED = {
    "name": "cnn",
    "widths": [4, 6, 16],
    "head": {"name": "multichannel", "kernel": 8, "stride": 2, "tap": "features"},
}


@pytest.fixture(autouse=True, scope="module")
def _prepared() -> Iterator[None]:
    """The switches of every command, and those from before."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    resolve_device(str(DEVICE))
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("gpu"))


def options(**changes: Any) -> TrainingOptions:
    made = {"optimizer": partial(adam, lr=0.01), "scheduler": constant, "epochs": 2, "batch_size": 64}
    return TrainingOptions(**{**made, **changes})


def colour(rows: int) -> Splits:
    """Random pictures (3, 32, 32), that every architecture takes."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=drawn).to(DEVICE)
    labels = torch.randint(0, 10, (rows,), generator=drawn).to(DEVICE)
    part = Rows(images, labels, 10)
    return Splits(part, part, part, (3, 32, 32))


def test_every_architecture_is_tried() -> None:
    assert {*MODELS.entries} <= {model["name"] for model in NETWORKS.values()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_is_trained_twice_is_the_same_twice(name: str) -> None:
    """Or the card says which operation is the reason."""

    def train() -> tuple[dict[str, Tensor], list[str]]:
        with collect_nondeterministic() as kernels:
            network, _ = train_teacher(
                colour(128), model=NETWORKS[name], options=options(batch_size=32), seed=3, what=name, views=VIEWS
            )
        return network.state_dict(), kernels

    (first, kernels), (second, again) = train(), train()
    assert kernels == again
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different or kernels
    assert all(values.isfinite().all() for values in first.values())


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_training_that_was_killed_goes_on_to_the_same_bytes(scene: Scene, tmp_path: Path, seeds: int) -> None:
    from pipeline.student import Checkpoints

    def train(folder: Path) -> list[Mapping[str, Tensor]]:
        runs = [
            StudentRun(STUDENT, [Phase(Recipe(CASES["no field"][0]), options(epochs=3))], k, "s") for k in range(seeds)
        ]
        splits = Splits.from_dataset(scene.dataset, DEVICE)
        trained = train_cohort(splits, {}, runs, checkpoints=Checkpoints(folder / "checkpoint-0.pt", 0.0))
        return [each.state("last") for cohort in trained for each in cohort]

    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = train(tmp_path / "whole")
    with stopped_at_save(2):
        train(tmp_path / "cut")
    for state, other in zip(whole, train(tmp_path / "cut"), strict=True):
        assert all(torch.equal(state[name], other[name]) for name in state)


def draw_case(name: str, device: torch.device) -> tuple[Outputs, Any, list[Tensor], dict[str, Any]]:
    """Random outputs of a student, and what a loss compares them with: the same on each device."""
    shape, dtype, how = LOSSES[name]
    drawn = torch.Generator().manual_seed(1)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=drawn).to(device)

    leaves = [draw(8, 10).requires_grad_(), draw(8, 12).requires_grad_(), draw(8, 10, 3).requires_grad_()]
    labels = torch.randint(0, 10, (8,), generator=drawn).to(device)
    outputs = Outputs(leaves[0], labels, {"features": leaves[1], "channels": leaves[2]}, peers=draw(2, 8, 10))
    if shape is None:
        return outputs, None, leaves, how
    if name == "tsne":
        joint = draw(*shape).abs().fill_diagonal_(0)
        return outputs, (joint + joint.T) / (joint + joint.T).sum(), leaves, how
    target = (
        torch.randint(0, 256, shape, generator=drawn, dtype=dtype).to(device) if dtype == torch.uint8 else draw(*shape)
    )
    return outputs, target, leaves, how


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_are_those_of_the_processor(name: str) -> None:
    found = []
    for device in (CPU, DEVICE):
        outputs, target, leaves, how = draw_case(name, device)
        loss = TERMS.import_function(name)(outputs, target, **how)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        assert any(gradient is not None for gradient in gradients)
        found.append([loss, *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) == len(found[1])
    for cpu, gpu in zip(*found, strict=True):
        assert torch.allclose(gpu.cpu(), cpu, rtol=1e-4, atol=1e-6)


def test_the_logits_of_a_cnn_are_those_of_the_processor(dataset: Dataset) -> None:
    """Within float32: TF32 would be off by a hundred times as much."""
    network = build_network({"name": "cnn", "widths": [32, 64, 128]}, dataset.shape, 10).eval()
    images = torch.from_numpy(dataset.images[:256])
    with torch.no_grad():
        on_cpu = network(images)
        on_gpu = network.to(DEVICE)(images.to(DEVICE)).cpu()
    assert float((on_gpu - on_cpu).abs().max()) < 1e-5 * max(1.0, float(on_cpu.abs().max()))


def teacher_on(dataset: Dataset, device: torch.device) -> Teacher:
    made = teacher_of(dataset, HEADED)
    (network,) = made.network.members
    return replace(made, network=Ensemble([network.to(device)]), device=device)  # type: ignore[list-item]


@pytest.mark.parametrize("views", [PLAIN, VIEWS], ids=["plain", "views"])
def test_a_dump_has_the_same_bytes_twice_and_in_one_pass_or_several(
    tmp_path: Path, dataset: Dataset, views: Views
) -> None:
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "logits": ("logits", {}),
        "top": ("logits", {"top_k": 2, "temperature": 4.0}),
        "hints": ("hints", {"taps": ("block1", "features")}),
        "bits": ("multichannel", {}),
        "p": ("affinities", {"batch_size": 40, "perplexity": 9.0}),
    }
    teacher = teacher_on(dataset, DEVICE)
    trees = []
    for folder in (tmp_path / "once", tmp_path / "again"):
        together = [wanted(folder, name, *about) for name, about in fields.items()]
        dump_fields(teacher, dataset, together, batch=BATCH, views=views)
        trees.append({each.target.name: tree(each.target) for each in together})
    assert trees[0] == trees[1]
    for name, about in fields.items():
        alone = wanted(tmp_path / "alone", name, *about)
        dump_fields(teacher, dataset, [alone], batch=BATCH, views=views)
        assert tree(alone.target) == trees[0][name]
    assert all(len(files) >= 3 for files in trees[0].values())


def test_a_dump_is_that_of_the_processor_but_for_last_bits(tmp_path: Path, dataset: Dataset) -> None:
    """Answers are packed on a stream of their own: none is taken before it is computed."""
    from pipeline import cache

    values = []
    for device in (CPU, DEVICE):
        each = wanted(tmp_path / device.type, "logits", "logits", {"dtype": "float32"})
        dump_fields(teacher_on(dataset, device), dataset, [each], batch=32, views=VIEWS)
        values.append(torch.from_numpy(cache.open(each.target).load()))
    assert torch.allclose(values[1], values[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seeds", [1, 2])
def test_no_step_waits_for_the_gpu(scene: Scene, monkeypatch: pytest.MonkeyPatch, case: str, seeds: int) -> None:
    """From the second epoch on, after its first batch: the ids of an epoch are copied at its beginning."""
    terms, views, changes = CASES[case]
    watched = 0

    def iterate(train: Any, ids: Any, size: int, steps: int, epoch: int, **how: Any) -> Iterator[Batch]:
        nonlocal watched
        batches = iterate_batches(train, ids, size, steps, epoch, **how)
        try:
            for batch in batches:
                if epoch:
                    watched += 1
                    torch.cuda.set_sync_debug_mode("error")
                yield batch
        finally:
            torch.cuda.set_sync_debug_mode("default")
            batches.close()

    for module in (run_module, stack_module):
        monkeypatch.setattr(module, "iterate_batches", iterate)
    splits = Splits.from_dataset(scene.dataset, DEVICE)
    dumps = {dump for each in terms for dump in each.reads.values()}
    fields = {name: load_field(scene.caches[name], DEVICE) for name in dumps}
    runs = [StudentRun(STUDENT, [Phase(Recipe(terms), options(**changes))], seed, "s") for seed in range(seeds)]
    train_cohort(splits, fields, runs, views=views)
    assert watched


STEPPED = [case for case in CASES if case in ("no field", "several", "affinities", "views", "half an epoch")]


@pytest.mark.parametrize("case", STEPPED)
@pytest.mark.parametrize("how", ["recorded", "compiled", "together"])
def test_recorded_compiled_and_stacked_steps_are_the_plain_ones(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str, how: str
) -> None:
    """In float32, so within what an epoch makes of its rounding."""
    terms, views, changes = CASES[case]
    recorded = watch_records(monkeypatch)
    splits = Splits.from_dataset(scene.dataset, DEVICE)
    dumps = {dump for each in terms for dump in each.reads.values()}
    fields = {name: load_field(scene.caches[name], DEVICE) for name in dumps}
    shortened = {**changes, **({"steps": 8} if "steps" in changes else {"epochs": 1})}

    def train(seeds: Sequence[int], fewest_steps: int, **more: Any) -> list[Mapping[str, Tensor]]:
        monkeypatch.setattr(stack_module, "FEWEST_STEPS", fewest_steps)
        phase = Phase(Recipe(terms), options(**{**shortened, "optimizer": partial(sgd, lr=0.01), **more}))
        runs = [StudentRun(STUDENT, [phase], seed, "s") for seed in seeds]
        return [only.state("last") for (only,) in train_cohort(splits, fields, runs, views=views)]

    (plain,) = train([2], 10**9)
    assert not recorded
    made = {
        "recorded": lambda: train([2], 0),
        "compiled": lambda: train([2], 0, compile=True),
        "together": lambda: train([1, 2, 3], 0)[1:2],
    }[how]()[0]
    assert recorded
    assert "not replayed" not in caplog.text
    for name, values in plain.items():
        assert torch.allclose(made[name], values, rtol=1e-3, atol=1e-5), name


def watch_records(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Grows by one with each CUDA graph that is recorded from now on."""
    made: list[RecordedGraph] = []
    real = RecordedGraph.__init__

    def note(self: RecordedGraph, *about: Any) -> None:
        real(self, *about)
        made.append(self)

    monkeypatch.setattr(RecordedGraph, "__init__", note)
    return made


def test_what_cannot_be_recorded_is_left_as_it_is_and_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def read_back(values: Tensor) -> tuple[Tensor]:
        return (values * float(values.sum().item()),)

    values = torch.ones(3, device=DEVICE)
    assert record(read_back, [values], 0) is read_back
    assert "steps are not replayed as a CUDA graph" in caplog.text
    assert torch.equal(read_back(values)[0].cpu(), torch.full((3,), 3.0))


def test_a_record_leaves_what_it_is_made_of_as_it_was() -> None:
    def step(kept: Tensor, given: Tensor) -> tuple[Tensor]:
        kept.add_(given.sum())
        return (kept * 2,)

    kept, given = torch.zeros(2, device=DEVICE), torch.ones(3, device=DEVICE)
    recorded = record(step, [kept, given], 1)
    assert isinstance(recorded, RecordedGraph)
    assert not kept.any()
    assert torch.equal(recorded(kept, given)[0].cpu(), torch.full((2,), 6.0))
    assert torch.equal(recorded(kept, given * 2)[0].cpu(), torch.full((2,), 18.0))
    assert torch.equal(kept.cpu(), torch.full((2,), 9.0))


def test_tf32_is_float32_with_shorter_factors(dataset: Dataset) -> None:
    network = build_network({"name": "mlp", "widths": [256]}, dataset.shape, 10).to(DEVICE).eval()
    images = torch.from_numpy(dataset.images[:256]).to(DEVICE)
    answers = {}
    with torch.no_grad():
        for precision in ("float32", "tf32", "bfloat16"):
            network.compute_in(precision)
            answers[precision] = network(images)
        network.compute_in("float32")
        assert torch.equal(network(images), answers["float32"])
    exact = answers["float32"]
    off = {name: float((values - exact).norm() / exact.norm()) for name, values in answers.items()}
    assert 1e-6 < off["tf32"] < 5e-3
    assert off["tf32"] < off["bfloat16"] < 5e-2


def test_full_memory_is_one_line() -> None:
    with pytest.raises(torch.OutOfMemoryError) as full:
        torch.empty(2**44, dtype=torch.uint8, device=DEVICE)
    known = explain_lack_of_memory(full.value)
    assert known is not None
    assert "CUDA out of memory" in str(known)
    assert "batch_size" in str(known)


def test_a_stage_whose_gpu_is_full_ends_in_one_line(
    run: Run, capsys: Capture, copy_of: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: Any, **__: Any) -> None:
        torch.empty(2**44, dtype=torch.uint8, device=DEVICE)

    shutil.rmtree(copy_of / "data/teachers/big")
    monkeypatch.setattr("pipeline.runs.teachers.train_network", fill)
    capsys.readouterr()
    assert run(copy_of, "train-teacher", "big", "--device", "cuda") == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert error[0].startswith("error: memory of the GPU: ")
    assert not (copy_of / "data/teachers/big").exists()


def test_a_card_that_is_not_there(run: Run, capsys: Capture, made: Path) -> None:
    with pytest.raises(InputError, match="--device cuda:99: expected one of"):
        resolve_device("cuda:99")
    assert "--device cuda:99" in refused(run, capsys, made, "train-teacher", "big", "--device", "cuda:99")
