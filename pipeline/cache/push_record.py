"""What lies beside the files at a URL while not all of a cache is there: which of them are.

A size alone would not do: a file of another cache may have it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from pipeline.base.files import encode_json
from pipeline.cache.manifest import ARRAY_NAME, Manifest

BEGUN_PATH = "unfinished-push.json"  # written once: a store may leave half of what is written anew
PROGRESS_PATH = "unfinished-push-files.json"  # written after each file; half of it is as good as none
MAX_RECORD_BYTES = 8 << 20
CACHE_PATH = re.compile(
    rf"card\.md|chunks\.bin|data\.h5|data\.zarr/({ARRAY_NAME}/)?zarr\.json|data\.zarr/{ARRAY_NAME}/c(/[0-9]+)+"
)


@dataclass(frozen=True)
class PushRecord:
    """How far a push has come.

    Attributes:
        root: of the cache that is sent; empty: of none.
        finished: its files that are there.
        stale: files there that are none of its own, of the cache that lay there before.
    """

    root: str = ""
    finished: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def to_bytes(self) -> bytes:
        """As it is written."""
        return encode_json({"root": self.root, "finished": sorted(self.finished), "stale": sorted(self.stale)})


NOTHING = PushRecord()


def parse_record(data: bytes | None) -> PushRecord:
    """A record from its bytes; an empty one where there are none, or no record. Its names lead out of no folder."""
    try:
        values = json.loads(data or b"{}")
        return PushRecord(str(values.get("root", "")), _clean(values.get("finished")), _clean(values.get("stale")))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return NOTHING


def join_records(begun: PushRecord, progress: PushRecord) -> PushRecord:
    """What both say together."""
    return replace(begun, finished=begun.finished | (progress.finished if progress.root == begun.root else frozenset()))


def find_stale_files(manifest: Manifest, there: Manifest | None, record: PushRecord) -> frozenset[str]:
    """What lies at a URL of other caches, and has to go.

    Args:
        manifest: of the cache that is to lie there.
        there: the one that is there.
        record: that is there.
    """
    return (record.stale | record.finished | (there.files.keys() if there else set())) - manifest.files.keys()


def _clean(names: Any) -> frozenset[str]:
    return frozenset(name for name in map(str, names or ()) if CACHE_PATH.fullmatch(name))
