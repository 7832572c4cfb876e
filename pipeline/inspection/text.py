"""The facts about a cache as lines and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.base.table import Table
from pipeline.inspection.hooks import describe_facts, uses_labels


def format_manifest(name: str, facts: dict[str, Any]) -> Iterator[str | Table]:
    """What `cache inspect` prints of a cache's manifest.

    Args:
        name: of the cache, as the user has written it.
        facts: see `overview.describe_manifest`.
    """
    yield Table(f"cache {name}", ("", ""), list(_origin(facts)))
    yield Table("arrays", ("array", "shape", "dtype", "codec", "chunks", "bytes", "stored"), _arrays(facts))
    citation = (facts["sharing"] or {}).get("citation")
    yield from ("cite:", *(f"  {line}" for line in citation.strip().splitlines())) if citation else ()


def format_cache(name: str, facts: dict[str, Any], *, known_labels: bool) -> Iterator[str | Table]:
    """What `cache inspect` prints.

    Args:
        name: of the cache, as the user has written it.
        facts: see `overview.inspect_cache`.
        known_labels: whether the true classes were there.
    """
    yield from format_manifest(name, facts)
    field = facts["field"]["name"]
    yield from describe_facts(field, facts["facts"], facts["dataset"]["classes"])
    if not known_labels and uses_labels(field):
        yield "no labels (no prepared data of this cache beside it): give them with --data for the agreement"


def _origin(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    field, teacher, dataset, views = facts["field"], facts["teacher"], facts["dataset"], facts["views"]
    accuracy = teacher["test_accuracy"]
    architecture = teacher["architecture"].get("name", "unnamed")
    parameters = ", ".join(f"{key} {value}" for key, value in field["parameters"].items() if value is not None)
    yield "field", f"{field['name']} ({parameters})"
    yield "teacher", f"{teacher['name']} ({architecture}), weights {teacher['weights_sha256'][:12]}"
    yield "its test accuracy", "not measured" if accuracy is None else f"{100 * accuracy:.2f} %"
    yield "data set", f"{dataset['name']}, fingerprint {dataset['fingerprint'][:12]}"
    yield _rows(facts)
    policy = f"{views['count']} of {views['policy']}, seed {views['seed']}"
    yield "views", "none" if views["policy"] == "none" else policy
    yield "computed", "nobody said how" if facts["computed"] is None else _computation(facts["computed"])
    sharing = facts["sharing"] or {}
    yield "licence", sharing.get("licence") or "none is named"
    if sharing.get("contact"):
        yield "contact", sharing["contact"]
    yield "store", f"{facts['store']}, {facts['files']} files, {facts['bytes']:,} bytes"
    yield "root digest", facts["root"]
    yield "digest of the values", facts["values"]


def _computation(computed: dict[str, Any]) -> str:
    layout = f", {computed['layout']}" if computed["layout"] else ""
    return f"on {computed['device']}, in {computed['precision']}{layout}"


def _rows(facts: dict[str, Any]) -> tuple[str, str]:
    dataset, rows = facts["dataset"], f"{facts['rows']:,}"
    if facts["axes"] == "view, sample":
        return "samples", f"{rows} of {dataset['samples']:,}, {len(dataset['classes'])} classes"
    return "batches", f"{rows} a plan, of {dataset['samples']:,} samples, {len(dataset['classes'])} classes"


def _arrays(facts: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            name,
            "x".join(map(str, each["shape"])),
            *(each[key] for key in ("dtype", "codec", "chunks")),
            f"{each['bytes']:,}",
            "" if each["stored_bytes"] is None else f"{each['stored_bytes']:,}",
        )
        for name, each in facts["arrays"].items()
    ]
