"""The tables of README.md, made from `results/*.json`.

    python benchmarks/readme.py

`<!-- results: NAME ... -->` to `<!-- end -->` holds on what machine each `results/NAME.json` was made, and
`<!-- results: NAME.TABLE ... -->` one table of the rows of all. A result that is not there yet has the rows of the
first one, unmeasured.
"""

from __future__ import annotations

import re
from pathlib import Path

from measurement import RESULTS, Result, Row, make_table

README = Path(__file__).parent / "README.md"
BLOCK = re.compile(r"(<!-- results: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def read_result(name: str, folder: Path) -> Result | None:
    """A result, where there is one."""
    path = folder / f"{name}.json"
    return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def list_rows(names: list[str], folder: Path) -> list[Row]:
    """The rows of some results' tables."""
    rows: list[Row] = []
    for name, table in (name.split(".") for name in names):
        result = read_result(name, folder)
        rows += [row.unmeasured() for row in rows] if result is None else result.tables[table]
    return rows


def make_block(names: list[str], folder: Path) -> str:
    """One table, or the conditions of some results."""
    if all("." in name for name in names):
        return make_table(list_rows(names, folder))
    results = [read_result(name, folder) for name in names]
    return "\n\n".join(result.conditions() for result in results if result is not None)


def fill(text: str, folder: Path) -> str:
    """The text with every block made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{make_block(found[2].split(), folder)}\n\n{found[3]}", text)


if __name__ == "__main__":
    README.write_text(fill(README.read_text(encoding="utf-8"), RESULTS), encoding="utf-8", newline="\n")
