"""Names are data: whatever a class, a claim or a stranger's teacher is called, pages and pictures say just that."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.base.plain_text import (
    escape_cell,
    escape_code,
    escape_markdown,
    escape_prose,
    escape_unprintable,
    render_prose,
    shorten_names,
)
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.card import render_card as cache_card
from pipeline.cache.store_plan import plan_store
from pipeline.report.figures import style
from pipeline.report.figures.accuracy import draw_box_plot
from pipeline.report.figures.curves import draw_curves
from pipeline.report.figures.loss_terms import TermCurves, draw_terms
from pipeline.report.figures.loss_weights import draw_weights
from pipeline.report.figures.pareto import NetworkPoint, draw_pareto
from pipeline.report.figures.sweep import SweepPoint, draw_sweep
from pipeline.report.page import Report, ReportSection, ReportTable
from pipeline.report.pictures.affinities import draw_affinities
from pipeline.report.pictures.canvas import describe_spelled_letters, fit_class_names
from pipeline.report.pictures.feature_map import draw_feature_map
from pipeline.report.pictures.hints import draw_maps, draw_vectors
from pipeline.report.pictures.multichannel import draw_bits
from pipeline.report.table import Row
from tests.conftest import Capture, Run, write_study
from tests.data_files import png, write_tree

NAMES = (
    r"$\frac$", "$1 to $5", "$a$ and $b$", "$", r"a\$b", "_a_", "__b__", "a_b", "x-_c_", "*d*", "~~e~~", "<b>bold</b>",
    "</td><script>alert(1)</script>", "<!-- f", "<https://g.h>", "i | j", "a\nb", "a\r\n# b", "`c`", "``d", "[e](f)",
    "![g](h)", "&lt;", "&#36;5", "k\\", "\\", "שלום", "سلام", "\u202eevil", "\x1b[31mred", "\x00", "\udcff", "[bold]x[/]",
    "猫", "犬", "🙂", "{name}", "%s %d", "# no title", "- no list", "1. no number", "l" * 200, " m ", "=", "---",
)  # fmt: skip
PRINTED = [name for name in NAMES if name.isprintable() and name == " ".join(name.split())]
CODE = "`c`"  # the one that the report takes for code: a user's own sentences, its claims and captions, may have some
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str, element: str) -> list[str]:
    """The text of each such element of the page that Markdown makes, all of which must be text."""
    inner = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", MARKDOWN.render(markdown), re.DOTALL)
    assert not [text for text in inner if "<" in text]
    return [html.unescape(text) for text in inner]


# ------------------------------------------------------------------ one line, Markdown, HTML


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_in_markdown_is_its_letters(name: str) -> None:
    assert escape_unprintable(name).isprintable()
    assert shown(f"| a | b |\n|---|---|\n| {escape_cell(name)} | 1 |\n", "td") == [
        escape_unprintable(name).strip(),
        "1",
    ]
    assert shown(f"It is {escape_markdown(name)}, and {escape_markdown(name)}.", "p") == [
        f"It is {escape_unprintable(name)}, and {escape_unprintable(name)}."
    ]
    assert shown(f"`{escape_code(name)}x`", "code") == [f"{escape_unprintable(name)}x".replace("`", "'")]
    assert shown(f"*{escape_markdown(f'of {name}.')}*", "em") == [f"of {escape_unprintable(name)}."]


def test_letters_that_do_not_print_are_written_out() -> None:
    assert escape_unprintable("a\nb\x1b[0m\u202e\udcff") == r"a\nb\x1b[0m\u202e\udcff"
    assert escape_unprintable("Käse, 猫 שלום 🙂") == "Käse, 猫 שלום 🙂"


@pytest.mark.parametrize(
    ("text", "page", "markdown"),
    [
        ("`a | <b>` and *c*", "<code>a | &lt;b&gt;</code> and *c*", r"`a | <b>` and \*c\*"),
        ("a `b", "a `b", r"a \`b"),
        ("``a`` `` b", "``a`` `` b", r"\`\`a\`\` \`\` b"),  # a pair of two is other code in Markdown
        ("`a``b`", "`a``b`", r"\`a\`\`b\`"),
        ("`</code><script>`", "<code>&lt;/code&gt;&lt;script&gt;</code>", "`</code><script>`"),
        ("it`s `so`", "it<code>s </code>so`", r"it`s `so\`"),
    ],
)
def test_code_is_code_on_both_pages(text: str, page: str, markdown: str) -> None:
    assert (render_prose(text), escape_prose(text)) == (page, markdown)
    rendered = MARKDOWN.render(markdown)
    assert html.unescape(rendered) == html.unescape(f"<p>{page}</p>\n")
    assert rendered.count("<code>") == page.count("<code>")


def test_our_own_code_stays_code() -> None:
    assert (
        escape_prose("x_ and _y: `report: {baseline: NAME}` < 0.05")
        == r"x\_ and \_y: `report: {baseline: NAME}` < 0.05"
    )
    assert escape_prose("a\nb `c\nd\x1b` *e*") == r"a\\nb `c\nd\x1b` \*e\*"
    assert "\n" not in escape_prose("`\n` `a\r\nb` \u2028 `\u2028`")
    assert escape_markdown("soft_targets, p < 0.0001, eta² = 0.5 - 0.1") == "soft_targets, p < 0.0001, eta² = 0.5 - 0.1"


def written_out(name: str) -> str:
    """A name as HTML."""
    return "<code>c</code>" if name == CODE else html.escape(name)


@pytest.mark.parametrize("name", PRINTED, ids=ascii)
def test_pages_show_the_name(name: str) -> None:
    row = Row(name, "student", f"1.0 {name}", name, 0.5, None, None, 1, 1, 1, 1, None, 1, None)
    claims = ReportSection(
        "Claims", (ReportTable(("claim", "n"), ((name, "1"),), quoted=True), f"Of {name.replace('`', '')}.")
    )
    report = Report((row,), (f"About {name.replace('`', '')}.",), (claims,), {}, {"a.png": b"x"}, {"a.png": name}, name)
    written, _, captioned = report.markdown().partition("## Pictures")
    if name == CODE:
        assert MARKDOWN.render(written).count(written_out(name)) == 5  # the title and four cells
        assert f"<em>{written_out(name)}</em>" in MARKDOWN.render(captioned)
        written, captioned = written.replace("`", ""), captioned.replace("`", "")
    text = name.strip("`") if name == CODE else name
    assert shown(written, "h1") == [text]
    cells = shown(written, "td")
    assert (cells[:3], cells[-2]) == ([f"student {text}", f"1.0 {text}", text], text)
    assert shown(written, "p") == [f"Of {name.replace('`', '')}."]
    assert shown(written, "li") == [f"About {name.replace('`', '')}."]
    assert shown(captioned, "em") == [text]
    page = report.html()
    assert re.findall(r"<td>(.*?)</td>", page)[-2] == written_out(name)
    assert f"<figcaption>{written_out(name)}</figcaption>" in page
    assert f"<h1>{written_out(name)}</h1>" in page
    assert re.findall("<script.*?>", page) == ["<script>"]  # our own


def test_a_folded_sentence_stays_in_its_cell() -> None:
    table = ReportTable(("claim",), (("it is\n  better | more\x07",),))
    assert table.markdown()[2] == r"| it is better \| more\\x07 |"
    assert r"<td>it is better | more\x07</td>" in table.html()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_cache_s_page_shows_the_name(name: str) -> None:
    plan = plan_store({"logits": ArrayPlan((2,), "float16")}, views=1, rows=3, batch=3)
    teacher = {
        "name": name, "architecture": {"name": "mlp"}, "test_accuracy": None, "weights_sha256": "ab", "seed": None,
    }  # fmt: skip
    dataset = {"name": "digits", "samples": 3, "classes": ["a", "b"], "fingerprint": "cd", "shape": [1, 8, 8]}
    sharing = {"licence": name, "contact": name, "citation": name}
    views = {"count": 1, "policy": "none"}
    field = {"name": "logits", "parameters": {}}
    description = {"field": field, "teacher": teacher, "dataset": dataset, "views": views, "sharing": sharing}
    page = cache_card(description, plan, "zarr", "ef" * 32, {"logits": 12})
    assert shown(page, "h1") == [f"logits of {escape_unprintable(name)} on digits"]
    text = html.unescape(MARKDOWN.render(page))
    assert f"teacher: {escape_unprintable(name)} (mlp)" in text
    assert f"licence: {escape_unprintable(name).rstrip()}" in text
    assert f"contact: {escape_unprintable(name).rstrip()}" in text
    assert shown(page, "code")[-1].splitlines() == [escape_unprintable(line) for line in name.strip().splitlines()]


# ------------------------------------------------------------------ pictures


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All text of the figures that are drawn meanwhile."""
    found: list[str] = []
    save = Figure.savefig

    def kept(figure: Figure, *given: Any, **named: Any) -> None:
        save(figure, *given, **named)
        every = figure.findobj(Text)
        assert not [text for text in every if text.get_parse_math() or text.get_usetex()]
        found.extend(text.get_text() for text in every)

    monkeypatch.setattr(Figure, "savefig", kept)
    return found


LONG = {f"{'l' * 90}{end}": 0.5 for end in "ab"}


def few(*names: str) -> tuple[str, ...]:
    return (*names, "other")


DRAWN: dict[str, Any] = {
    "boxes": lambda name: draw_box_plot({name: [0.1, 0.2], "b": [0.3]}, {name: 0.5}, "a run", {name: 0.3}),
    "curves": lambda name: draw_curves([(name, {name: [[0.1, 0.2]]}), ("b", {name: [[0.1, 0.2]]})]),
    "one panel": lambda name: draw_curves([("a", {name: [[0.1, 0.2]]})]),
    "pareto": lambda name: draw_pareto({name: NetworkPoint(0.5, None, {"parameters": 10})}, [[name]]),
    "sweep": lambda name: draw_sweep(name, [SweepPoint(1, (1.0, 2.0)), SweepPoint(2, (2.0,))], {name: 3.0}, "test"),
    "terms": lambda name: draw_terms({name: TermCurves({name: [[1e-4, 1.0, 300.0]]}, [[1.0, 2.0, 3.0]])}),
    "weights": lambda name: draw_weights({f"{name}\nb": [{name: [0.5, 0.2]}]}),
    "affinities": lambda name: draw_affinities({"P": np.full((4, 4), 0.08)}, np.array([0, 0, 1, 1]), few(name)),
    "maps": lambda name: draw_maps(np.zeros((1, 1, 2, 2), np.uint8), np.ones((1, 1, 2, 2)), [name], [3]),
    "vectors": lambda name: draw_vectors(np.ones((2, 2)), np.array([0, 1]), few(name)),
    "bits": lambda name: draw_bits(np.zeros((1, 1, 2, 2), np.uint8), np.ones((1, 2, 4), np.uint8), [0], few(name)),
    "feature map": lambda name: draw_feature_map({"t": np.array([[1.0, 2], [3, 4]])}, np.array([0, 1]), few(name)),
}
OF_CLASSES = {"affinities", "maps", "vectors", "bits", "feature map"}  # the other names are of params.yaml: no _ first
HARD = (r"$\frac$", "$1 to $5", "_a_", "a\nb", "שלום", "猫", "\udcff\x00", "l" * 200)


@pytest.mark.parametrize(
    ("picture", "name"),
    [(picture, name) for picture in DRAWN for name in HARD if picture in OF_CLASSES or name[0] != "_"],
)
def test_pictures_show_the_letters(picture: str, name: str, texts: list[str]) -> None:
    assert DRAWN[picture](name).startswith(b"\x89PNG")  # warnings, of glyphs too, are errors here
    (expected,) = fit_class_names([name]) if picture in OF_CLASSES else style.fit_names([name])
    assert [text for text in texts if expected in text]
    assert max(map(len, texts)) < 80


def test_names_that_are_cut_still_differ() -> None:
    names = ["n" * 40 + "a", "n" * 40 + "b", "n" * 40 + "a", "m"]
    assert shorten_names(names, 12) == ["n" * 11 + "…", "n" * 10 + "…2", "n" * 11 + "…", "m"]
    assert len(set(shorten_names([f"{'n' * 40}{number}" for number in range(200)], 12))) == 200
    assert {len(name) for name in shorten_names([f"{'n' * 40}{number}" for number in range(200)], 12)} == {12}


def test_letters_without_a_glyph_are_spelt_and_told() -> None:
    assert style.fit_names(["猫", "犬", "Käse ½ ∞"]) == [r"\u732b", r"\u72ac", "Käse ½ ∞"]
    assert style.find_spelled_names(["cat", "猫"]) == ["猫"]
    (line,) = describe_spelled_letters(["a", "猫", "猫", "犬", "鳥", "魚"])
    assert line == (r"Pictures spell letters that their font lacks, in 4 class names: \u732b, \u72ac, \u9ce5, ....")
    assert not list(describe_spelled_letters(["a", "שלום"]))


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (1e-3, "10⁻³"), (-10.0, "\N{MINUS SIGN}10¹"), (1.0, "10⁰"), (1e12, "10¹²"), (20.0, "20")],
)
def test_powers_are_written_without_mathematics(value: float, written: str) -> None:
    assert style.format_power_of_ten(value) == written


# ------------------------------------------------------------------ the whole


CLASSES = (r"$\frac$", "$1 to $5", "_a_ 猫", "b`|<i>")


def test_a_study_of_such_classes_is_reported(run: Run, tmp_path: Path, capsys: Capture) -> None:
    files = {
        f"{part}/{name}/{each}.png": png(np.full((1, 4, 4), 60 * number + each, np.uint8))
        for part in ("train", "test") for number, name in enumerate(CLASSES) for each in range(8)
    }  # fmt: skip
    write_tree(tmp_path / "photos", files)
    small = {"model": {"name": "mlp", "widths": [4]}, "epochs": 1, "batch_size": 8}
    write_study(tmp_path, {
        "datasets": {"photos": {"source": "imagefolder", "root": "photos"}},
        "teachers": {"big": small},
        "dumps": {"h": {"field": "hints", "of": "big"}, "l": {"field": "logits", "of": "big"}},
        "students": {
            "a_": {**small, "losses": {"ce": {}}},
            "b-_c": {**small, "losses": {"soft_targets": {}}},
            "n" * 100: {**small, "losses": {"hint_mse": {}}},
        },
        "report": {"claims": {"one": {"text": r"$\frac$ | [bold]`better`[/] <b>", "ahead": "b-_c", "behind": "a_"}}},
    })  # fmt: skip
    commands = [
        "prepare photos",
        "train-teacher big",
        "dump big",
        *(f"train-student {name}" for name in ("a_", "b-_c", "n" * 100)),
    ]
    for command in [*commands, "report"]:
        assert run(tmp_path, *command.split()) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "student b-_c" in said.out
    page = (tmp_path / "data/report/report.md").read_text()
    assert "[bold]<code>better</code>[/]" in MARKDOWN.render(page)
    page = page.replace("`better`", "better")
    assert r"$\frac$ | [bold]better[/] <b>" in shown(page, "td")
    assert "student a_" in shown(page, "td")
    assert r"Pictures spell letters that their font lacks, in 1 class names: _a_ \u732b." in html.unescape(
        MARKDOWN.render(page)
    )
    assert run(tmp_path, "export", "a_", "--to", "out") == 0
    assert set(CLASSES) <= set(shown((tmp_path / "out/card.md").read_text().replace("**all**", "all"), "td"))
