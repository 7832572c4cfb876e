"""Where the processes of a command meet, anew after each restart: at a store that may hold what earlier ones left."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Protocol

PAUSE = 0.05  # seconds between two looks


class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str) -> Any: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


def agree_on_round(store: Store, number: int, count: int, patience: float) -> str:
    """A name that all processes that are alive have in common, and none that is no more.

    Each machine's torchrun counts restarts for itself, so no count will do. Each process says who it is; the first one
    names a round with all of these; who finds itself in it says so; when all have, it begins.

    Args:
        store: that all share.
        number, count: of this process, and of all.
        patience: seconds until it gives up.

    Raises:
        RuntimeError: the others have not come, or another process has this one's place.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + patience
    store.set(f"hello/{number}", own)
    named: list[str] = []
    told = ""
    while time.monotonic() < end:
        if number == 0:
            there = _read_all(store, [f"hello/{each}" for each in range(count)])
            if there and there[0] != own:
                raise RuntimeError("another process has begun in the place of this one")
            if there and there != named:
                named, told = there, uuid.uuid4().hex
                store.set("round", json.dumps([told, named]))
        told, members = _read_round(store)
        if len(members) == count and members[number] == own:
            store.set(f"here/{told}/{number}", own)
            if number == 0 and _read_all(store, [f"here/{told}/{each}" for each in range(count)]):
                store.set(f"go/{told}", own)
            if _read_all(store, [f"go/{told}"]):
                return told
        time.sleep(PAUSE)
    raise RuntimeError(f"not all of {count} processes have come within {patience:.0f} s")


def _read_all(store: Store, keys: list[str]) -> list[str]:
    """The values of keys that are all there; else nothing."""
    return [store.get(key).decode() for key in keys] if store.check(keys) else []


def _read_round(store: Store) -> tuple[str, list[str]]:
    found = _read_all(store, ["round"])
    if not found:
        return "", []
    name, members = json.loads(found[0])
    return str(name), [str(each) for each in members]
