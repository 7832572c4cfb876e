"""The report's two pages: Markdown beside its pictures, and one HTML file with all inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.plain_text import escape_markdown, escape_prose, escape_unprintable, render_prose
from pipeline.report.page_template import PAGE, SCRIPT, STYLE
from pipeline.report.sort_order import sort_cells
from pipeline.report.table import COLUMNS, TEXTS, Row


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
        lines = [" | ".join(map(_escape_cell, row)) for row in (self.columns, *self.rows)]
        return [f"| {lines[0]} |", rule, *(f"| {line} |" for line in lines[1:])]

    def html(self) -> str:
        """The same as an element that a reader can sort; a wide one scrolls by itself."""
        head = "".join(f"<th>{render_prose(column)}</th>" for column in self.columns)
        rows = (
            "<tr>" + "".join(f"<td>{render_prose(_fold_lines(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        kind = f"texts-{self.texts}" + " quoted" * self.quoted
        return (
            f'<div class="wide"><table class="{kind}">\n{self._orders()}<thead><tr>{head}</tr></thead>\n'
            "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>"
        )

    def _orders(self) -> str:
        """By column, the numbers of the rows in increasing and in decreasing order; none for a single row."""
        if len(self.rows) < 2:
            return ""
        columns = enumerate(zip(*self.rows, strict=True))
        made = (sort_cells(cells, numbers=place >= self.texts) for place, cells in columns)
        orders = ((" ".join(map(str, up)), " ".join(map(str, down))) for up, down in made)
        each = (f'<col data-ascending="{up}" data-descending="{down}">' for up, down in orders)
        return f"<colgroup>{''.join(each)}</colgroup>\n"


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
            yield block.html() if isinstance(block, ReportTable) else f"<p>{render_prose(block)}</p>"


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
        title: the study's name.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    sections: tuple[ReportSection, ...]
    numbers: Mapping[str, Any]
    pictures: Mapping[str, bytes]
    captions: Mapping[str, str] = field(default_factory=dict)
    title: str = "Report"

    @property
    def table(self) -> ReportTable:
        """The main one."""
        return ReportTable(COLUMNS, tuple(row.cells() for row in self.rows), texts=TEXTS)

    def summary(self) -> dict[str, Any]:
        """The table's numbers, as JSON for `dvc metrics`."""
        made: dict[str, Any] = {}
        for row in self.rows:
            made.setdefault(f"{row.kind}s", {})[row.name] = row.summary()
        return made

    def markdown(self) -> str:
        """`report.md`; it refers to the pictures beside it."""
        lines = [
            f"# {escape_prose(self.title)}",
            "",
            *self.table.markdown(),
            "",
            *(f"- {escape_prose(note)}" for note in self.notes),
        ]
        lines += [line for section in self.sections for line in section.markdown()]
        lines += ["", "## Pictures"] if self.pictures else []
        for name in self.pictures:
            lines.append(f"\n![{escape_markdown(name.removesuffix('.png'))}]({name})")
            lines += [f"\n*{escape_prose(self.captions[name])}*"] if name in self.captions else []
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """`report.html`: pictures, style and script inside, no request to anywhere."""
        name, title = html.escape(escape_unprintable(self.title.replace("`", ""))), render_prose(self.title)
        return PAGE.format(name=name, title=title, style=STYLE, script=SCRIPT, body="\n".join(self._body()))

    def _body(self) -> Iterator[str]:
        yield self.table.html()
        yield "<ul>\n" + "\n".join(f"<li>{render_prose(note)}</li>" for note in self.notes) + "\n</ul>"
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
        return f"<figure>\n{image}\n<figcaption>{render_prose(self.captions[name])}</figcaption>\n</figure>"


def _escape_cell(cell: str) -> str:
    """A cell in Markdown, where a bar would end it."""
    return escape_prose(_fold_lines(cell)).replace("|", r"\|")


def _fold_lines(cell: str) -> str:
    """A cell on one line: a sentence of the user's may have been folded."""
    return " ".join(cell.split())
