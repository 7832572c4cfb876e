"""What fields that choose a class for every sample have to say: how often it is right, and one row a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.base.table import Table

MOST_ROWS = 50  # classes in a table


def describe_choices(
    facts: Mapping[str, Any], classes: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> Iterator[str | Table]:
    """The agreement with the true classes, where they are known, and a table of the classes.

    Args:
        facts: with `chosen_per_class`, `agreement_with_labels` and `agreement_per_class`.
        classes: their names.
        columns: of the table, beside those of every such field; a cell a class.
    """
    if "agreement_with_labels" in facts:
        yield f"agreement with the labels: {100 * facts['agreement_with_labels']:.2f} %"
    rates = facts.get("agreement_per_class") or [None] * len(classes)
    every = {
        "class": classes,
        **columns,
        "chosen": [f"{chosen:,}" for chosen in facts["chosen_per_class"]],
        "agreement (%)": ["" if rate is None else f"{100 * rate:.2f}" for rate in rates],
    }
    rows = list(zip(*every.values(), strict=True))
    yield Table("classes", tuple(every), rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        yield f"... and {len(rows) - MOST_ROWS} more classes: --json shows all"
