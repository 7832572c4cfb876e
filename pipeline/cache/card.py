"""The card of a cache: a page for people who find the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import __version__
from pipeline.base.plain_text import escape_markdown, escape_unprintable
from pipeline.base.sizes import format_size
from pipeline.cache.codecs import Format
from pipeline.cache.earlier_card import describe_origin, describe_rows, format_accuracy
from pipeline.cache.store_plan import StorePlan


def render_card(
    description: Mapping[str, Any], plan: StorePlan, store: Format, values: str, stored: Mapping[str, int]
) -> str:
    """A page for people who find the folder: what it is, whose, on which terms, and how to read it.

    Args:
        description: the manifest's entries that say what the cache is, as plain values.
        plan, store: how its arrays are kept.
        values: the digest of the values.
        stored: by array, the bytes of its chunks.
    """
    teacher, dataset, axes = description["teacher"], description["dataset"], description.get("axes", "view, sample")
    whose, data = escape_markdown(teacher["name"]), escape_markdown(dataset["name"])
    built = escape_markdown(teacher["architecture"].get("name", "unnamed"))
    run = "" if teacher["seed"] is None else f", run {teacher['seed']}"
    shape = " x ".join(map(str, dataset["shape"]))
    return f"""# {description["field"]["name"]} of {whose} on {data}

A teacher's precomputed outputs, from which students learn without it; written by teachercache
{description.get("package", __version__)} ({store}).

- teacher: {whose} ({built}{run}), {format_accuracy(teacher["test_accuracy"])},
  weights SHA-256 `{teacher["weights_sha256"]}`
- data set: {data}, {dataset["samples"]} samples of {shape}, {len(dataset["classes"])} classes,
  fingerprint `{dataset["fingerprint"]}`
- rows: {describe_rows(axes, plan)}
- views: {description["views"]["count"]} of policy {description["views"]["policy"]}
- computed: {_describe_computation(description.get("computed"))}
{describe_origin(description["field"]["parameters"])}- values: SHA-256 `{values}`
{_list_terms(description.get("sharing") or {})}
| array | shape ({axes.split(", ")[0]}s, rows, ...) | dtype | codec | decoded | stored |
|---|---|---|---|---|---|
{"".join(_list_arrays(plan, stored))}
## Use it

In Python, FOLDER or its URL; every byte is checked against `manifest.json`, whose `root` stands for this page, too:

```python
from pipeline import cache

opened = cache.open("FOLDER", {{"values": "{values}"}})
rows = opened.rows([0], array="{next(iter(plan.arrays))}")
```

A study whose `params.yaml` describes this teacher, data set and dump trains from it as `data/cache/DUMP`.
`teachercache cache inspect FOLDER` says more, `teachercache cache verify FOLDER` whether a copy is whole.
{_quote_citation(description.get("sharing") or {})}"""


def _describe_computation(computed: Mapping[str, Any] | None) -> str:
    if computed is None:
        return "nobody said how"
    layout = f", {escape_markdown(computed['layout'])}" if computed["layout"] else ""
    return f"on {escape_markdown(computed['device'])}, in {escape_markdown(computed['precision'])}{layout}"


def _list_terms(sharing: Mapping[str, Any]) -> str:
    licence, contact = sharing.get("licence"), sharing.get("contact")
    said = [f"- licence: {escape_markdown(licence) if licence else 'none is named; ask before you pass it on'}\n"]
    return "".join([*said, f"- contact: {escape_markdown(contact)}\n"] if contact else said)


def _list_arrays(plan: StorePlan, stored: Mapping[str, int]) -> Iterator[str]:
    for name, array in plan.arrays.items():
        size = format_size(plan.views * plan.rows * array.row_bytes)
        shape = plan.shape(name)
        yield f"| `{name}` | {shape} | {array.dtype} | {array.codec} | {size} | {format_size(stored[name])} |\n"


def _quote_citation(sharing: Mapping[str, Any]) -> str:
    """What to cite, as code: nothing in it is a mark of Markdown."""
    if not sharing.get("citation"):
        return ""
    lines = "\n".join(f"    {escape_unprintable(line)}".rstrip() for line in sharing["citation"].strip().splitlines())
    return f"\n## Cite\n\n{lines}\n"
