"""A cache -> what it holds, on the terminal or as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.cache import Cache


def inspect(
    cache: cli.CacheArgument,
    data: Annotated[
        Path | None, typer.Option("--data", help="The prepared data set, for its labels; found by itself in a study.")
    ] = None,
    storage: cli.StorageOptions = None,
    as_json: cli.AsJson = False,
) -> None:
    """Say what a cache holds, from which teacher and data, and how its numbers look."""
    from pipeline import cache as room
    from pipeline.inspection.overview import inspect_cache, read_labels

    opened = room.open(cache, storage_options=cli.storage_options(storage))
    labels = read_labels(opened, data) if data else _labels_beside(opened)
    facts = inspect_cache(opened, labels)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, sort_keys=True))
    else:
        _show(cache, facts, known_labels=labels is not None)


def _labels_beside(opened: Cache) -> Any:
    """The labels of the study that the cache lies in, where it is one and its data are the cache's."""
    from pipeline.base.errors import InputError
    from pipeline.cache.folder import LocalFolder
    from pipeline.inspection.overview import read_labels

    name = opened.manifest.dataset.name
    if not isinstance(opened.folder, LocalFolder) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        return None
    try:
        return read_labels(opened, opened.folder.path.resolve().parent.parent / "prepared" / name)
    except InputError:
        return None


def _rows(facts: dict[str, Any]) -> tuple[str, str]:
    dataset, rows = facts["dataset"], f"{facts['rows']:,}"
    if facts["axes"] == "view, sample":
        return "samples", f"{rows} of {dataset['samples']:,}, {len(dataset['classes'])} classes"
    return "batches", f"{rows} a plan, of {dataset['samples']:,} samples, {len(dataset['classes'])} classes"


def _show(cache: str, facts: dict[str, Any], *, known_labels: bool) -> None:
    teacher, dataset, views = facts["teacher"], facts["dataset"], facts["views"]
    accuracy = teacher["test_accuracy"]
    architecture = teacher["architecture"].get("name", "unnamed")
    parameters = ", ".join(f"{key} {value}" for key, value in facts["field"]["parameters"].items() if value is not None)
    shown = "none" if views["policy"] == "none" else f"{views['count']} of {views['policy']}, seed {views['seed']}"
    cli.table(
        f"cache {cache}",
        ("", ""),
        [
            ("field", f"{facts['field']['name']} ({parameters})"),
            (
                "teacher",
                f"{teacher['name']} ({architecture}), weights {teacher['weights_sha256'][:12]}",
            ),
            ("its test accuracy", "not measured" if accuracy is None else f"{100 * accuracy:.2f} %"),
            ("data set", f"{dataset['name']}, fingerprint {dataset['fingerprint'][:12]}"),
            _rows(facts),
            ("views", shown),
            ("store", f"{facts['store']}, {facts['files']} files, {facts['bytes']:,} bytes"),
            ("root digest", facts["root"]),
            ("digest of the values", facts["values"]),
        ],
    )
    cli.table(
        "arrays",
        ("array", "shape", "dtype", "codec", "chunks", "bytes", "stored"),
        [
            (
                name,
                "x".join(map(str, each["shape"])),
                *(each[key] for key in ("dtype", "codec", "chunks")),
                *(f"{each[key]:,}" for key in ("bytes", "stored_bytes")),
            )
            for name, each in facts["arrays"].items()
        ],
    )
    own = facts["facts"]
    if "entropy" in own:
        low, middle, high = own["entropy"]["quartiles"]
        typer.echo(f"entropy: mean {own['entropy']['mean']:.4f} nats; quartiles {low:.4f}, {middle:.4f}, {high:.4f}")
    if "channel_entropy" in own:
        typer.echo(
            f"channels: {len(own['ones'][0])} a class; always 0: {own['always_zero']}, always 1: {own['always_one']}; "
            f"entropy of a channel: mean {own['channel_entropy']['mean']:.4f} bits"
        )
    if "taps" in own:
        headers = ("tap", "units", "dead", "zeros (%)", "mean", "std", "largest")
        cli.table("activations", headers, [_tap(name, its) for name, its in own["taps"].items()])
    if "neighbours" in own:
        low, middle, high = own["neighbours"]["quartiles"]
        typer.echo(
            f"neighbours of a point in effect: mean {own['neighbours']['mean']:.2f}; "
            f"quartiles {low:.2f}, {middle:.2f}, {high:.2f}; plans: {own['plans']}"
        )
    if "same_class" in own:
        by_chance = f"{100 * own['same_class_by_chance']:.1f} % of the pairs are"
        typer.echo(f"mass between samples of one class: {100 * own['same_class']:.1f} % ({by_chance})")
    if "agreement_with_labels" in own:
        typer.echo(f"agreement with the labels: {100 * own['agreement_with_labels']:.2f} %")
    if "chosen_per_class" in own:
        columns = _by_class(dataset["classes"], own)
        rows = list(zip(*columns.values(), strict=True))
        cli.table("classes", tuple(columns), rows[:50])
        if len(rows) > 50:
            typer.echo(f"... and {len(rows) - 50} more classes: --json shows all")
    if not known_labels and "taps" not in own:
        typer.echo("no labels (no prepared data of this cache beside it): give them with --data for the agreement")


def _tap(name: str, its: dict[str, Any]) -> tuple[str, ...]:
    counts = f"{its['units']:,}", f"{its['dead']:,}", f"{100 * its['zeros']:.1f}"
    return (name, *counts, *(f"{its[key]:.4g}" for key in ("mean", "std", "largest")))


def _by_class(names: list[str], own: dict[str, Any]) -> dict[str, list[str]]:
    """The columns of the table with one row a class."""
    columns = {"class": names}
    if "channel_entropy" in own:
        columns |= {
            "ones (%)": [f"{100 * share:.2f}" for share in own["ones_per_class"]],
            "always 0": [str(count) for count in own["always_zero_per_class"]],
            "always 1": [str(count) for count in own["always_one_per_class"]],
            "entropy (bits)": [f"{entropy:.4f}" for entropy in own["channel_entropy"]["per_class"]],
        }
    rates = own.get("agreement_per_class") or [None] * len(names)
    return {
        **columns,
        "chosen": [f"{chosen:,}" for chosen in own["chosen_per_class"]],
        "agreement (%)": ["" if rate is None else f"{100 * rate:.2f}" for rate in rates],
    }


if __name__ == "__main__":
    cli.main(inspect)
