"""Parts of a dump, computed on machines that share no disk, joined to its cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.dumps.parts import Part
from pipeline.dumps.parts import merge_parts as join_parts
from pipeline.runs.new_folders import open_work_beside, refuse_existing
from pipeline.runs.result import Result


def read_part(text: str) -> Part:
    """Which part `2/3` is.

    Raises:
        InputError: it is none.
    """
    known = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text, re.ASCII)
    if known is None or int(known[1]) > int(known[2]):
        raise InputError("--part", expected="NUMBER/COUNT, from 1/COUNT to COUNT/COUNT", found=text)
    return Part(int(known[1]), int(known[2]))


def merge_parts(parts: Sequence[Path], to: Path) -> Result:
    """Join all parts of a dump to the cache that one process would have made.

    Args:
        parts: their folders.
        to: a new folder.

    Raises:
        InputError: a part is damaged, missing, there twice or of another dump; or `to` is there already.
    """
    refuse_existing(to)
    with open_work_beside(to) as work:
        manifest = join_parts(list(dict.fromkeys(parts)), to, work)
    line = f"{to}: {manifest.rows} rows of {len(parts)} parts, root {manifest.root[:12]}"
    return Result({"root": manifest.root}, text=(line,))
