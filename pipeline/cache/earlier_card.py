"""The card as the first version wrote it, so that caches of that time can be mended to the byte. Never change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import __version__
from pipeline.base.plain_text import escape_markdown
from pipeline.cache.codecs import Format
from pipeline.cache.store_plan import StorePlan


def format_accuracy(value: float | None) -> str:
    """A teacher's accuracy, or that nobody knows it."""
    return "test accuracy not measured" if value is None else f"test accuracy {value:.4f}"


def describe_rows(axes: str, plan: StorePlan) -> str:
    """Which samples, or which batches of which plan, the rows are of."""
    if axes == "view, sample":
        return f"sample ids 0 to {plan.rows - 1}"
    return f"batches 0 to {plan.rows - 1} of {plan.views} plans; epoch e follows plan e mod {plan.views}"


def describe_origin(parameters: Mapping[str, Any]) -> str:
    """A line about numbers that came from elsewhere as something else; empty of all others."""
    if "given" not in parameters:
        return ""
    floor = f", none below that of {parameters['floor']}" if "floor" in parameters else ""
    return f"- numbers: logarithms of probabilities (given as {parameters['given']}){floor}\n"


def render_card(description: Mapping[str, Any], plan: StorePlan, store: Format) -> str:
    """The page; arguments as of `card.render_card`."""
    teacher, dataset, axes = description["teacher"], description["dataset"], description.get("axes", "view, sample")
    arrays = "\n".join(f"| `{name}` | {plan.shape(name)} | {array.dtype} |" for name, array in plan.arrays.items())
    whose, data = escape_markdown(teacher["name"]), escape_markdown(dataset["name"])
    built = escape_markdown(teacher["architecture"].get("name", "unnamed"))
    return f"""# {description["field"]["name"]} of {whose} on {data}

A teacher's precomputed outputs, written by teachercache {description.get("package", __version__)} ({store}).

- teacher: {whose} ({built}), {format_accuracy(teacher["test_accuracy"])},
  weights SHA-256 `{teacher["weights_sha256"]}`
- data set: {data}, {dataset["samples"]} samples, {len(dataset["classes"])} classes,
  fingerprint `{dataset["fingerprint"]}`
- rows: {describe_rows(axes, plan)}
- views: {description["views"]["count"]} of policy {description["views"]["policy"]}
{describe_origin(description["field"]["parameters"])}
| array | shape ({axes.split(", ")[0]}s, rows, ...) | dtype |
|---|---|---|
{arrays}

Read it with `pipeline.cache.open`, which checks every file against `manifest.json`.
"""
