"""A training whose steps are compiled ends as the same training that is not, alone and in company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.losses.recipe import Recipe
from pipeline.student import train_cohort
from pipeline.student_phase import Phase, StudentRun
from pipeline.training import stack, traced_graph
from tests.cached_scene import CASES, HINT, Scene, make_scene
from tests.exact_training import MLP, options, refuse_difference, run_of, train, train_in_float64

# A recipe and a network; of those that CASES and tests of the cohorts have, what compiles to other kernels.
COMPILED: dict[str, tuple[str, dict[str, Any]]] = {
    "dropout": ("several", MLP),
    "convolutions": ("hints", {"name": "cnn", "widths": [3, 4, 8], "dropout": 0.3}),
    "batch normalisation": ("no field", {"name": "mlp", "widths": [12, 9], "binary": {"form": "weights"}}),
    "short batches of affinities": ("a short batch", MLP),
    "views": ("drawn views", MLP),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    train_in_float64(monkeypatch)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each graph that is compiled from now on."""
    made: list[int] = []
    real = traced_graph._compile

    def note(graph: Any, inputs: Any) -> Any:
        made.append(len(inputs))
        return real(graph, inputs)

    monkeypatch.setattr(traced_graph, "_compile", note)
    return made


def phase_of(case: str, **changes: Any) -> Phase:
    return Phase(Recipe(CASES[case][0]), options(**{**CASES[case][2], **changes}))


def compile_phases(run: StudentRun) -> StudentRun:
    return replace(run, phases=[replace(each, options=replace(each.options, compile=True)) for each in run.phases])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.endurance] * (name != "dropout")) for name in COMPILED],
)
def test_compiled_steps_are_the_plain_ones(scene: Scene, compiled: list[int], name: str) -> None:
    case, model = COMPILED[name]
    run = run_of(3, phase_of(case), model=model)
    (plain,) = train(scene, [run], CASES[case][1])
    assert not compiled
    (made,) = train(scene, [compile_phases(run)], CASES[case][1])
    assert compiled
    # A teacher's softmax is float32 in either.
    refuse_difference(plain, made, 1e-5 if "soft_targets" in str(CASES[case][0]) else 1e-9)


def test_compiled_runs_cannot_tell_their_company(scene: Scene, compiled: list[int]) -> None:
    runs = [compile_phases(run_of(seed, phase_of("hints"))) for seed in (1, 2, 3)]
    together = train(scene, runs)
    assert len(compiled) == 2  # for whole batches, and for the last
    for run, made in zip(runs, together, strict=True):
        refuse_difference(train(scene, [run])[0], made)


@pytest.mark.endurance
def test_phases_are_compiled_where_they_say_so(scene: Scene, compiled: list[int]) -> None:
    hints = Phase(Recipe((HINT("hints"),)), options(epochs=1))
    run = run_of(1, hints, replace(phase_of("no field"), options=options(epochs=1, compile=True)))
    (made,) = train(scene, [run])
    assert len(compiled) == 2
    refuse_difference(
        train(scene, [run_of(1, hints, replace(phase_of("no field"), options=options(epochs=1)))])[0], made
    )


def test_networks_that_learn_from_each_other_are_refused(scene: Scene) -> None:
    run = compile_phases(run_of(1, phase_of("no field")))
    with pytest.raises(InputError, match="compile: expected a training whose steps can be traced, found networks that"):
        train_cohort(scene.splits(False), {}, [run], peers=2)


def test_a_layer_that_a_trace_does_not_see_through_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "KNOWN", ("torch",))
    with pytest.raises(InputError, match=r"compile: .* may do what a trace does not see; leave `compile` out"):
        train(scene, [compile_phases(run_of(1, phase_of("no field")))])


@pytest.mark.parametrize("seeds", [1, 2])
def test_without_a_compiler_nothing_is_trained(scene: Scene, monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    runs = [compile_phases(run_of(seed, phase_of("no field"))) for seed in range(seeds)]
    with pytest.raises(InputError, match=r"compile: expected .* a C\+\+ compiler for it, found .*No working C\+\+"):
        train(scene, runs)
