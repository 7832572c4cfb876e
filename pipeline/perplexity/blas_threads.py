"""BLAS on one thread: with several the last bits of a sum depend on their number, and threads fight for cores."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def limit_to_one_thread() -> AbstractContextManager[object]:
    """While it is open, BLAS calls of this process use one thread each."""
    found: AbstractContextManager[object] = _find_libraries().limit(limits=1)
    return found


@cache
def _find_libraries() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")
