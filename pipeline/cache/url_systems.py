"""The file system behind a URL: fsspec's own, and those of stores that need another package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.base.errors import InputError, NotNowError
from pipeline.cache.remote_errors import persist

# What brings a protocol's package: `pip install 'teachercache[EXTRA]'`.
EXTRAS = {"s3": "s3", "s3a": "s3", "ssh": "ssh", "sftp": "ssh", "webdav": "webdav", "webdavs": "webdav", "hf": "hf"}

HELD_PROTOCOLS = {"ssh", "sftp", "ftp", "smb"}  # one connection serves all requests; where it is cut, it stays so
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}  # of botocore: s3fs tries five times, and we as often


def connect_url(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """A URL's file system, and the path of the URL in it.

    Raises:
        InputError: a protocol that nobody knows, or whose package is not installed; options that it does not take.
        NotNowError: the server cannot be reached, or lets nobody in.
    """
    protocol, shown = url.partition("://")[0], hide_password(url)
    try:
        return persist(lambda: _connect(protocol, url, options))
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        fix = f"pip install 'teachercache[{extra}]'" if extra else ""
        raise InputError(shown, expected="a URL that fsspec reads", found=str(error), fix=fix) from None
    except (ValueError, TypeError) as error:
        raise InputError(shown, expected="a URL that fsspec reads", found=str(error)) from None
    except Exception as error:  # noqa: BLE001 - every protocol raises errors of its own
        found, fix = f"{type(error).__name__}: {error}", "check the address, your rights and the network"
        raise NotNowError(shown, expected="to reach it", found=found, fix=fix) from None


def hide_password(url: str) -> str:
    """A URL as messages show it."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", url)


def list_protocols(system: Any) -> set[str]:
    """The names of a file system's protocols."""
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)


def _connect(protocol: str, url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    if protocol in ("ssh", "sftp"):
        return _connect_ssh(url, options)
    if protocol in ("webdav", "webdavs"):
        return _connect_webdav(url, dict(options))
    import fsspec

    if protocol in ("s3", "s3a"):
        options = {"config_kwargs": ONE_ATTEMPT, **options}
    system, root = fsspec.core.url_to_fs(url, **options)
    return system, root.rstrip("/")


def _connect_ssh(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Hosts are those of `~/.ssh/known_hosts`: unless it is told so, sshfs would trust any, and wait for ever."""
    from sshfs import SSHFileSystem

    parts = urlsplit(url)
    named = {"host": parts.hostname, "port": parts.port, "username": parts.username, "password": parts.password}
    given = {key: value for key, value in named.items() if value is not None}
    # Of its own: fsspec would give out a connection that was cut since.
    fixed = {"known_hosts": (), "keepalive_interval": 15, "skip_instance_cache": True}
    return SSHFileSystem(**{**fixed, **given, **options}), unquote(parts.path).rstrip("/")


def _connect_webdav(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """`webdav://` over http, `webdavs://` over https, as DVC has them; `user` and `password` may be options."""
    from webdav4.fsspec import WebdavFileSystem

    parts = urlsplit(url)
    user, password = options.pop("user", parts.username), options.pop("password", parts.password)
    host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    auth = (unquote(user), unquote(password or "")) if user else None
    base = f"{'https' if parts.scheme == 'webdavs' else 'http'}://{host}"
    return WebdavFileSystem(base, auth=auth, **options), unquote(parts.path).strip("/")
