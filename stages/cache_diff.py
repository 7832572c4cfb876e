"""Two caches -> what differs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from stages import cli

SHOWN = 20


def diff(
    a: cli.CacheArgument,
    b: Annotated[str, typer.Argument(help="Another cache: a folder or a URL.")],
    storage: cli.StorageOptions = None,
    as_json: cli.AsJson = False,
) -> None:
    """Say which entries and which samples of two caches differ, whatever their stores and chunks."""
    from pipeline import cache as room
    from pipeline.cache.diff import diff as compare

    options = cli.storage_options(storage)
    found = compare(room.open(a, storage_options=options), room.open(b, storage_options=options))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    if found.entries:
        cli.table("manifest", ("entry", a, b), [(name, str(x), str(y)) for name, x, y in found.entries])
    kind = "samples" if found.unit == "sample" else "batches"
    for each in found.arrays:
        ids = ", ".join(map(str, each.samples[:SHOWN])) + (", ..." if len(each.samples) > SHOWN else "")
        typer.echo(
            f"array {each.array}: {each.rows:,} of {each.of:,} rows differ, by at most {each.largest:.6g}; "
            f"{kind} ({len(each.samples):,}): {ids}"
        )
    typer.echo("same values" if found.same_values else "other values")


if __name__ == "__main__":
    cli.main(diff)
