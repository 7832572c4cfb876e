"""The report's figures of numbers: what they show, computed by hand, and that they can be drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report import metrics_pictures as drawing
from pipeline.report import sweeps
from pipeline.report.figures import accuracy, curves, pareto, style, sweep
from pipeline.report.figures import loss_terms as terms
from pipeline.report.figures.loss_terms import TermCurves
from pipeline.report.figures.pareto import NetworkPoint
from pipeline.report.figures.sweep import SweepPoint
from pipeline.report.groups import Group
from pipeline.report.histories import read_history, read_loss_terms
from pipeline.report.metrics_pictures import PictureOptions, draw_metrics
from pipeline.report.network_results import Measurements
from pipeline.report.published import Published
from pipeline.study.layout import network_folder
from pipeline.study.report_section import SweepParams

PNG = b"\x89PNG"
TEACHERS = {name: {"test_accuracy": 0.9, "parameters": 9, "bytes": 36} for name in ("big", "other")}


def metrics(*accuracies: float, **more: Any) -> dict[str, Any]:
    made = {
        "test_accuracy_per_seed": list(accuracies), "test_accuracy_per_peer": None, "dataset": "f" * 64,
        "taught_by": ["big"], "losses": {"ce": {"weight": 1.0, "options": {}}}, "pretrain": [], "phase_epochs": [2],
        "parameters": 4, "bytes": 16,
    }  # fmt: skip
    return {**made, **more}


def group(name: str, *runs: Sequence[float], datasets: Sequence[str] = ("f" * 64,), unit: Any = "run") -> Group:
    """A group of students, each with its runs; a lone student has the group's name."""
    students = [name] if len(runs) == 1 else [f"{name}-{number}" for number in range(len(runs))]
    return Group(name, tuple(students), tuple(datasets), tuple(map(tuple, runs)), unit)


def networks(*groups: Group, **logged: Sequence[Sequence[float]]) -> Measurements:
    return Measurements({each.name: each for each in groups}, TEACHERS, logged)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn meanwhile; they are still made into PNG."""
    made: list[Figure] = []

    def kept(figure: Figure) -> bytes:
        made.append(figure)
        return style.encode_png(figure)

    for module in (accuracy, curves, pareto, sweep, terms):
        monkeypatch.setattr(module, "encode_png", kept)
    return made


@dataclass
class Taken:
    """Stands for a function that draws: notes what it is given."""

    given: list[tuple[Any, ...]] = field(default_factory=list)
    named: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, *given: Any, **named: Any) -> bytes:
        self.given.append(given)
        self.named.append(named)
        return b""


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    return [] if box is None else [text.get_text() for text in box.get_texts()]


# --- pareto.png ---


def size_panels(
    points: Mapping[str, NetworkPoint], comparable: Sequence[Sequence[str]], made: list[Figure]
) -> dict[str, Axes]:
    """The panels that are seen, by the measure below them."""
    assert pareto.draw_pareto(points, comparable).startswith(PNG)
    return {axes.get_xlabel(): axes for axes in made[-1].axes if axes.get_visible()}


def numbers_in(axes: Axes) -> list[str]:
    return sorted(text.get_text() for text in axes.texts)


def test_a_panel_for_each_measure_that_is_known(sheets: list[Figure]) -> None:
    whole = {"parameters": 10.0, "bytes": 40.0, "bits": 320.0, "multiply-adds": 80.0}
    few = {"parameters": 5.0, "bytes": 20.0, "bits": 90.0}
    points = {"a": NetworkPoint(0.9, None, whole), "b": NetworkPoint(0.8, (0.7, 0.9), few)}
    panels = size_panels(points, [["a", "b"]], sheets)
    assert list(panels) == ["parameters", "bytes", "bits", "multiply-adds of one image"]
    assert numbers_in(panels["bits"]) == ["1", "2"]
    assert numbers_in(panels["multiply-adds of one image"]) == ["1"]
    marked = [line for line in panels["bits"].get_lines() if line.get_marker() == "o"]
    assert np.allclose(np.array([line.get_xydata() for line in marked]), [[[320, 90]], [[90, 80]]])
    assert [legend(axes) for axes in panels.values() if legend(axes)] == [["1  a", "2  b"]]
    older = size_panels({"b": points["b"]}, [["b"]], sheets)
    assert list(older) == ["parameters", "bytes", "bits"]


def test_a_point_keeps_its_number_where_another_is_not_drawn(sheets: list[Figure]) -> None:
    sizes = {"parameters": 10.0, "multiply-adds": 80.0}
    points = {"a": NetworkPoint(0.9, None, {"parameters": 5.0}), "b": NetworkPoint(0.8, None, sizes)}
    panels = size_panels(points, [["a"], ["b"]], sheets)
    assert numbers_in(panels["multiply-adds of one image"]) == ["2"]
    assert list(size_panels({}, [], sheets)) == ["parameters", "bytes"]


def test_a_groups_size_is_its_students_mean_where_all_have_it() -> None:
    known, older = {"parameters": 4, "bits": 8, "multiply_adds": 6}, {"parameters": 6, "bits": 9, "multiply_adds": None}
    assert drawing.average_sizes([known, known]) == {"parameters": 4, "bits": 8, "multiply-adds": 6}
    assert drawing.average_sizes([known, older]) == {"parameters": 5, "bits": 8.5}
    assert drawing.average_sizes([{**known, "multiply_adds": 0}]) == {
        "parameters": 4,
        "bits": 8,
    }  # no place on a log axis


# --- accuracy.png ---


def test_the_source_has_a_diamond_over_its_box(sheets: list[Figure]) -> None:
    groups = {"a": [0.9, 0.91], "b": [0.8, 0.82], "c": [0.7]}
    assert accuracy.draw_box_plot(groups, {}, "one run", {"b": 0.96, "c": 0.5, "elsewhere": 0.1}).startswith(PNG)
    (axes,) = sheets[0].axes
    (marks,) = [line for line in axes.get_lines() if line.get_label() == "the source"]
    assert np.allclose(marks.get_xydata(), [[2, 96], [3, 50]])
    assert (marks.get_marker(), marks.get_fillstyle(), marks.get_linestyle()) == ("D", "none", "None")
    assert axes.get_ylim()[0] < 50
    assert axes.get_ylim()[1] > 96
    assert legend(axes) == ["the source"]


def test_without_a_source_there_is_no_diamond(sheets: list[Figure]) -> None:
    accuracy.draw_box_plot({"a": [0.9]}, {"big": 0.95}, "one run", {})
    assert legend(sheets[0].axes[0]) == ["teacher big"]


@pytest.mark.parametrize(
    ("published", "marks"),
    [
        (Published("test", "error", {"a": 10.0}), {"a": 0.9}),
        (Published("test", "accuracy", {"a": 97.5}), {"a": 0.975}),
        (Published("validation", "error", {"a": 10.0}), {}),
        (None, {}),
    ],
)
def test_boxes_show_what_is_published_of_test(
    published: Published | None, marks: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw_box_plot", taken := Taken())
    next(draw_metrics(TEACHERS, {"a": metrics(0.9)}, [group("a", [0.9])], {}, PictureOptions(published=published)))
    assert taken.given[0][3] == pytest.approx(marks)


# --- curves.png ---


RISING = [[0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 0.9]]


def test_late_curves_leave_out_the_first_epochs() -> None:
    # Seven epochs: the early value is that of the second. 8 % of the range is free above the best.
    assert curves.compute_limits({"a": RISING}) == pytest.approx((20.0, 90 + 0.08 * 70 + 0.1))
    assert curves.compute_limits({"a": [[0.1] * 7], "b": RISING})[0] == pytest.approx(8.0)
    assert curves.compute_limits({"a": [[1.0] * 7]}) == pytest.approx((98.0, 98 + 2 + 0.08 * 2 + 0.1))


def test_whole_curves_start_at_the_first_epoch(sheets: list[Figure]) -> None:
    for whole in (False, True):
        assert curves.draw_curves([("", {"a": RISING})], whole=whole).startswith(PNG)
    late, all_of_it = (sheet.axes[0].get_ylim() for sheet in sheets)
    assert late[0] == pytest.approx(20)
    assert all_of_it[0] < 10
    assert all_of_it[1] <= curves.HEADROOM


def test_each_data_set_has_its_panel(sheets: list[Figure]) -> None:
    panels: list[tuple[str, Mapping[str, Any]]] = [
        (f"set-{number}", {f"student-{number}-{each}": [[0.5, 0.6 + each / 10]] * 2 for each in range(4)})
        for number in range(3)
    ]
    assert curves.draw_curves(panels).startswith(PNG)
    *shown, empty = sheets[0].axes
    assert not empty.get_visible()
    assert [axes.get_title() for axes in shown] == ["set-0", "set-1", "set-2"]
    assert [legend(axes) for axes in shown] == [list(students) for _, students in panels]
    assert [len(axes.collections) for axes in shown] == [4, 4, 4]  # shaded


def test_one_panel_stays_as_it_was(sheets: list[Figure]) -> None:
    curves.draw_curves([("set", {"a": [[0.5]], "b": [[0.6]]})])
    (axes,) = sheets[0].axes
    assert axes.get_title() == "Students while they train"
    assert legend(axes) == ["a", "b"]
    assert curves.draw_curves([]) == curves.draw_curves([("", {})])


def test_panels_are_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of the same data sets share a panel; those without curves have none."""
    sets = {"a": "1", "b": "2", "c": "1", "d": "3"}
    folds = [group("e", *[[0.5]] * 5, datasets="45678")]
    groups = [*(group(name, [0.5], datasets=[each]) for name, each in sets.items()), *folds]
    logged = {name: [[0.5, 0.6]] for name in ("a", "b", "c", *folds[0].students)} | {"d": [[]]}
    named = {name: f"set-{each}" for name, each in sets.items()}
    named |= {student: f"fold-{number}" for number, student in enumerate(folds[0].students)}
    monkeypatch.setattr(drawing, "draw_curves", taken := Taken())
    monkeypatch.setattr(drawing, "draw_box_plot", Taken())
    monkeypatch.setattr(drawing, "draw_pareto", Taken())
    students = {name: metrics(0.5) for name in (*sets, *folds[0].students)}
    list(draw_metrics({}, students, groups, logged, PictureOptions(datasets=named, whole=True)))
    ((panels,),) = taken.given
    assert [(title, list(each)) for title, each in panels] == [
        ("set-1", ["a", "c"]), ("set-2", ["b"]), ("fold-0, fold-1, fold-2 and 2 more", ["e"]),
    ]  # fmt: skip
    assert taken.named == [{"whole": True}]


# --- sweep-NAME.png ---


def test_values_stand_at_their_ranks() -> None:
    assert sweep.place_values([0, 0.02, 0.05, 1, math.inf]) == [0, 1, 2, 3, 4]
    assert sweep.place_values([math.inf, 0, 0.5]) == [2, 0, 1]
    assert sweep.place_values([0, 1, 1, 2]) == pytest.approx([0, 0.8, 1.2, 2])
    assert [sweep.format_tick(value) for value in (0.0, 0.02, 0.5, 2.0, 1e-5, math.inf)] == [
        "0", "0.02", "0.5", "2", "1e-05", "∞",
    ]  # fmt: skip


def test_bars_are_intervals() -> None:
    # Of 4, 5, 6: mean 5, standard deviation 1, t(0.975, 2) = 4.302653.
    assert sweep.compute_error_bar([4, 5, 6]) == pytest.approx((5, 4.302653 / math.sqrt(3), 4.302653 / math.sqrt(3)))
    assert sweep.compute_error_bar([4, 5]) == (4.5, 0, 0)
    assert sweep.compute_error_bar([4]) == (4, 0, 0)
    assert sweep.compute_error_bar([4, 4, 4]) == (4, 0, 0)


def test_points_are_measured() -> None:
    folds = group("m", [0.90, 0.92], [0.94, 0.96], datasets="12", unit="student")
    lone = group("0", [0.8, 0.7, 0.75])
    logged = {"m-0": [[0.0] * 19 + [0.9]] * 2, "m-1": [[0.8], [0.6]], "0": [[0.5] * 38 + [0.6, 0.7]] * 3}
    source = sweeps.list_source_errors(Published("validation", "accuracy", {"0": 72.0}))
    first, second = sweeps.collect_points({"m": math.inf, "0": 0.0}, networks(folds, lone, **logged), source)
    assert (first.value, second.value) == (0, math.inf)
    assert first.test == pytest.approx((20, 30, 25))
    assert first.validation == pytest.approx((35, 35, 35))  # of 40 epochs the last two
    assert second.test == pytest.approx((9, 5))  # a student's mean
    assert second.validation == pytest.approx((10, 30))
    assert (first.source, second.source) == (28.0, None)


def test_without_validation_part_there_is_the_test_error_alone() -> None:
    half: dict[str, list[list[float]]] = {"m-0": [[0.5]], "m-1": [[]]}
    nothing: dict[str, list[list[float]]] = {"a": [[]]}
    for logged in ({}, nothing, half):
        made = sweeps.collect_points(
            {"a": 0, "m": 1}, networks(group("a", [0.9]), group("m", [0.8], [0.7]), **logged), {}
        )
        assert [point.validation for point in made] == [(), ()]
        assert [len(point.test) for point in made] == [1, 2]


def test_the_source_s_errors() -> None:
    assert sweeps.list_source_errors(None) == {}
    assert sweeps.list_source_errors(Published("test", "error", {"a": 3.0})) == {"a": 3.0}
    assert sweeps.list_source_errors(Published("test", "accuracy", {"a": 97.0})) == {"a": 3.0}


def test_a_sweep_tells_its_teachers_and_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "draw_sweep", taken := Taken())
    params = SweepParams(option="p", values={"a": 0, "b": math.inf})
    logged = {"a": [[0.9]], "b": [[0.8]], "big": [[0.97]]}
    known = networks(group("a", [0.9]), group("b", [0.8]), **logged)
    students = {"a": metrics(0.9), "b": metrics(0.8, taught_by=["a", "external"])}
    made = sweeps.draw_sweep_picture("one", params, known, students, Published("validation", "error", {"b": 5.0}))
    option, points, lines, of = taken.given[0]
    assert (made.name, option, of, len(points)) == ("sweep-one.png", "p", "validation", 2)
    assert lines == pytest.approx({"teacher big (test)": 10, "teacher big (validation)": 3})
    assert "evenly spaced, not to scale" in made.caption
    assert "Crosses are the source's (validation error)." in made.caption
    plain = sweeps.draw_sweep_picture("one", params, networks(*known.groups.values()), students)
    assert taken.given[1][2] == pytest.approx({"teacher big (test)": 10})
    assert "validation" not in plain.caption
    assert "source" not in plain.caption


FULL = [
    SweepPoint(0, (5.0, 5.2, 5.4), (4.0, 4.1, 4.2), 5.5), SweepPoint(0.02, (6.0,), (3.0,)),
    SweepPoint(2, (5.0, 5.1), (), 5.0), SweepPoint(math.inf, (5.0, 5.0, 5.0), (4.0, 4.0, 4.0)),
]  # fmt: skip


def test_a_sweep_is_drawn(sheets: list[Figure]) -> None:
    assert sweep.draw_sweep("p", FULL, {"teacher big (test)": 4.5}, "validation").startswith(PNG)
    (axes,) = sheets[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.02", "2", "∞"]
    assert legend(axes) == ["validation", "test", "the source (validation)", "teacher big (test)"]
    (crosses,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert np.allclose(crosses.get_xydata(), [[0, 5.5], [2, 5.0]])


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([SweepPoint(0, (5.0,)), SweepPoint(1, (5.0,))], ["test"]),  # one run each, all equal
        ([SweepPoint(0, (0.0, 0.0, 0.1)), SweepPoint(math.inf, (5.0,), (), 1.0)], ["test", "the source (test)"]),
        ([SweepPoint(1, (5.0, 6.0)), SweepPoint(1, (5.5, 6.5), (4.0,))], ["validation", "test"]),
    ],
)
def test_sweeps_of_little(points: list[SweepPoint], expected: list[str], sheets: list[Figure]) -> None:
    assert sweep.draw_sweep("p", points, {}, "test").startswith(PNG)
    (axes,) = sheets[0].axes
    assert legend(axes) == expected
    assert axes.get_ylim()[0] >= 0


# --- terms.png ---


def test_axes_of_more_than_two_decades_are_logarithmic() -> None:
    assert terms.find_linear_threshold([0.02, 1.0, 2.0]) is None  # exactly two decades
    assert terms.find_linear_threshold([0.0, 0.0]) is None
    assert terms.find_linear_threshold([]) is None
    assert terms.find_linear_threshold([0.5, -3000.0]) == pytest.approx(0.1)
    assert terms.find_linear_threshold([2.0, 0.01]) == pytest.approx(0.01)
    # A curve that crosses zero once passes by a tiny value.
    assert terms.find_linear_threshold([1e-9, *[1.0] * 20]) is None


RUNAWAY = [[0.7 - 10.0**epoch * (1 + seed / 10) for epoch in range(12)] for seed in range(2)]


def test_terms_are_drawn(sheets: list[Figure]) -> None:
    runs = {"adversarial": RUNAWAY, "ce": [[2.3 * 0.9**epoch for epoch in range(12)]] * 2}
    shown = {
        "free": TermCurves(runs, [[50 * 0.9**epoch + seed for epoch in range(12)] for seed in range(2)]),
        "held": TermCurves({"ce": [[0.0, 0.0]]}),
        "short": TermCurves({"ce": [[0.4]]}, [[20.0]]),
    }
    assert terms.draw_terms(shown).startswith(PNG)
    free, held, short, empty, right, right_of_short = sheets[0].axes
    assert [axes.get_title() for axes in (free, held, short)] == list(shown)
    assert [axes.get_yscale() for axes in (free, held, short)] == ["symlog", "linear", "linear"]
    assert legend(free) == ["adversarial", "ce", terms.ERROR]
    assert legend(held) == ["ce"]
    assert not empty.get_visible()
    assert np.allclose(free.get_lines()[0].get_ydata(), np.mean(RUNAWAY, 0))
    bounds = free.collections[0].get_datalim(free.transData).extents
    assert (bounds[1], bounds[3]) == pytest.approx((np.min(RUNAWAY), np.max(RUNAWAY)))
    assert np.allclose(right.get_lines()[0].get_ydata(), [50 * 0.9**epoch + 0.5 for epoch in range(12)])
    assert right_of_short.get_lines()[0].get_marker() == "."


def log(folder: Path, quantity: str, *values: float) -> None:
    """A table as dvclive writes it."""
    path = folder / "curves/plots/metrics" / f"{quantity}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"step\t{path.stem}", *(f"{step}\t{value}" for step, value in enumerate(values))]
    path.write_text("\n".join(rows) + "\n")


def test_loss_terms_are_those_of_the_own_phase_of_all_networks(tmp_path: Path) -> None:
    cohort = metrics(0.5, 0.6, test_accuracy_per_peer=[[0.5, 0.5], [0.6, 0.6]], losses={"ce": {}, "mutual_kl": {}})
    for seed in range(2):
        log(tmp_path / f"seed-{seed}/pretrain-1", "train/hint_mse", 9.0)
        for peer in range(2):
            folder = network_folder(tmp_path, seed, peer)
            for quantity, value in {"train/ce": 1.0, "train/mutual_kl": -2.0, "train/loss": -1.0, "lr": 0.1}.items():
                log(folder, quantity, value, value + 10 * seed + peer)
            log(folder, "validation/accuracy", 0.5, 0.75 + seed / 10)
    made = read_loss_terms(tmp_path, cohort)
    assert made.losses == {
        "ce": [[1.0, 1.0], [1.0, 2.0], [1.0, 11.0], [1.0, 12.0]],
        "mutual_kl": [[-2.0, -2.0], [-2.0, -1.0], [-2.0, 8.0], [-2.0, 9.0]],
    }
    assert np.allclose(made.errors, [[50, 25], [50, 25], [50, 15], [50, 15]])


def test_the_penalty_is_a_term_and_validation_may_be_missing(tmp_path: Path) -> None:
    log(tmp_path / "seed-0", "train/ce", 1.0)
    log(tmp_path / "seed-0", "train/l1", 0.5)
    made = read_loss_terms(tmp_path, metrics(0.5))
    assert made == TermCurves({"ce": [[1.0]], "l1": [[0.5]]}, [])
    assert read_history(tmp_path, metrics(0.5), "validation/accuracy") == [[]]


# --- all of them ---


def everything(worse: float = 0.0) -> dict[str, bytes]:
    """The pictures of a study that asks for all of them, by name."""
    students = {
        name: metrics(*(0.9 - worse - place / 50 - seed / 100 for seed in range(3)), dataset="fe"[place % 2] * 64)
        for place, name in enumerate("abcd")
    }
    groups = [group(name, its["test_accuracy_per_seed"], datasets=[its["dataset"]]) for name, its in students.items()]
    logged = {name: [[0.5 - worse, 0.7], [0.6, 0.8], [0.6, 0.9]] for name in students}
    asked = PictureOptions(
        datasets=dict.fromkeys(students, "set"),
        published=Published("test", "error", {"a": 9.0 + worse, "d": 20.0}),
        sweeps={name: SweepParams(option=name, values={"a": 0, "c": math.inf, "b": 0.5}) for name in ("p", "q")},
        terms={"a": TermCurves({"ce": [[2.0 - worse, 1.0]]}, [[50.0, 20.0]])},
    )
    return {picture.name: picture.png for picture in draw_metrics(TEACHERS, students, groups, logged, asked)}


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, other = everything(), everything(0.1)
    assert list(first) == ["accuracy.png", "pareto.png", "curves.png", "sweep-p.png", "sweep-q.png", "terms.png"]
    assert first == everything()
    assert [name for name in first if first[name] == other[name]] == []
