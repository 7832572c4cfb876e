"""What the errors of a store far away mean, and for how long a run puts up with them."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
BUSY_STATUS = (408, 425, 429)  # of HTTP: later it may do, as with all from 500 on
LATER_NUMBERS = (
    errno.EIO, errno.EPIPE, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EAGAIN,
)  # fmt: skip
# Packages with errors of their own for a connection that is cut, by the words in the errors' names.
NETWORK_PACKAGES = {
    "aiohttp", "aiobotocore", "asyncssh", "botocore", "httpcore", "httpx", "requests", "urllib3", "websockets",
}  # fmt: skip
ABSENCE_WORDS = ("NotFound", "NoSuch")  # in the names of errors that FileNotFoundError is raised from
NETWORK_WORDS = ("Connect", "Disconnect", "Timeout", "Payload", "Protocol", "Read", "Write", "Network", "Transport")


def persist(action: Callable[[], T], reconnect: Callable[[], object] = lambda: None) -> T:
    """Do what may fail for a while, again after each pause.

    Args:
        action: to be done; it may be begun several times.
        reconnect: called before each further attempt.

    Raises:
        Exception: of the last attempt, or of the first that is no matter of time (nothing there, no right to it).
    """
    for pause in PAUSES:
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
        reconnect()
    return action()


def is_transient(error: BaseException) -> bool:
    """Whether the same may succeed a little later: a connection that is cut or refused, a server in trouble."""
    status = find_status(error)
    if status is not None:
        return status >= 500 or status in BUSY_STATUS
    return any(_is_network_trouble(each) for each in _iterate_causes(error))


def find_status(error: BaseException) -> int | None:
    """The HTTP status that an error tells of, whichever library raised it."""
    return next((status for each in _iterate_causes(error) if (status := _read_status(each)) is not None), None)


def find_cause(error: Exception) -> BaseException | None:
    """Why a file could not be reached; None where it is not there. (For fsspec's HTTP any trouble is a
    missing file; what it was stands behind it.)
    """
    if not isinstance(error, FileNotFoundError):
        return None if find_status(error) == 404 else error
    cause = error.__cause__
    return None if cause is None or _means_absence(cause) else cause


def _means_absence(error: BaseException) -> bool:
    named = any(word in type(error).__name__ for word in ABSENCE_WORDS)
    return named or isinstance(error, FileNotFoundError | LookupError) or find_status(error) == 404


def _iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    for _ in range(10):  # a chain may be a ring
        if error is None:
            return
        yield error
        error = error.__cause__


def _read_status(error: BaseException) -> int | None:
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    response = getattr(response, "status_code", response)
    found = [getattr(error, "status", None), getattr(error, "status_code", None), response]
    return next((each for each in found if type(each) is int and 100 <= each < 600), None)


def _is_network_trouble(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return True
    if isinstance(error, OSError) and error.errno in LATER_NUMBERS:
        return True
    kind = type(error)
    of_network = kind.__module__.partition(".")[0] in NETWORK_PACKAGES
    return of_network and any(word in kind.__name__ for word in NETWORK_WORDS)
