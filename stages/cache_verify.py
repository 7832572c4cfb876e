"""A cache -> whether every byte is the one that was sealed; or a repaired copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.cache.block_files import BlockFunction
    from pipeline.cache.blocks import Block
    from pipeline.cache.manifest import Manifest
    from pipeline.cache.verify import Verification


def verify(
    cache: cli.CacheArgument,
    repair: Annotated[
        Path | None,
        typer.Option(
            "--repair", help="Write a sound copy here: the study's teacher computes the damaged blocks again."
        ),
    ] = None,
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
    storage: cli.StorageOptions = None,
    as_json: cli.AsJson = False,
) -> None:
    """Recompute every digest of a cache, and name each file and block that is damaged."""
    from pipeline.base.errors import InputError
    from pipeline.cache.folder import LocalFolder, locate_folder, read_manifest
    from pipeline.cache.verify import verify_cache as check

    folder = locate_folder(cache, cli.storage_options(storage))
    manifest = read_manifest(folder, "dump it again")
    found = check(folder, manifest)
    blocks = sum(len(array.blocks) for array in manifest.arrays.values())
    if as_json:
        typer.echo(json.dumps({"cache": cache, "whole": found.is_whole, "problems": found.lines()}, indent=2))
    else:
        for line in found.labelled_lines():
            typer.echo(cli.printable(line))
    if found.is_whole:
        if not as_json:
            typer.echo(f"{cache}: whole: {len(manifest.files)} files, {blocks} blocks, root {manifest.root[:12]}")
            if repair is not None:
                typer.echo(f"nothing to repair; {repair} was not written")
        return
    if repair is None:
        foreign = found.advice(folder.path) if isinstance(folder, LocalFolder) else None
        fix = foreign or "repair it with --repair NEW_FOLDER, or dump it again"
        raise InputError(f"cache {cache}", expected="the bytes that were sealed", found=_counted(found), fix=fix)
    if not isinstance(folder, LocalFolder):
        raise InputError(cache, expected="a local copy to repair", found="a URL", fix="copy it first")
    _repair(folder.path.resolve(), manifest, found, repair.resolve(), params, device)
    typer.echo(f"{repair}: repaired, root {manifest.root[:12]}")


def _counted(found: Verification) -> str:
    foreign = sum(each.is_system_file for each in found.damage)
    if foreign and foreign == len(found.damage):
        return f"all of them, and foreign files: {foreign}"
    blocks = sum(len(each.blocks) for each in found.damage)
    return f"others: damaged files: {max(1, len(found.damage) - foreign)}, damaged blocks: {blocks}"


def _repair(folder: Path, manifest: Manifest, found: Verification, target: Path, params: Path, device: str) -> None:
    from pipeline.cache.rewrite import repair_cache

    cli.refuse_existing(target)
    known: list[BlockFunction] = []

    def compute(block: Block) -> Mapping[str, Any]:
        if not known:  # a teacher is loaded only where rows are lost
            from pipeline.runs.repair import compute_from_study

            known.append(compute_from_study(cli.open_study(params), manifest, device))
        return known[0](block)

    with cli.work_beside(target) as work:
        repair_cache(folder, manifest, found, target=target, work=work, compute=compute)


if __name__ == "__main__":
    cli.main(verify)
