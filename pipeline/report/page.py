"""The report's two pages: Markdown beside its pictures, and one HTML file with all inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.plain_text import escape_cell, escape_markdown, escape_prose, escape_unprintable
from pipeline.report.table import COLUMNS, Row


@dataclass(frozen=True)
class ReportTable:
    """A table of text.

    Attributes:
        columns: headings.
        rows: cells.
        texts: how many columns, from the left, are text; the others are numbers.
        quoted: cells hold a user's own sentences, which may need several lines.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    quoted: bool = False

    def markdown(self) -> list[str]:
        """Its lines."""
        rule = "|---" * self.texts + "|---:" * (len(self.columns) - self.texts) + "|"
        lines = [" | ".join(escape_cell(_fold_lines(cell)) for cell in row) for row in (self.columns, *self.rows)]
        return [f"| {lines[0]} |", rule, *(f"| {line} |" for line in lines[1:])]

    def html(self) -> str:
        """The same as an element; a wide one scrolls by itself."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        rows = (
            "<tr>" + "".join(f"<td>{html.escape(_fold_lines(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        kind = f"texts-{self.texts}" + " quoted" * self.quoted
        return (
            f'<div class="wide"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
            "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>"
        )


@dataclass(frozen=True)
class ReportSection:
    """Paragraphs and tables under a heading."""

    title: str
    blocks: tuple[str | ReportTable, ...]

    def markdown(self) -> list[str]:
        """Its lines; none without blocks."""
        lines = ["", f"## {self.title}"] if self.blocks else []
        for block in self.blocks:
            lines += ["", *(block.markdown() if isinstance(block, ReportTable) else [escape_prose(block)])]
        return lines

    def html(self) -> Iterator[str]:
        """Its elements; none without blocks."""
        if self.blocks:
            yield f"<h2>{html.escape(self.title)}</h2>"
        for block in self.blocks:
            yield block.html() if isinstance(block, ReportTable) else f"<p>{html.escape(escape_unprintable(block))}</p>"


@dataclass(frozen=True)
class Report:
    """All that the report's files say.

    Attributes:
        rows: of the table.
        notes: below it.
        sections: what follows, in order.
        numbers: the sections' unrounded, as JSON.
        pictures: by file name, PNG.
        captions: of the pictures that have one, by file name.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    sections: tuple[ReportSection, ...]
    numbers: Mapping[str, Any]
    pictures: Mapping[str, bytes]
    captions: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> ReportTable:
        """The main one."""
        return ReportTable(COLUMNS, tuple(row.cells() for row in self.rows), texts=2)

    def summary(self) -> dict[str, Any]:
        """The table's numbers, as JSON for `dvc metrics`."""
        made: dict[str, Any] = {}
        for row in self.rows:
            made.setdefault(f"{row.kind}s", {})[row.name] = row.summary()
        return made

    def markdown(self) -> str:
        """`report.md`; it refers to the pictures beside it."""
        lines = ["# Report", "", *self.table.markdown(), "", *(f"- {escape_prose(note)}" for note in self.notes)]
        lines += [line for section in self.sections for line in section.markdown()]
        lines += ["", "## Pictures"] if self.pictures else []
        for name in self.pictures:
            lines.append(f"\n![{escape_markdown(name.removesuffix('.png'))}]({name})")
            lines += [f"\n*{escape_markdown(self.captions[name])}*"] if name in self.captions else []
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """`report.html`: pictures and style inside, no request to anywhere."""
        return PAGE.format(body="\n".join(self._body()))

    def _body(self) -> Iterator[str]:
        yield self.table.html()
        yield (
            "<ul>\n" + "\n".join(f"<li>{html.escape(escape_unprintable(note))}</li>" for note in self.notes) + "\n</ul>"
        )
        for section in self.sections:
            yield from section.html()
        if self.pictures:
            yield "<h2>Pictures</h2>"
        for name, data in self.pictures.items():
            yield self._figure(name, data)

    def _figure(self, name: str, data: bytes) -> str:
        """A picture with its caption where it has one."""
        image = f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        if name not in self.captions:
            return image
        caption = html.escape(escape_unprintable(self.captions[name]))
        return f"<figure>\n{image}\n<figcaption>{caption}</figcaption>\n</figure>"


def _fold_lines(cell: str) -> str:
    """A cell on one line: a sentence of the user's may have been folded."""
    return escape_unprintable(" ".join(cell.split()))


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>teachercache report</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #222; }}
p, ul, figcaption {{ max-width: 60em; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35em .8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }}
td {{ unicode-bidi: plaintext; }}
th:first-child, td:first-child, .texts-2 :is(th, td):nth-child(2) {{ text-align: left; }}
.texts-2 td:nth-child(2), .quoted td:first-child {{ white-space: normal; }}
img {{ max-width: 100%; display: block; margin: 1.5em 0; }}
figure {{ margin: 2.5em 0; }}
figure img {{ margin: 0 0 .5em; }}
figcaption {{ font-size: 13px; color: #555; }}
</style>
</head>
<body>
<h1>Report</h1>
{body}
</body>
</html>
"""
