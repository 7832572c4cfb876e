"""The tables of README.md, and the short one of the README above, made from `results/*.json`.

    python benchmarks/readme.py

`<!-- results: NAME ... -->` to `<!-- end -->` holds on what machine each `results/NAME.json` was made, and
`<!-- results: NAME.TABLE ... -->` one table of the rows of all. A result that is not there yet has the rows of the
first one, unmeasured. `<!-- results: short -->` are the few rows of `SHORT`.
"""

from __future__ import annotations

import re
from pathlib import Path

from measurement import RESULTS, Result, Row, make_table

README = Path(__file__).parent / "README.md"
READMES = (README, README.parents[1] / "README.md")
# What the README says of a row: its table, its labels as far as they tell it from others, and its column.
SHORT = {
    "epoch of an MLP 784-800-800-10: soft targets from the cache / plain training": (
        "engine.epochs", {"network": "mlp 784-800-800-10", "what": "soft targets / plain"}, "times",
    ),
    "epoch of a CNN 8-16-32: soft targets from the cache / plain training": (
        "engine.epochs", {"network": "cnn 8-16-32", "what": "soft targets / plain"}, "times",
    ),
    "the same CNN: a teacher 32-64-512 that runs in each step / the cache": (
        "engine.live", {"network": "cnn 8-16-32"}, "times",
    ),
    "a CNN on CIFAR-10's images: NIN as a teacher that runs in each step / the cache": (
        "engine.live", {"what": "live nin / cached"}, "times",
    ),
    "8 seeds of an MLP 64-32-10 trained together / 1 seed": (
        "cohort.seeds", {"network": "mlp 64-32-10, batch 64"}, "8 seeds / 1",
    ),
}  # fmt: skip
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


def make_short_table(folder: Path) -> str:
    """The rows of `SHORT`; one that is not there has not been measured."""
    rows = []
    for what, (name, labels, column) in SHORT.items():
        found = (row for row in list_rows([name], folder) if labels.items() <= row.labels.items())
        value = next((row.values[column] for row in found), None)
        rows.append(Row(labels={"what": what}, values={"times": value}))
    return make_table(rows)


def make_block(names: list[str], folder: Path) -> str:
    """One table, or the conditions of some results."""
    if names == ["short"]:
        return make_short_table(folder)
    if all("." in name for name in names):
        return make_table(list_rows(names, folder))
    results = [read_result(name, folder) for name in names]
    return "\n\n".join(result.conditions() for result in results if result is not None)


def fill(text: str, folder: Path) -> str:
    """The text with every block made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{make_block(found[2].split(), folder)}\n\n{found[3]}", text)


if __name__ == "__main__":
    for path in READMES:
        path.write_text(fill(path.read_text(encoding="utf-8"), RESULTS), encoding="utf-8", newline="\n")
