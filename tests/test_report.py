from __future__ import annotations

import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from pipeline import report
from pipeline.pictures.canvas import Picture
from pipeline.statistics import gap_closed, summary

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def student(mean: float, losses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "test_accuracy": {"mean": mean, "std": 0.01, "n": 2}, "test_accuracy_per_seed": [mean - 0.01, mean + 0.01],
        "losses": {name: {"weight": weight, "options": {}} for name, weight in losses.items()}, "taught_by": [] if set(losses) == {"ce"} else ["big"], "rule": "the last epoch",
        "parameters": 1234, "bytes": 4936, "dataset": "f" * 64, **more,
    }  # fmt: skip


TEACHERS = {"big": {"test_accuracy": 0.9, "parameters": 56789, "bytes": 227156}}
STUDENTS = {"plain": student(0.7, {"ce": 1.0}), "kd": student(0.85, {"ce": 0.5, "soft_targets": 0.5})}
CURVES = {"plain": [[0.5, 0.6], [0.6, 0.7]], "kd": [[0.6, 0.8], [0.7, 0.8]]}


def test_the_table_says_what_the_metrics_say() -> None:
    made = report.build(TEACHERS, STUDENTS, CURVES)
    assert [row.cells() for row in made.rows] == [
        ("teacher big", "", "90.00", "", "1", "56,789", "227,156", ""),
        ("student plain", "1.0 ce", "70.00", "1.00", "2", "1,234", "4,936", ""),
        ("student kd", "0.5 ce + 0.5 soft_targets", "85.00", "1.00", "2", "1,234", "4,936", "75 %"),
    ]
    assert "| student kd | 0.5 ce + 0.5 soft_targets | 85.00 | 1.00 | 2 | 1,234 | 4,936 | 75 % |" in made.markdown()
    assert "<td>0.5 ce + 0.5 soft_targets</td><td>85.00</td>" in made.html()
    assert made.summary()["students"]["kd"]["gap_closed"] == pytest.approx(0.75)


def test_schedules_and_options_are_told() -> None:
    term = {"weight": {"name": "linear", "start": 1.0, "end": 0.0}, "options": {"temperature": 4.0}}
    made = report.build(TEACHERS, {"kd": {**STUDENTS["kd"], "losses": {"soft_targets": term}}}, CURVES)
    assert made.rows[-1].losses == "linear (start 1.0, end 0.0) soft_targets (temperature 4.0)"


def test_phases_before_the_last_are_told() -> None:
    one, half = {"weight": 1.0, "options": {}}, {"weight": 0.5, "options": {}}
    phases = [
        {"hint_mse": {"weight": 1.0, "options": {"hint": "features"}}},
        {"hint_mse": half},
        {"ce": one, "tsne": half},
    ]
    metrics = student(0.8, {"ce": 1.0}, pretrain=phases, taught_by=["big"])
    told = report.build(TEACHERS, {"hinted": metrics}, {}).rows[-1].losses
    assert told == "hint_mse (hint features), then 0.5 hint_mse, then 1.0 ce + 0.5 tsne, then 1.0 ce"
    assert report.build(TEACHERS, {"old": {**metrics, "pretrain": []}}, {}).rows[-1].losses == "1.0 ce"


def test_a_student_that_was_taught_before_its_labels_is_no_baseline() -> None:
    hint = {"hint_mse": {"weight": 1.0, "options": {}}}
    label = {"ce": {"weight": 1.0, "options": {}}}
    hinted = student(0.8, {"ce": 1.0}, pretrain=[hint], taught_by=["big"])
    twice = student(0.8, {"ce": 1.0}, pretrain=[label])
    assert report.labels_only({"hinted": hinted, "twice": twice, "plain": STUDENTS["plain"]}) == "twice"
    assert report.labels_only({"hinted": hinted}) is None
    row = report.build(TEACHERS, {"hinted": hinted, **STUDENTS}, {}).rows[1]
    assert row.gap_closed == pytest.approx(0.5)


def test_the_best_taught_students_are_found() -> None:
    students = {
        **STUDENTS, "far": student(0.99, {"tsne": 1.0}, dataset="e" * 64), "best": student(0.9, {"tsne": 1.0}),
        "labels": student(0.95, {"ce": 1.0}), "worst": student(0.1, {"tsne": 1.0}),
    }  # fmt: skip
    assert report.best_taught(students, "f" * 64, "plain", 3) == ("plain", "best", "kd")
    assert report.best_taught(students, "f" * 64, "kd", 3) == ("kd", "best", "worst")
    assert report.best_taught(students, "f" * 64, None, 9) == ("best", "kd", "worst")
    assert report.best_taught(students, "e" * 64, "plain", 3) == ("far",)
    assert report.best_taught(students, "d" * 64, "plain", 3) == ()


def test_pictures_have_captions() -> None:
    picture = Picture("bits-a.png", "KL(P || Q) of a_b * 2 is <1>", b"png")
    made = report.build(TEACHERS, STUDENTS, CURVES, pictures=[picture], more_notes=["3 of 4 are shown."])
    assert list(made.pictures) == ["accuracy.png", "curves.png", "bits-a.png"]
    assert made.markdown().endswith("\n![bits-a](bits-a.png)\n\n*KL(P || Q) of a\\_b \\* 2 is \\<1\\>*\n")
    assert (
        '<img alt="bits-a.png" src="data:image/png;base64,cG5n">\n<figcaption>KL(P || Q) of a_b * 2 is &lt;1&gt;<'
        in made.html()
    )
    assert "\n- 3 of 4 are shown.\n" in made.markdown()
    assert "<li>3 of 4 are shown.</li>" in made.html()


def test_a_report_without_such_pictures_is_as_it_was() -> None:
    made = report.build(TEACHERS, STUDENTS, CURVES)
    assert made.markdown().endswith("another.\n\n![accuracy](accuracy.png)\n\n![curves](curves.png)\n")
    assert made.markdown().count("*") == 0
    assert made.html().count("<img") == 2
    assert "<figure>" not in made.html()


def test_students_of_another_data_set_are_not_compared() -> None:
    students = {**STUDENTS, "far": student(0.8, {"soft_targets": 1.0}, dataset="e" * 64)}
    assert report.build(TEACHERS, students, CURVES).rows[-1].gap_closed is None


def test_the_baseline_may_be_named() -> None:
    students = {**STUDENTS, "other": student(0.8, {"ce": 1.0})}
    rows = {row.name: row for row in report.build(TEACHERS, students, CURVES, "other").rows}
    assert rows["kd"].gap_closed == pytest.approx(0.5)


def test_a_report_needs_no_students_and_no_curves() -> None:
    assert len(report.build(TEACHERS, {}, {}).rows) == 1
    assert "curves.png" in report.build(TEACHERS, STUDENTS, {"plain": [[]], "kd": [[]]}).pictures


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, again = (report.build(TEACHERS, STUDENTS, CURVES) for _ in range(2))
    assert first.pictures == again.pictures
    assert first.html() == again.html()
    other = report.build(TEACHERS, {**STUDENTS, "kd": student(0.86, {"ce": 1.0})}, CURVES)
    assert other.pictures["accuracy.png"] != first.pictures["accuracy.png"]


def test_names_cannot_inject_markup() -> None:
    made = report.build(TEACHERS, {"<script>": STUDENTS["plain"]}, {})
    assert "<script>" not in made.html()


def test_the_page_names_no_other_place() -> None:
    page = report.build(TEACHERS, STUDENTS, CURVES).html()
    links = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert len(links) >= 3
    assert all(link.startswith("data:") for link in links)
    assert "http" not in page


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
    assert done.stdout.count("<img") == 2
    assert "<td>student kd</td>" in done.stdout
    server.shutdown()
    server.server_close()
    assert asked == ["/report.html"]
    urls = set(re.findall(r'"url":"([a-z]+:[^"]{0,60})', log.read_text()))
    browsers_own = {url for url in urls if re.match(r"https?://[a-z0-9.]*\.(google|googleapis|gvt1)\.com/", url)}
    assert f"{address}/report.html" in urls
    assert all(url.startswith(address) for url in urls - browsers_own)


def test_the_report_command_draws_both_pictures(run: Run, copy_of: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(copy_of, "report") == 0
    folder = copy_of / "data/report"
    assert sorted(path.name for path in folder.iterdir()) == ["accuracy.png", "curves.png", "report.html", "report.md"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    assert "student kd" in capsys.readouterr().out


def test_summary_and_gap() -> None:
    made = summary([0.5, 0.7, 0.6])
    assert made.mean == pytest.approx(0.6)
    assert made.n == 3
    assert made.std == pytest.approx(0.1)
    assert summary([0.5]).std is None
    assert gap_closed(0.85, 0.8, 0.9) == pytest.approx(0.5)
    assert gap_closed(0.85, 0.9, 0.9) is None
