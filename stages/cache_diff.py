"""Two caches -> what differs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.cache.diff import CacheDiff

SHOWN = 20


def diff(
    a: cli.CacheArgument,
    b: Annotated[str, typer.Argument(help="Another cache: a folder or a URL.")],
    storage: cli.StorageOptions = None,
    as_json: cli.AsJson = False,
) -> None:
    """Say which entries and which samples of two caches differ, whatever their stores and chunks.

    Exit code 0: nothing differs; 1: something does; 2: one is no sound cache.
    """
    from pipeline import cache as room
    from pipeline.cache.diff import compare_caches as compare

    options = cli.storage_options(storage)
    found = compare(room.open(a, storage_options=options), room.open(b, storage_options=options))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        _show(a, b, found)
    if found.entries or not found.same_values:
        raise typer.Exit(1)


def _show(a: str, b: str, found: CacheDiff) -> None:
    if found.entries:
        cli.table("manifest", ("entry", a, b), [(name, str(x), str(y)) for name, x, y in found.entries])
    kind = "samples" if found.unit == "sample" else "batches"
    for name, what in found.alone:
        typer.echo(cli.printable(f"array {name}: {what}"))
    for each in found.arrays:
        forms = f" ({each.dtypes[0]} in A, {each.dtypes[1]} in B)" if each.dtypes else ""
        if not each.rows:
            typer.echo(f"array {each.array}: the same numbers in all {each.of:,} rows{forms}")
            continue
        ids = ", ".join(map(str, each.samples[:SHOWN])) + (", ..." if len(each.samples) > SHOWN else "")
        typer.echo(
            f"array {each.array}: {each.rows:,} of {each.of:,} rows differ, by at most {each.largest:.6g}{forms}; "
            f"{kind} ({len(each.samples):,}): {ids}"
        )
    same = "same numbers, in other number formats" if found.same_numbers else "other values"
    typer.echo("same values" if found.same_values else same)


if __name__ == "__main__":
    cli.main(diff)
