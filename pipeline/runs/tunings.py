"""A student or teacher -> how fast it trains here in each precision and layout, and what to put into params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.base.seeds import derive_seed
from pipeline.base.table import Table
from pipeline.datasets.dataset import load_dataset
from pipeline.models.build import draw_network
from pipeline.runs.checks import build_and_check
from pipeline.runs.result import Result
from pipeline.runs.seeds import build_phase, phase_epochs
from pipeline.runs.stage_work import in_study_folder
from pipeline.runs.students import find_students, read_inputs
from pipeline.runs.training import training_options
from pipeline.student import start_run
from pipeline.student_phase import Scene, StudentRun, list_streams, plan_phase
from pipeline.study.layout import Layout
from pipeline.study.sections import NetworkParams, StudentParams, Study, TeacherParams, describe_model
from pipeline.teacher import CrossEntropy
from pipeline.training.network_trainer import Member
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import load_splits
from pipeline.training.run import Data, Plan, Run
from pipeline.training.stack import find_obstacle
from pipeline.training.step_times import StepTime, choose_fastest, describe_failure, measure_steps

COLUMNS = ("precision", "layout", "compile", "ms a step", "quartiles", "ratio", "")
TOGETHER = "timed step by step; a long training may stack or trace such a network, and then gain less"
FIX = "time its first member: `teachercache tune {grid}`"
NOTE = "another precision changes results: train again, and compare"


class Choice(NamedTuple):
    """How a network is computed; a `layout` of None: it has none to choose, since nothing in it is a convolution."""

    precision: str
    layout: str | None
    compile: bool = False


@dataclass(frozen=True)
class _Subject:
    """The network that is timed.

    Attributes:
        params: its section.
        entry: the name of its section in params.yaml.
        network: as it is computed now, on the CPU.
        start: begins its training as another section says; what that needs is open as long as the stack.
    """

    params: StudentParams | TeacherParams
    entry: str
    network: nn.Module
    start: Callable[[ExitStack, Any], Run]


@in_study_folder
def time_choices(
    study: Study,
    name: str,
    device: str = "auto",
    *,
    steps: int = 10,
    repeats: int = 5,
    memory: str | int | None = None,
    compiled: bool = False,
) -> Result:
    """Time a network's steps in each precision and layout, on its own data with its own losses; nothing is written.

    Args:
        study: with the network.
        name: a student's, a grid's (its first member is timed) or a teacher's.
        device: where it is trained.
        steps: of training, each time; at most those of an epoch.
        repeats: times that each choice is timed.
        memory: how much of its data may lie on the device, as `--memory`.
        compiled: time each compiled, too; compiling takes ten seconds or more of each.

    Raises:
        InputError: as the training of the network does before its first step; or every choice fails.
    """
    where = resolve_device(device)
    find = _find_teacher if name in study.teachers else _find_student
    subject = find(study, name, where, memory, steps)
    present = _describe_present(subject)
    with ExitStack() as stack:
        choices = list(_list_choices(present, where, compiled=compiled))
        timed, failures = _start_runs(stack, subject, choices)
        together = find_obstacle([timed[present].plan], where) is None
        measured = measure_steps(timed, repeats) | failures
    times = {choice: measured[choice] for choice in choices}
    if all(each.failure for each in times.values()):
        raise InputError(f"{subject.entry}: every choice fails; the present one: {times[present].failure}")
    fastest = choose_fastest(times, present)
    machine = {"device": str(where), "threads": torch.get_num_threads(), "steps": steps, "repeats": repeats}
    return Result(
        {
            "machine": machine,
            "present": present._asdict(),
            "choices": [{**choice._asdict(), **_describe_time(each)} for choice, each in times.items()],
            "fastest": None if fastest is None else fastest._asdict(),
        },
        text=(
            _make_table(times, present, fastest),
            "median of {repeats} times up to {steps} steps (quartiles), {device}, {threads} threads".format(**machine),
            *_tell_fastest(subject.entry, times, present, fastest),
        ),
        notes=(TOGETHER,) if together else (),
    )


def _find_student(study: Study, name: str, device: torch.device, memory: str | int | None, steps: int) -> _Subject:
    """A student with the caches it reads; the last of its phases is timed."""
    member, *_ = names = find_students(study, name, FIX)
    inputs, spec = read_inputs(study, names, device, memory), study.students[member]
    epochs = phase_epochs(spec, inputs.splits, inputs.targets)[-1]
    scene, what = Scene(inputs.splits, inputs.targets, study.views.views()), f"student {member!r}"

    def start(stack: ExitStack, params: StudentParams) -> Run:
        phase = build_phase(params, epochs, (), what=what)
        phase = replace(phase, options=_shorten(phase.options, steps))
        run = StudentRun(describe_model(params), [phase], derive_seed(study.seed, "student", 0), what)
        started = start_run(run, inputs.splits, params.peers, inputs.initial)
        streams = list_streams(phase.recipe, inputs.targets)
        data = Data(inputs.splits.train, inputs.splits.validation, scene.views, streams)
        return Run(plan_phase(stack, started, scene, 0), data)

    return _Subject(spec, f"students.{name}", build_and_check(study, member, inputs.dataset), start)


def _find_teacher(study: Study, name: str, device: torch.device, memory: str | int | None, steps: int) -> _Subject:
    """A teacher that is trained here, with its data.

    Raises:
        InputError: it is external, of a file, or an ensemble.
    """
    spec, what = study.teachers[name], f"teacher {name!r}"
    if spec.external or spec.members or spec.weights:
        raise InputError(what, expected="one that is trained here", found="one that is not")
    dataset = load_dataset(Layout(Path()).prepared(str(spec.dataset)), resident=False)
    network = build_and_check(study, name, dataset)
    splits, seed = load_splits(dataset, spec.batch_size, device, memory), derive_seed(study.seed, "teacher", name)

    def start(_: ExitStack, params: TeacherParams) -> Run:
        model, drawn = describe_model(params), derive_seed(seed, "init")
        fresh = draw_network(model, splits.shape, splits.classes, seed=drawn, device=device)
        plan = Plan([Member(fresh, CrossEntropy())], _shorten(training_options(params), steps), seed, what)
        return Run(plan, Data(splits.train, splits.validation, study.views.views()))

    return _Subject(spec, f"teachers.{name}", network, start)


def _shorten(options: TrainingOptions, steps: int) -> TrainingOptions:
    return replace(options, epochs=None, steps=steps)


def _describe_present(subject: _Subject) -> Choice:
    """How the network is computed now: what its section leaves to the architecture is read off the weights."""
    weights = [parameter for parameter in subject.network.parameters() if parameter.dim() == 4]
    layout = subject.params.layout if weights else None  # one that is stated for no convolution says nothing
    if layout is None and weights:
        layout = "channels_last" if any(map(_is_channels_last, weights)) else "contiguous"
    return Choice(subject.params.precision, layout, subject.params.compile)


def _is_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def _list_choices(present: Choice, device: torch.device, *, compiled: bool) -> Iterator[Choice]:
    """The present one first, then all others that the study's sections know and the device has."""
    yield present
    precisions = get_args(NetworkParams.model_fields["precision"].annotation)
    layouts = ("contiguous", "channels_last") if present.layout else (None,)
    for choice in map(Choice._make, product(precisions, layouts, (False, True) if compiled else (False,))):
        if choice != present and (choice.precision != "tf32" or device.type == "cuda"):
            yield choice


def _start_runs(
    stack: ExitStack, subject: _Subject, choices: Sequence[Choice]
) -> tuple[dict[Choice, Run], dict[Choice, StepTime]]:
    """By choice, its run or why there is none; the first is the present one, whose mistakes are raised."""
    runs, failures = {choices[0]: subject.start(stack, subject.params)}, {}
    for choice in choices[1:]:
        try:
            runs[choice] = subject.start(stack, subject.params.model_copy(update=choice._asdict()))
        except (InputError, RuntimeError) as error:
            failures[choice] = describe_failure(error)
    return runs, failures


def _describe_time(time: StepTime) -> dict[str, Any]:
    """Its numbers as JSON, in milliseconds."""
    if time.failure:
        return {"failure": time.failure}
    return {"median_ms": 1e3 * time.median, "low_ms": 1e3 * time.low, "high_ms": 1e3 * time.high}


def _make_table(times: Mapping[Choice, StepTime], present: Choice, fastest: Choice | None) -> Table:
    marks = {fastest: "fastest", present: "present"}
    rows = []
    for choice, time in times.items():
        cells = [f"fails: {time.failure}", "", ""] if time.failure else _format_time(time, times[present])
        compiled = "yes" if choice.compile else "-"
        rows.append((choice.precision, choice.layout or "-", compiled, *cells, marks.get(choice, "")))
    return Table("", COLUMNS, rows)


def _format_time(time: StepTime, present: StepTime) -> list[str]:
    low, median, high = (f"{1e3 * seconds:.3g}" for seconds in (time.low, time.median, time.high))
    return [median, f"{low} to {high}", "-" if present.failure else f"{time.median / present.median:.2f}"]


def _tell_fastest(
    entry: str, times: Mapping[Choice, StepTime], present: Choice, fastest: Choice | None
) -> Iterator[str]:
    """The lines to paste; or that there is nothing to change."""
    if fastest is None:
        yield "nothing is faster than the present setting by more than the noise"
        return
    gain = "" if times[present].failure else f", {times[present].median / times[fastest].median:.2f} times as fast"
    yield f"the fastest{gain}; in params.yaml, under {entry}:"
    lines = {**fastest._asdict(), "compile": str(fastest.compile).lower()}
    if not (fastest.compile or present.compile):
        del lines["compile"]
    yield from (f"  {key}: {value}" for key, value in lines.items() if value is not None)
    if fastest.precision != present.precision:
        yield NOTE
