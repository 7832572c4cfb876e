from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, read_json
from pipeline.base.statistics import compute_gap_closed, summarize
from pipeline.report import build as room
from pipeline.report import metrics_pictures as drawing
from pipeline.report.figures.pareto import LABEL, MARKER, find_front, place_labels, spread_equal_sizes
from pipeline.report.groups import Unit, group_students
from pipeline.report.loss_weights import collect_changing_weights, compute_weights
from pipeline.report.metrics_files import find_labels_only, select_best_taught
from pipeline.report.metrics_pictures import draw_metrics
from pipeline.report.page import Report, ReportTable
from pipeline.report.pictures.canvas import Picture
from pipeline.report.sort_order import sort_cells
from pipeline.report.statistics_section import MOST_PAIRS
from pipeline.study.params_file import parse_study
from tests.conftest import Run, write_study

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def student(mean: float, weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "test_accuracy": {"mean": mean, "std": 0.01, "n": 2}, "test_accuracy_per_seed": [mean - 0.01, mean + 0.01],
        "losses": {name: {"weight": weight, "options": {}} for name, weight in weights.items()}, "taught_by": [] if set(weights) == {"ce"} else ["big"], "rule": "the last epoch",
        "parameters": 1234, "bytes": 4936, "bits": 39488, "dataset": "f" * 64, "pretrain": [], "phase_epochs": [2],
        "init": None, "consumed": {}, "prepared": {}, "restores": [0, 0], "test_accuracy_per_peer": None,
    }  # fmt: skip
    return {**made, **more}


def of_seeds(*accuracies: float, **more: Any) -> dict[str, Any]:
    """A student of such seeds, taught unless it is said that it is not."""
    own = {"test_accuracy": vars(summarize(accuracies)), "test_accuracy_per_seed": list(accuracies)}
    return student(
        0.5, more.pop("weights", {"soft_targets": 1.0}), **{**own, "restores": [0] * len(accuracies), **more}
    )


def build(
    teachers: dict[str, Any], students: dict[str, Any], baseline: Any = None, *, groups: dict[str, list[str]] | None = None,
    unit: Unit = "run", **more: Any,
) -> Report:  # fmt: skip
    """The report without the pictures of the metrics, which take seconds."""
    return room.build_report(
        teachers, students, group_students(students, groups or {}, unit), baseline=baseline, **more
    )


def pictures_of(
    students: dict[str, Any], curves: dict[str, Any] | None = None, **groups: list[str]
) -> dict[str, Picture]:
    """The pictures of the metrics, by name."""
    made = draw_metrics(TEACHERS, students, group_students(students, groups, "run"), curves or {})
    return {picture.name: picture for picture in made}


def statistics_of(made: Report) -> str:
    """The section, as Markdown."""
    return made.markdown().partition("## Statistics\n\n")[2].partition("\n\n## Pictures")[0]


TEACHERS = {"big": {"test_accuracy": 0.9, "parameters": 56789, "bytes": 227156, "bits": 1817248}}
STUDENTS = {"plain": student(0.7, {"ce": 1.0}), "kd": student(0.85, {"ce": 0.5, "soft_targets": 0.5})}
CURVES = {"plain": [[0.5, 0.6], [0.6, 0.7]], "kd": [[0.6, 0.8], [0.7, 0.8]]}


def test_the_table_says_what_the_metrics_say() -> None:
    made = build(TEACHERS, STUDENTS)
    assert [row.cells() for row in made.rows] == [
        ("teacher big", "", "", "90.00", "", "", "1", "56,789", "227,156", "1,817,248", "-", "-", ""),
        ("student plain", "1.0 ce", "", "70.00", "1.00", "", "2", "1,234", "4,936", "39,488", "-", "-", ""),
        (
            "student kd", "0.5 ce + 0.5 soft_targets", "", "85.00", "1.00", "", "2", "1,234", "4,936", "39,488", "-", "-",
            "75 %",
        ),
    ]  # fmt: skip
    row = "| student kd | 0.5 ce + 0.5 soft_targets |  | 85.00 | 1.00 |  | 2 | 1,234 | 4,936 | 39,488 | - | - | 75 % |"
    assert row in made.markdown()
    assert "<td>0.5 ce + 0.5 soft_targets</td><td></td><td>85.00</td>" in made.html()
    assert made.summary()["students"]["kd"]["gap_closed"] == pytest.approx(0.75)


def test_students_that_differ_in_their_dumps_alone_have_different_rows() -> None:
    digests = {"big-logits": "a" * 64, "big-hints": "b" * 64, "voter-logits": "c" * 64}
    read = {"one": ["big-logits", "big-hints"], "other": ["voter-logits"]}
    students = {
        name: student(0.8, {"soft_targets": 1.0}, consumed={dump: digests[dump] for dump in dumps})
        for name, dumps in read.items()
    }
    made = [row.cells() for row in build(TEACHERS, students).rows[1:]]
    assert [cells[2] for cells in made] == ["big-logits, big-hints", "voter-logits"]
    assert made[0][1] == made[1][1]


def test_what_an_image_costs_is_told_where_it_is_known() -> None:
    costs = {"multiply_adds": 1234567, "activation_bytes": 4096}
    made = build(TEACHERS, {"plain": student(0.7, {"ce": 1.0}, **costs)})
    at = [made.table.columns.index(name) for name in ("multiply-adds", "activation bytes")]
    assert [[row.cells()[place] for place in at] for row in made.rows] == [["-", "-"], ["1,234,567", "4,096"]]


def test_schedules_and_options_are_told() -> None:
    term = {"weight": {"name": "linear", "start": 1.0, "end": 0.0}, "options": {"temperature": 4.0}}
    made = build(TEACHERS, {"kd": {**STUDENTS["kd"], "losses": {"soft_targets": term}}})
    assert made.rows[-1].losses == "linear (start 1.0, end 0.0) soft_targets (temperature 4.0)"


def test_phases_before_the_last_are_told() -> None:
    one, half = {"weight": 1.0, "options": {}}, {"weight": 0.5, "options": {}}
    phases = [
        {"hint_mse": {"weight": 1.0, "options": {"hint": "features"}}},
        {"hint_mse": half},
        {"ce": one, "tsne": half},
    ]
    metrics = student(0.8, {"ce": 1.0}, pretrain=phases, taught_by=["big"], phase_epochs=[2] * 4)
    told = build(TEACHERS, {"hinted": metrics}).rows[-1].losses
    assert told == "hint_mse (hint features), then 0.5 hint_mse, then 1.0 ce + 0.5 tsne, then 1.0 ce"
    assert build(TEACHERS, {"own": {**metrics, "pretrain": [], "phase_epochs": [2]}}).rows[-1].losses == "1.0 ce"


def test_a_student_that_was_taught_before_its_labels_is_no_baseline() -> None:
    hint = {"hint_mse": {"weight": 1.0, "options": {}}}
    label = {"ce": {"weight": 1.0, "options": {}}}
    hinted = student(0.8, {"ce": 1.0}, pretrain=[hint], taught_by=["big"], phase_epochs=[2, 2])
    twice = student(0.8, {"ce": 1.0}, pretrain=[label], phase_epochs=[2, 2])
    assert find_labels_only({"hinted": hinted, "twice": twice, "plain": STUDENTS["plain"]}) == "twice"
    assert find_labels_only({"hinted": hinted}) is None
    row = build(TEACHERS, {"hinted": hinted, **STUDENTS}).rows[1]
    assert row.gap_closed == pytest.approx(0.5)


DOUBT = {"doubt": "says 'a' whatever it is shown"}
DOUBTS = {"doubts": {"seed 0": "is no better than chance"}}


@pytest.mark.parametrize(
    ("big", "small", "plain", "kd", "gap"),
    [
        ({}, {}, {}, {}, 0.75),
        (DOUBT, {}, {}, {}, None),
        ({}, DOUBT, {}, {}, 0.75),  # not the best of those that taught it
        ({}, {}, DOUBTS, {}, None),
        (DOUBT, {}, DOUBTS, DOUBTS, None),
        ({}, {}, {}, DOUBTS, 0.75),
    ],
    ids=["none", "teacher", "another teacher", "baseline", "all", "student"],
)
def test_a_gap_between_doubtful_networks_is_no_number(
    big: dict[str, Any], small: dict[str, Any], plain: dict[str, Any], kd: dict[str, Any], gap: float | None
) -> None:
    teachers = {"big": {**TEACHERS["big"], **big}, "small": {**TEACHERS["big"], "test_accuracy": 0.1, **small}}
    taught = {**STUDENTS["kd"], "taught_by": ["big", "small"], **kd}
    made = build(teachers, {"plain": {**STUDENTS["plain"], **plain}, "kd": taught})
    assert made.rows[-1].gap_closed == (None if gap is None else pytest.approx(gap))
    assert made.rows[-1].cells()[-1] == ("" if gap is None else "75 %")
    told = "Gap closed is empty too where plain, or the best teacher, is doubtful."
    assert (told in made.notes) == bool(big or small or plain)
    assert len([note for note in made.notes if note.startswith("Doubtful: ")]) == sum(
        map(bool, (big, small, plain, kd))
    )


def test_the_best_taught_students_are_found() -> None:
    students = {
        **STUDENTS, "far": student(0.99, {"tsne": 1.0}, dataset="e" * 64), "best": student(0.9, {"tsne": 1.0}),
        "labels": student(0.95, {"ce": 1.0}), "worst": student(0.1, {"tsne": 1.0}),
    }  # fmt: skip
    assert select_best_taught(students, "f" * 64, "plain", 3) == ("plain", "best", "kd")
    assert select_best_taught(students, "f" * 64, "kd", 3) == ("kd", "best", "worst")
    assert select_best_taught(students, "f" * 64, None, 9) == ("best", "kd", "worst")
    assert select_best_taught(students, "e" * 64, "plain", 3) == ("far",)
    assert select_best_taught(students, "d" * 64, "plain", 3) == ()


def test_pictures_have_captions() -> None:
    picture = Picture("bits-a.png", "KL(P || Q) of a_b * 2 is <1>", b"png")
    made = build(TEACHERS, STUDENTS, pictures=[picture], more_notes=["3 of 4 are shown."])
    assert list(made.pictures) == ["bits-a.png"]
    assert made.markdown().endswith("\n![bits-a](bits-a.png)\n\n*KL(P || Q) of a_b \\* 2 is <1\\>*\n")
    assert (
        '<img alt="bits-a.png" src="data:image/png;base64,cG5n">\n<figcaption>KL(P || Q) of a_b * 2 is &lt;1&gt;<'
        in made.html()
    )
    assert "\n- 3 of 4 are shown.\n" in made.markdown()
    assert "<li>3 of 4 are shown.</li>" in made.html()


def test_the_pictures_of_every_study() -> None:
    own = pictures_of(STUDENTS, CURVES)
    assert list(own) == ["accuracy.png", "pareto.png", "curves.png"]
    assert all(picture.png.startswith(b"\x89PNG") for picture in own.values())
    made = build(TEACHERS, STUDENTS, pictures=own.values())
    assert re.findall(r"!\[\w+\]\((.*)\)", made.markdown()) == list(own)
    assert made.html().count("<img") == 3
    assert made.html().count("<figure>") == 1
    assert list(made.captions) == ["pareto.png"]


def test_students_of_another_data_set_are_not_compared() -> None:
    students = {**STUDENTS, "far": student(0.8, {"soft_targets": 1.0}, dataset="e" * 64)}
    assert build(TEACHERS, students).rows[-1].gap_closed is None


def test_the_baseline_may_be_named() -> None:
    students = {**STUDENTS, "other": student(0.8, {"ce": 1.0})}
    rows = {row.name: row for row in build(TEACHERS, students, "other").rows}
    assert rows["kd"].gap_closed == pytest.approx(0.5)


def test_a_report_needs_no_students_and_no_curves() -> None:
    assert len(build(TEACHERS, {}).rows) == 1
    assert "## Pictures" not in build(TEACHERS, {}).markdown()
    assert "curves.png" in pictures_of({})
    assert pictures_of(STUDENTS, {"plain": [[]], "kd": [[]]})["curves.png"] == pictures_of(STUDENTS)["curves.png"]


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, again = (pictures_of(STUDENTS, CURVES) for _ in range(2))
    assert first == again
    other = pictures_of({**STUDENTS, "kd": student(0.86, {"ce": 1.0})}, {**CURVES, "kd": [[0.6, 0.9]]})
    assert [name for name in first if first[name] == other[name]] == []


def test_pictures_show_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """One box, one curve and one point a group; curves that are not equally long stay their students'."""
    shown: dict[str, Any] = {}
    for name in ("draw_box_plot", "draw_pareto", "draw_curves"):
        monkeypatch.setattr(drawing, name, lambda *given, name=name, **_: shown.update({name: given}) or b"")
    students, groups = folded()
    students["ce-1"] |= {"parameters": 1238, "bytes": 4952}
    curves = {name: [[0.1, 0.2], [0.3, 0.4]] for name in students} | {"ce-3": [[0.1]]}
    list(draw_metrics(TEACHERS, students, group_students(students, groups, "run"), curves))
    boxes, lines, dot, source = shown["draw_box_plot"]
    assert ({name: len(values) for name, values in boxes.items()}, lines) == ({"ce": 8, "tsne": 8}, {"big": 0.9})
    assert (dot, source) == ("one run (seed)", {})
    points, comparable = shown["draw_pareto"]
    assert comparable == [["teacher big", "ce", "tsne"]]
    assert points["ce"].sizes == {"parameters": 1235, "bytes": 4940, "bits": 39488}
    assert points["ce"].accuracy == pytest.approx(0.6155)
    assert points["ce"].interval[0] < 0.6155 < points["ce"].interval[1]
    assert (points["teacher big"].teacher, points["teacher big"].interval) == (True, None)
    (((_, drawn_curves),),) = shown["draw_curves"]
    assert {name: len(runs) for name, runs in drawn_curves.items()} == {
        "ce-0": 2,
        "ce-1": 2,
        "ce-2": 2,
        "ce-3": 1,
        "tsne": 8,
    }


def test_a_front_is_of_one_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, Any] = {}
    monkeypatch.setattr(drawing, "draw_pareto", lambda points, comparable: shown.update(comparable=comparable) or b"")
    far = {"far": of_seeds(0.8, dataset="e" * 64, taught_by=["other"]), "alone": of_seeds(0.8, dataset="d" * 64)}
    teachers = {**TEACHERS, "other": TEACHERS["big"]}
    list(draw_metrics(teachers, {**STUDENTS, **far}, group_students({**STUDENTS, **far}, {}, "run"), {}))
    assert shown["comparable"] == [["teacher big", "plain", "kd"], ["teacher other", "far"], ["teacher big", "alone"]]


def test_names_cannot_inject_markup() -> None:
    made = build(TEACHERS, {"<script>": STUDENTS["plain"]})
    assert made.html().count("<script>") == 1  # our own


def test_the_page_names_no_other_place() -> None:
    page = build(TEACHERS, STUDENTS, pictures=pictures_of(STUDENTS).values()).html()
    links = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert len(links) >= 3
    assert all(link.startswith("data:") for link in links)
    assert "http" not in page
    assert not re.findall(r"<(?:script|link)[^>]*src|@import|fetch\(|import\(", page)


def test_the_title_is_the_studys() -> None:
    made = build(TEACHERS, STUDENTS, title="`tsne` & friends")
    assert made.markdown().startswith("# `tsne` & friends\n\n| network |")
    assert "<title>tsne &amp; friends: teachercache report</title>" in made.html()
    assert "<h1><code>tsne</code> &amp; friends</h1>" in made.html()


def test_the_report_command_titles_its_page(run: Run, copy_of: Path, study: dict[str, Any]) -> None:
    assert run(copy_of, "report") == 0
    assert (copy_of / "data/report/report.md").read_text().startswith("# copy\n")
    (copy_of / ".git").mkdir()  # a repository's root, which a clone may call otherwise: the same bytes there
    assert run(copy_of, "report") == 0
    assert (copy_of / "data/report/report.md").read_text().startswith("# Report\n")
    study["report"] = {"title": "Digits, once more"}
    assert run(write_study(copy_of, study), "report") == 0
    assert (copy_of / "data/report/report.md").read_text().startswith("# Digits, once more\n")
    study["report"] = {"title": " "}
    with pytest.raises(InputError, match=r"report\.title: expected"):
        parse_study(study)


def orders(page: str) -> list[list[tuple[list[int], list[int]]]]:
    """Of each table that can be sorted: by column, its rows in increasing and in decreasing order."""
    told = [re.findall(r'<col data-ascending="(.*?)" data-descending="(.*?)">', group) for group in
            re.findall("<colgroup>(.*?)</colgroup>", page)]  # fmt: skip
    return [[(list(map(int, up.split())), list(map(int, down.split()))) for up, down in table] for table in told]


def test_tables_can_be_sorted_by_each_column() -> None:
    made = build(TEACHERS, SEEDS)
    main = orders(made.html())[0]
    assert len(main) == len(made.table.columns)
    names = [row.name for row in made.rows]
    by_accuracy, by_interval = (
        main[made.table.columns.index(title)] for title in ("test accuracy (%)", "95 % interval")
    )
    assert [names[place] for place in by_accuracy[0]] == ["plain", "logits", "two", "kd", "big"]
    assert [names[place] for place in by_accuracy[1]] == ["big", "kd", "two", "logits", "plain"]
    assert [names[place] for place in by_interval[1]] == ["kd", "logits", "plain", "big", "two"]  # blanks are last
    assert all(sorted(up) == sorted(down) == [0, 1, 2, 3, 4] for up, down in main)
    assert "<colgroup>" not in ReportTable(("a", "n"), (("b", "1"),)).html()  # nothing to sort


@pytest.mark.parametrize(
    ("cells", "increasing"),
    [
        (("10.5", "9", "1,234", "-3"), [3, 1, 0, 2]),
        (("97.2 ± 0.3", "100.0 ± 0.1", "98.1 ± 2.2"), [0, 2, 1]),
        (("+0.84 points", "-1.00 points", "+0.10 points"), [1, 2, 0]),
        (("-9.34 to -3.32", "", "+2.54 to +10.13", "-", "-11.0 to 4.0"), [4, 0, 2, 1, 3]),
        (("0.0001", "< 0.0001", "> 0.0001", "2e-05"), [3, 1, 0, 2]),
        (("42 %", "104 %", "-8 %"), [2, 0, 1]),
        (("unclear", "reproduced", "not reproduced (1 of 3)"), [2, 1, 0]),
        (("3", "3x3", "20"), [0, 1, 2]),  # one is no number, so all are text
        (("2", "1", "2", "1"), [1, 3, 0, 2]),
    ],
)
def test_cells_are_sorted_as_what_they_are(cells: tuple[str, ...], increasing: list[int]) -> None:
    assert sort_cells(cells)[0] == increasing


def test_equal_cells_keep_their_order_and_blanks_stay_last() -> None:
    assert sort_cells(("1", "", "2", "1", "-")) == ([0, 3, 2, 1, 4], [2, 0, 3, 1, 4])
    assert sort_cells(("b-10", "B-9", "a"), numbers=False) == ([2, 1, 0], [0, 1, 2])
    assert sort_cells(("10 nets", "9 nets"), numbers=False)[0] == [1, 0]


def test_a_page_fits_its_window() -> None:
    """Every table in a box of its own that scrolls; long words break."""
    page = build(TEACHERS, SEEDS).html()
    assert page.count("<table") == page.count('<div class="wide"><table') >= 3
    (widest,) = map(int, re.findall(r"body \{[^}]*max-width: (\d+)em", page))
    assert 15 * (widest + 2) <= 1300  # at 15 pixels an em, padding included
    assert ".wide { overflow-x: auto; }" in page
    assert re.search(r"body \{[^}]*overflow-wrap: anywhere", page)


PROBE = """<script>
const buttons = document.querySelectorAll("th button"), table = document.querySelector("table"), seen = [];
const note = () => seen.push([...table.tBodies[0].rows].map(row => row.cells[0].textContent).join() + " "
  + [...table.tHead.rows[0].cells].map(head => head.getAttribute("aria-sort")).filter(Boolean).join());
note();
for (const place of [3, 3, 3, 0]) { buttons[place].click(); note(); }
seen.push(document.documentElement.scrollWidth <= window.innerWidth ? "fits" : "is too wide");
document.title = seen.join(";");
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_sorts_the_page_and_shows_it_in_1300_pixels(tmp_path: Path) -> None:
    students = {
        **SEEDS,
        "a-very-long-name-of-a-student" * 3: of_seeds(0.7, 0.7, 0.7, weights={"soft_targets" * 9: 1.0}),
    }
    page = tmp_path / "page.html"
    page.write_text(build(TEACHERS, students).html().replace("</body>", f"{PROBE}</body>"))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([*command, profile, page.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    (title,) = re.findall("<title>(.*?)</title>", done.stdout)
    *seen, width = title.replace("student ", "").replace("a-very-long-name-of-a-student" * 3, "long").split(";")
    as_it_was = "teacher big,plain,kd,logits,two,long "
    assert seen == [
        as_it_was, "long,plain,logits,two,kd,teacher big ascending", "teacher big,kd,two,logits,plain,long descending",
        as_it_was, "long,kd,logits,plain,two,teacher big ascending",
    ]  # fmt: skip
    assert width == "fits"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_the_page_and_asks_for_nothing(run: Run, copy_of: Path, tmp_path: Path) -> None:
    assert run(copy_of, "report") == 0
    log = tmp_path / "net.json"
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(copy_of / "data/report")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}", "--virtual-time-budget=3000", "--dump-dom", f"{address}/report.html",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.count("<img") == 3
    assert "<td>student kd</td>" in done.stdout
    server.shutdown()
    server.server_close()
    assert asked == ["/report.html"]
    urls = set(re.findall(r'"url":"([a-z]+:[^"]{0,60})', log.read_text()))
    browsers_own = {url for url in urls if re.match(r"https?://[a-z0-9.]*\.(google|googleapis|gvt1)\.com/", url)}
    assert f"{address}/report.html" in urls
    assert all(url.startswith(address) for url in urls - browsers_own)


def test_the_report_command_writes_its_files(run: Run, copy_of: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(copy_of, "report") == 0
    folder = copy_of / "data/report"
    assert sorted(path.name for path in folder.iterdir()) == [
        "accuracy.png", "curves.png", "pareto.png", "report.html", "report.md", "statistics.json",
    ]  # fmt: skip
    assert set(read_json(folder / "statistics.json", "")["groups"]) == {"baseline", "kd"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    told = capsys.readouterr().out
    assert "student kd" in told
    assert "big-logits" in told
    assert "multiply" not in told  # the pages have it
    cost = read_json(copy_of / "data/metrics/students/kd.json", "")["multiply_adds"]
    columns, row = (
        line.split(" | ")
        for line in (folder / "report.md").read_text().splitlines()
        if re.match(r"\| (network|student kd) ", line)
    )
    assert row[columns.index("multiply-adds")] == f"{cost:,}"


def test_the_report_command_draws_what_is_asked_for(run: Run, copy_of: Path, study: dict[str, Any]) -> None:
    study["report"] = {
        "curves": "whole", "terms": ["kd"], "published": {"error": {"kd": 5.0}},
        "sweeps": {"soft": {"option": "weight", "values": {"kd": float("inf"), "baseline": 0}}},
    }  # fmt: skip
    folder = copy_of / "data/report"
    assert run(copy_of, "report") == 0
    before = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert run(write_study(copy_of, study), "report") == 0
    after = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert after.keys() - before.keys() == {"sweep-soft.png", "terms.png"}
    assert {name for name in before if before[name] != after[name]} == {"accuracy.png", "curves.png"}
    markdown = (folder / "report.md").read_text()
    assert "*Error against weight, whose values are evenly spaced, not to scale: test error, and validation" in markdown


SEEDS = {
    "plain": of_seeds(0.80, 0.82, 0.81, weights={"ce": 1.0}), "kd": of_seeds(0.86, 0.87, 0.89),
    "logits": of_seeds(0.83, 0.82, 0.84), "two": of_seeds(0.9, 0.8),
}  # fmt: skip


def test_intervals_stand_in_the_table_where_there_are_three_seeds() -> None:
    rows = {row.name: row.cells() for row in build(TEACHERS, SEEDS).rows}
    # t(0.975, 2) = 4.302653, so 81 +- 4.302653 * 1 / sqrt(3).
    assert rows["plain"][3:7] == ("81.00", "1.00", "78.52 to 83.48", "3")
    assert rows["two"][4:7] == ("7.07", "", "2")
    summed = build(TEACHERS, SEEDS).summary()["students"]
    assert summed["plain"]["low"] == pytest.approx(0.81 - 0.0248414)
    assert (summed["two"]["low"], summed["two"]["high"]) == (None, None)


def test_the_statistics_are_told() -> None:
    told = statistics_of(build(TEACHERS, SEEDS))
    assert "Fewer than 3 values, not computed: two." in told
    # Differences 0.06, 0.05, 0.08: mean 0.063333, std 0.0152753, t = 7.1813 on 2 degrees of freedom.
    assert "| kd | +6.33 | +2.54 to +10.13 | 0.019 | 4.15 | 3 |" in told
    assert "One-way analysis of variance of plain, kd, logits: F(2, 6) = 21.77, p = 0.0018, eta² = 0.879" in told
    assert "Tukey's honestly significant difference: 2 of 3 pairs differ, at" in told
    assert "| plain - kd | -6.33 | -9.34 to -3.32 | 0.0016 |" in told
    assert told.count("two") == 1
    assert "nan" not in told


def test_the_statistics_are_json_too() -> None:
    made = json.loads(encode_json(build(TEACHERS, SEEDS).numbers))
    assert set(made) == {"level", "fewest", "reported_epoch", "groups", "baseline", "against_baseline", "anova"}
    assert (made["baseline"], made["fewest"], made["reported_epoch"]["kd"]) == ("plain", 3, "the last epoch")
    assert made["groups"]["kd"]["values"] == [0.86, 0.87, 0.89]
    assert made["groups"]["kd"]["low"] < 0.8733 < made["groups"]["kd"]["high"]
    assert (made["groups"]["two"]["low"], made["groups"]["two"]["reason"]) == (None, "fewer than 3 values")
    assert set(made["against_baseline"]) == {"kd", "logits", "two"}
    assert made["against_baseline"]["two"]["reason"] == "another number of seeds"
    assert made["against_baseline"]["kd"]["effect"] == pytest.approx(4.146, abs=1e-3)
    ((analysis),) = made["anova"]
    assert (analysis["groups"], analysis["left_out"]) == (["plain", "kd", "logits"], ["two"])
    assert [pair["groups"] for pair in analysis["pairs"]] == [["plain", "kd"], ["plain", "logits"], ["kd", "logits"]]


def folds(mean: float, weights: dict[str, Any], seeds: int = 2) -> list[dict[str, Any]]:
    """Students of one method on four folds."""
    return [
        of_seeds(*(mean + 0.01 * fold + 0.001 * seed for seed in range(seeds)), dataset=f"{fold}" * 64, weights=weights)
        for fold in range(4)
    ]


def folded() -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Two methods of which one is ahead by 0.1 and a little more on each fold, and their groups."""
    students = {f"ce-{fold}": metrics for fold, metrics in enumerate(folds(0.6, {"ce": 1.0}))}
    for fold, metrics in enumerate(folds(0.7, {"tsne": 1.0})):
        ahead = [accuracy + 0.002 * fold for accuracy in metrics["test_accuracy_per_seed"]]
        students[f"tsne-{fold}"] = of_seeds(*ahead, dataset=metrics["dataset"], weights={"tsne": 1.0})
    return students, {group: [name for name in students if name.startswith(f"{group}-")] for group in ("ce", "tsne")}


def test_a_method_on_each_fold_is_one_group() -> None:
    students, groups = folded()
    units: dict[Unit, int] = {"student": 4, "run": 8}
    for unit, n in units.items():
        made = build(TEACHERS, students, groups=groups, unit=unit)
        against = made.numbers["against_baseline"]["tsne"]
        assert (made.numbers["baseline"], against["n"]) == ("ce", n)
        assert against["mean"] == pytest.approx(0.103)
        assert (made.numbers["anova"][0]["df_between"], made.numbers["anova"][0]["df_within"]) == (1, 2 * n - 2)
    told = statistics_of(build(TEACHERS, students, groups=groups, unit="student"))
    assert "| ce | ce-0, ce-1, ce-2, ce-3 | 61.55 | 1.29 | 59.50 to 63.60 | 4 |" in told
    assert "one student, the mean over its seeds" in told
    alone = build(TEACHERS, students)
    assert "Fewer than 3 values, not computed: ce-0, ce-1" in statistics_of(alone)
    assert alone.numbers["against_baseline"]["tsne-1"]["reason"] == "other data sets"
    assert all(analysis["f"] is None for analysis in alone.numbers["anova"])


def test_gaps_are_closed_from_the_baseline_of_the_fold() -> None:
    students, groups = folded()
    rows = {row.name: row for row in build(TEACHERS, students, groups=groups).rows}
    for fold in range(4):
        baseline = 0.6005 + 0.01 * fold
        assert rows[f"tsne-{fold}"].gap_closed == pytest.approx((0.1 + 0.002 * fold) / (0.9 - baseline))
    assert build(TEACHERS, students).rows[-1].gap_closed is None


def test_what_cannot_be_paired_says_why() -> None:
    students, groups = folded()
    turned = {"ce": groups["ce"], "tsne": groups["tsne"][::-1]}
    made = build(TEACHERS, students, groups=turned, unit="student")
    assert (
        made.numbers["against_baseline"]["tsne"]["reason"]
        == "another number of students, or in another order of data sets"
    )
    assert "Not paired with ce, another number of students, or in another order of data sets: tsne." in statistics_of(
        made
    )
    assert len(made.numbers["anova"]) == 1  # the same folds all the same
    more = {**SEEDS, "more": of_seeds(0.8, 0.81, 0.82, 0.83), "same": of_seeds(0.81, 0.83, 0.82)}
    told = statistics_of(build(TEACHERS, more))
    assert "Not paired with plain, another number of seeds: more." in told
    assert "| same | +1.00 | +1.00 to +1.00 |  |  | 3 |" in told
    assert "No p, all differences are equal: same." in told


def test_students_of_several_data_sets_are_analysed_apart() -> None:
    far = {f"far-{name}": {**metrics, "dataset": "e" * 64} for name, metrics in SEEDS.items()}
    made = build(TEACHERS, {**SEEDS, **far})
    assert [analysis["groups"] for analysis in made.numbers["anova"]] == [
        ("plain", "kd", "logits"), ("far-plain", "far-kd", "far-logits"),
    ]  # fmt: skip
    only = build(TEACHERS, {**SEEDS, **far}, among=["plain", "logits", "far-kd"])
    assert [analysis["groups"] for analysis in only.numbers["anova"]] == [("plain", "logits")]
    assert set(only.numbers["against_baseline"]) == set(made.numbers["against_baseline"])


def test_many_pairs_are_told_in_part() -> None:
    far = {f"s-{n}": of_seeds(0.5, 0.501, 0.502) for n in range(6)} | {"best": of_seeds(0.9, 0.901, 0.902)}
    told = statistics_of(build(TEACHERS, far))
    assert "6 of 21 pairs differ, at" in told
    assert told.count(" - best |") == 6
    assert " - s-" not in told
    far |= {f"t-{n}": of_seeds(0.7 + 0.01 * n, 0.701, 0.702) for n in range(6)}
    told = statistics_of(build(TEACHERS, far))
    assert f", the {MOST_PAIRS} of largest difference below, at" in told
    assert "13 groups (s-0, ..., t-5)" in told
    assert told.count(" - ") == MOST_PAIRS


def test_without_a_baseline_or_students_there_is_less_to_say() -> None:
    taught = {"kd": SEEDS["kd"], "logits": SEEDS["logits"]}
    made = build(TEACHERS, taught)
    assert "No student learns from labels alone" in statistics_of(made)
    assert (made.numbers["baseline"], made.numbers["against_baseline"]) == (None, {})
    assert len(made.numbers["anova"]) == 1
    assert "Statistics" not in build(TEACHERS, {}).markdown()
    few = statistics_of(build(TEACHERS, STUDENTS))
    assert few.endswith("Fewer than 3 values, not computed: plain, kd.\n")


TWO_SIZES = {
    **SEEDS, "big-plain": of_seeds(0.60, 0.61, 0.62, weights={"ce": 1.0}), "big-kd": of_seeds(0.70, 0.71, 0.73),
}  # fmt: skip
OF_SIZES = {"plain": ["kd", "two"], "big-plain": ["big-kd"]}


def test_a_group_may_have_its_own_baseline() -> None:
    made = build(TEACHERS, TWO_SIZES, OF_SIZES)
    against, told = made.numbers["against_baseline"], statistics_of(made)
    assert set(against) == {"kd", "two", "big-kd"}
    assert against["kd"]["mean"] == pytest.approx(0.19 / 3)
    assert against["big-kd"]["mean"] == pytest.approx(0.31 / 3)  # 0.1, 0.1, 0.11
    assert made.numbers["baseline"] == OF_SIZES
    assert "How far ahead of plain, paired by" in told
    assert "How far ahead of big-plain, paired by" in told
    assert told.count("not corrected for the number of rows") == 1
    assert "Compared with no baseline: logits." in told


def test_gaps_are_closed_from_ones_own_baseline() -> None:
    rows = {row.name: row for row in build(TEACHERS, TWO_SIZES, OF_SIZES).rows}
    assert rows["big-kd"].gap_closed == pytest.approx((0.71 + 0.01 / 3 - 0.61) / (0.9 - 0.61))
    assert rows["kd"].gap_closed == pytest.approx((0.62 / 3 + 2 / 3 - 0.81) / (0.9 - 0.81))
    assert rows["logits"].gap_closed is None  # has none
    notes = build(TEACHERS, TWO_SIZES, OF_SIZES).notes
    assert "Each student has its own baseline: of kd, two it is plain; of big-kd it is big-plain." in notes
    doubtful = {**TWO_SIZES, "big-plain": {**TWO_SIZES["big-plain"], **DOUBTS}}
    gaps = {row.name: row.gap_closed for row in build(TEACHERS, doubtful, OF_SIZES).rows}
    assert gaps["big-kd"] is None
    assert gaps["kd"] == rows["kd"].gap_closed


def test_one_baseline_of_all_is_the_same_however_it_is_written() -> None:
    plain = build(TEACHERS, SEEDS, "plain")
    assert build(TEACHERS, SEEDS, {"plain": ["kd", "logits", "two"]}) == plain
    assert plain.numbers["baseline"] == "plain"
    some = build(TEACHERS, SEEDS, {"plain": ["kd"]})
    assert some.numbers["baseline"] == {"plain": ["kd"]}
    assert "Compared with no baseline: logits, two." in statistics_of(some)


def test_a_baseline_of_folds_is_its_group() -> None:
    students, groups = folded()
    made = build(TEACHERS, students, {"ce-0": ["tsne"]}, groups=groups)
    assert made.numbers == build(TEACHERS, students, groups=groups).numbers
    assert made.rows == build(TEACHERS, students, groups=groups).rows


def test_a_term_is_known_by_its_loss_and_a_start_is_told() -> None:
    probes = {name: {"loss": "probe_rmse", "weight": 0.5, "options": {"tap": name}} for name in ("hidden1", "hidden2")}
    start = {"student": "plain", "seed": 0, "weights_sha256": "a" * 64}
    made = build(TEACHERS, {"kd": student(0.8, {}, losses=probes, init=start), "plain": STUDENTS["plain"]})
    assert made.rows[1].losses == "from plain: 0.5 probe_rmse (tap hidden1) + 0.5 probe_rmse (tap hidden2)"


def test_labels_alone_are_seen_through_names_and_starts() -> None:
    named = student(0.8, {}, losses={"labels": {"loss": "ce", "weight": 1.0, "options": {}}})
    hidden = student(0.8, {}, losses={"ce": {"loss": "hint_mse", "weight": 1.0, "options": {}}})
    assert find_labels_only({"hidden": hidden, "named": named}) == "named"
    start = {"seed": 0, "weights_sha256": "a" * 64}
    after_kd = student(0.8, {"ce": 1.0}, init={"student": "kd", **start})
    after_plain = student(0.8, {"ce": 1.0}, init={"student": "plain", **start})
    assert find_labels_only({"after_kd": after_kd, "after_plain": after_plain, **STUDENTS}) == "after_plain"


def test_what_went_on_in_a_training_is_noted() -> None:
    students = {
        "plain": STUDENTS["plain"],
        "nan": student(0.8, {"ce": 1.0}, restores=[0, 3]),
        "cohort": student(0.8, {"mutual_kl": 1.0}, test_accuracy_per_peer=[[0.7, 0.8], [0.8, 0.92]]),
        "fooled": student(0.8, {"fool": 1.0}, prepared={"fool": {"discriminator_accuracy": [0.97, 0.99], "held_out": [6000, 6000]}}),
    }  # fmt: skip
    rule, gap, *notes = build(TEACHERS, students).notes
    assert rule == "Reported epoch of all students: the last epoch."
    assert gap.startswith("Gap closed: (student - plain) / (teacher - plain)")
    assert notes == [
        "nan met numbers that are not finite and went back to the epoch before: 0, 3 times, by seed.",
        "cohort is 2 peers that learn from each other; its accuracy of a seed is their mean. Each peer's mean over seeds: 75.00, 86.00 %.",
        "fooled: the discriminator of its term fool is right for 98.00 % (at least 97.00 %, over 2 seeds) of the logits of 6,000 samples that it was not trained on.",
    ]
    students["nan"]["rule"] = "the best epoch"
    first, second = build(TEACHERS, students).notes[:2]
    assert first == "Reported epoch of plain, cohort, fooled: the last epoch."
    assert second == "Reported epoch of nan: the best epoch."


def test_weights_are_those_of_every_phase() -> None:
    falling = {"name": "linear", "start": 1.0, "end": 0.0}
    one = {"weight": 1.0, "options": {}}
    metrics = student(
        0.8, {}, pretrain=[{"hint_mse": one}], losses={"ce": one, "labels": {"loss": "ce", "weight": falling, "options": {}}},
        phase_epochs=[2, 3],
    )  # fmt: skip
    assert compute_weights(metrics) == [{"hint_mse": [1.0, 1.0]}, {"ce": [1.0, 1.0, 1.0], "labels": [1.0, 0.5, 0.0]}]
    level = {"name": "linear", "start": 0.5, "end": 0.5}
    same = student(
        0.8, {}, losses={"ce": {"weight": level, "options": {}}}, pretrain=[{"ce": one}], phase_epochs=[2, 3]
    )
    assert list(collect_changing_weights({"falling": metrics, "same": same, **STUDENTS})) == ["falling"]
    assert list(collect_changing_weights({"falling": metrics, "same": same, "too": metrics})) == ["falling\ntoo"]


def test_weights_are_drawn_where_they_change() -> None:
    def png(end: float) -> bytes | None:
        term = {"weight": {"name": "linear", "start": 1.0, "end": end}, "options": {}}
        made = pictures_of({**STUDENTS, "kd": {**STUDENTS["kd"], "losses": {"tsne": term}}})
        return made["weights.png"].png if "weights.png" in made else None

    assert png(1.0) is None
    half = png(0.5)
    assert half is not None
    assert half.startswith(b"\x89PNG")
    assert png(0.5) == half != png(0.4)


def test_the_front_is_what_nothing_dominates() -> None:
    sizes, accuracies = [10, 20, 20, 30, 40, 5], [0.7, 0.8, 0.75, 0.8, 0.9, 0.6]
    made = find_front(sizes, accuracies)
    assert made == [5, 0, 1, 4]
    for place in range(len(sizes)):
        dominated = any(
            sizes[other] <= sizes[place] and accuracies[other] >= accuracies[place]
            and (sizes[other], accuracies[other]) != (sizes[place], accuracies[place])
            for other in range(len(sizes))
        )  # fmt: skip
        assert (place in made) != dominated
    assert find_front([1, 1], [0.5, 0.5]) == [0, 1]
    assert find_front([], []) == []


def test_points_of_one_size_stand_side_by_side() -> None:
    made = spread_equal_sizes([100, 100, 100, 5000])
    assert made[0] < made[1] < made[2]
    assert made[1] == pytest.approx(100)
    assert made[3] == pytest.approx(5000)
    assert made[2] / made[0] < 1.15
    assert max(spread_equal_sizes([100] * 20 + [5000])[:20]) / 100 < 1.3


def test_numbers_hide_neither_points_nor_each_other() -> None:
    spots = [(100 + 3.0 * (n % 4), 50 + 2.0 * n) for n in range(24)]
    boxes = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(spots, place_labels(spots), strict=True)]
    for place, (x, y) in enumerate(boxes):
        for other, (a, b) in enumerate(boxes):
            assert place == other or abs(x - a) >= LABEL[0] or abs(y - b) >= LABEL[1]
        for a, b in spots:
            assert abs(x - a) >= (LABEL[0] + MARKER[0]) / 2 or abs(y - b) >= (LABEL[1] + MARKER[1]) / 2
    assert len(set(place_labels([(0.0, 0.0)] * 150))) > 50  # even a crowd has an end


def test_a_table_says_the_same_in_both_languages() -> None:
    table = ReportTable(("who", "< how", "n"), (("a", "b & c", "1"),), texts=2)
    assert table.markdown() == ["| who | < how | n |", "|---|---|---:|", "| a | b & c | 1 |"]
    assert "<th>&lt; how</th>" in table.html()
    assert "<td>b &amp; c</td>" in table.html()
    made = build(TEACHERS, SEEDS)
    cells = re.findall(r"<td>(.*?)</td>", made.html())
    rows = [line for line in made.markdown().splitlines() if line.startswith("| ")]
    assert len(rows) > 12
    for cell in (cell for row in rows for cell in row.strip("|").split(" | ")):
        assert cell.strip() in cells or f"<th>{cell.strip()}</th>" in made.html(), cell


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"groups": {"both": ["kd", "kdd"]}}, r"report\.groups\.both: unknown student 'kdd'.*did you mean 'kd'"),
        ({"groups": {"both": ["kd", "kd"]}}, r"report\.groups\.both: expected each student once, found 'kd' in 'both'"),
        ({"groups": {"a": ["kd"], "b": ["baseline", "kd"]}}, r"report\.groups\.b: .*found 'kd' in 'a' too"),
        ({"groups": {"kd": ["kd"]}}, r"report\.groups\.kd: also the name of a student"),
        ({"groups": {"none": []}}, r"report\.groups\.none: expected at least 1 in the list"),
        ({"groups": {"a b": ["kd"]}}, r"report\.groups\.a b"),
        ({"unit": "seed"}, r"report\.unit: expected 'run' or 'student', found 'seed'"),
        ({"anova": ["kd"]}, r"report\.anova: expected at least 2 in the list"),
        ({"anova": ["kd", "base"]}, r"report\.anova: unknown group 'base'.*'baseline'"),
        ({"anova": ["kd", "kd"]}, r"report\.anova: expected each group once, found 'kd' twice"),
        (
            {"groups": {"all": ["kd"]}, "anova": ["kd", "baseline"]},
            r"report\.anova: 'kd' is compared as a part of group 'all'; name that",
        ),
        ({"baseline": "base"}, r"report\.baseline: unknown student 'base'"),
        ({"baseline": 5}, r"report\.baseline: expected a valid string, found 5"),
        ({"baseline": {}}, r"report\.baseline"),
        ({"baseline": {"base": ["kd"]}}, r"report\.baseline: unknown student 'base'"),
        ({"baseline": {"baseline": []}}, r"report\.baseline\.baseline: expected at least 1 in the list"),
        ({"baseline": {"baseline": "kd"}}, r"report\.baseline\.baseline: expected a list"),
        ({"baseline": {"baseline": ["kdd"]}}, r"report\.baseline\.baseline: unknown student or group 'kdd'.*'kd'"),
        ({"baseline": {"baseline": ["kd", "kd"]}}, r"report\.baseline\.baseline: expected each .* once, found 'kd' in"),
        (
            {"baseline": {"baseline": ["more"], "kd": ["more"]}},
            r"report\.baseline\.kd: expected each student or group once, found 'more' in 'baseline' too",
        ),
        (
            {"baseline": {"baseline": ["kd", "baseline"]}},
            r"report\.baseline\.baseline: expected others.*found 'baseline'",
        ),
        (
            {"groups": {"all": ["kd", "baseline"]}, "baseline": {"baseline": ["all"]}},
            r"report\.baseline\.baseline: expected others.*found 'all'",
        ),
        (
            {"groups": {"all": ["kd", "baseline"]}, "baseline": {"baseline": ["more"], "kd": ["more"]}},
            r"report\.baseline: expected each group once, found 'all' twice",
        ),
        (
            {"groups": {"all": ["kd"]}, "baseline": {"baseline": ["kd"]}},
            r"report\.baseline\.baseline: 'kd' is compared as a part of group 'all'; name that",
        ),
        ({"group": {}}, r"report: unknown key 'group'.*'groups'"),
    ],
)
def test_names_that_the_report_cannot_know_are_refused(study: dict[str, Any], section: Any, message: str) -> None:
    study["students"]["more"] = study["students"]["kd"]
    study["report"] = section
    with pytest.raises(InputError, match=message):
        parse_study(study)


def test_the_report_section_is_read(study: dict[str, Any]) -> None:
    study["report"] = {
        "groups": {"all": ["kd"]},
        "unit": "student",
        "anova": ["all", "baseline"],
        "baseline": "baseline",
    }
    made = parse_study(study).report
    assert (made.groups, made.unit, made.anova) == ({"all": ("kd",)}, "student", ("all", "baseline"))
    assert parse_study({**study, "report": {}}).report.unit == "run"
    assert (made.baselines, parse_study({**study, "report": {}}).report.baselines) == (("baseline",), ())
    several = parse_study({**study, "report": {"baseline": {"baseline": ["kd"]}}}).report
    assert (several.baseline, several.baselines) == ({"baseline": ("kd",)}, ("baseline",))


def test_summary_and_gap() -> None:
    made = summarize([0.5, 0.7, 0.6])
    assert made.mean == pytest.approx(0.6)
    assert made.n == 3
    assert made.std == pytest.approx(0.1)
    assert summarize([0.5]).std is None
    assert compute_gap_closed(0.85, 0.8, 0.9) == pytest.approx(0.5)
    assert compute_gap_closed(0.85, 0.9, 0.9) is None
