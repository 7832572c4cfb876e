"""Parts of a dump -> its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import cli


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="Folders that `dump --part` has made.")],
    to: Annotated[Path, typer.Option("--to", help="The cache's folder: a new one.")],
) -> None:
    """Join all parts of a dump to its cache, each file checked; the bytes are those of one process."""
    from pipeline import runs

    cli.show(runs.merge_parts(parts, to))


if __name__ == "__main__":
    cli.main(merge)
