"""Caches that are pushed to real servers, and pulled from them."""

from __future__ import annotations

import functools
import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import cache, runs
from pipeline.base.errors import InputError, NotNowError
from pipeline.cache.push_record import BEGUN_PATH, PROGRESS_PATH, parse_record
from tests.cache.test_transfer import PARTS, files, flipped, other, refusal
from tests.cache.test_urls import values, write
from tests.conftest import Capture, Run, refused, shell
from tests.servers.stores import STORES, Store

pytestmark = [
    pytest.mark.servers,
    # Of the servers' own packages.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# By protocol: the package with which DVC reaches it, and its options, by the names of ours.
DVC_REMOTES = {
    "s3": ("dvc_s3", {"endpointurl": "endpoint_url", "access_key_id": "key", "secret_access_key": "secret"}),
    "webdav": ("dvc_webdav", {"user": "user", "password": "password"}),
    "ssh": ("dvc_ssh", {"keyfile": "client_keys"}),
    "sftp": ("dvc_ssh", {"keyfile": "client_keys"}),
}


@pytest.fixture(params=list(STORES), scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with STORES[request.param](tmp_path_factory.mktemp("server") / "root") as made:
        yield made
    with warnings.catch_warnings(action="ignore"):  # clients leave open what ends with them
        gc.collect()


@pytest.fixture
def store(server: Store) -> Store:
    server.line.mend()
    return server


def there(store: Store, name: str) -> dict[str, bytes]:
    return {each: store.read(f"{name}/{each}") for each in store.list_files(name)}


def test_a_cache_is_pushed_pulled_and_opened(tmp_path: Path, store: Store) -> None:
    for form in PARTS:
        made = write(tmp_path / form, form, "none")
        url = f"{store.url}/{form}/dump"
        pushed = runs.push_cache(made, url, check=True, storage_options=store.options)
        assert there(store, f"{form}/dump") == files(made)
        assert runs.push_cache(made, url, storage_options=store.options).values["sent_files"] == 0
        root = pushed.values["root"]
        runs.pull_cache(f"{url}#{root[:12]}", tmp_path / f"{form}-back", storage_options=store.options)
        assert files(tmp_path / f"{form}-back") == files(made)
        opened = cache.open(url, {"teacher.name": "big"}, storage_options=store.options)
        assert np.array_equal(opened.rows([69, 0, 33], 1), values()[1][[69, 0, 33]])
        assert cache.open(tmp_path / f"{form}-back").load().tobytes() == values().tobytes()


def test_a_tampered_object_is_refused(tmp_path: Path, store: Store) -> None:
    made, url = write(tmp_path, "zarr", "none"), f"{store.url}/tampered"
    runs.push_cache(made, url, storage_options=store.options)
    name = "data.zarr/logits/c/1/2/0"
    store.write(f"tampered/{name}", flipped(store.read(f"tampered/{name}"), 9))
    pull = functools.partial(runs.pull_cache, url, tmp_path / "back", storage_options=store.options)
    refusal(pull, f"file {name}", "another SHA-256", "push it there again with --check", kind=NotNowError)
    opened = cache.open(url, storage_options=store.options)
    assert np.array_equal(opened.rows([0]), values()[0][[0]])
    refusal(lambda: opened.rows([35], 1), f"file {name}", "expected the chunk that was sealed")
    assert not (tmp_path / "back").exists()
    assert runs.push_cache(made, url, check=True, storage_options=store.options).values["sent_files"] == 1
    assert pull().values["fetched_bytes"] < sum(len(data) for data in files(made).values()) / 2  # the rest was here
    assert files(tmp_path / "back") == files(made)


def count_bytes(store: Store, made: Path, url: str, back: Path) -> tuple[int, int]:
    """What a push and a pull of a cache send over the line, both ways."""
    store.line.mend()
    runs.push_cache(made, url, storage_options=store.options)
    pushed = store.line.passed
    store.line.mend()
    runs.pull_cache(url, back, storage_options=store.options)
    return pushed, store.line.passed


def test_a_line_that_is_cut_in_mid_transfer_loses_nothing(tmp_path: Path, store: Store) -> None:
    made = write(tmp_path, "zarr", "none")
    pushed, pulled = count_bytes(store, made, f"{store.url}/whole", tmp_path / "whole")
    cuts = 0
    for number, (up, down) in enumerate(
        zip(range(pushed // 20, pushed, pushed // 20), range(pulled // 20, pulled, pulled // 20), strict=False)
    ):
        url, back = f"{store.url}/cut-{number}", tmp_path / f"back-{number}"
        push = functools.partial(runs.push_cache, made, url, storage_options=store.options)
        pull = functools.partial(runs.pull_cache, url, back, storage_options=store.options)
        store.line.mend(up)
        try:
            push()
        except NotNowError:
            cuts += 1
        store.line.mend()
        finished = parse_record(there(store, f"cut-{number}").get(PROGRESS_PATH)).finished
        before = {name: data for name, data in there(store, f"cut-{number}").items() if name in finished}
        assert before.items() <= files(made).items()
        if "manifest.json" not in there(store, f"cut-{number}"):
            assert push().values["sent_files"] == len(files(made)) - 1 - len(finished)
        push()
        assert there(store, f"cut-{number}") == files(made)
        store.line.mend(down)
        try:
            pull()
        except NotNowError:
            assert not back.exists()
            cuts += 1
        store.line.mend()
        pull()
        assert files(back) == files(made)
    assert cuts >= 30


def test_a_cache_is_exchanged(tmp_path: Path, store: Store) -> None:
    old, new, url = write(tmp_path, "zarr", "none"), other(tmp_path, "hdf5"), f"{store.url}/exchanged"
    push = functools.partial(runs.push_cache, storage_options=store.options)
    push(old, url)
    refusal(lambda: push(new, url), "found another one (root ", "--replace")
    push(new, url, exchange=True)
    assert there(store, "exchanged") == files(new)
    assert not {BEGUN_PATH, PROGRESS_PATH} & there(store, "exchanged").keys()


def test_what_is_not_there_or_not_allowed_is_one_line(tmp_path: Path, store: Store) -> None:
    refusal(
        lambda: runs.pull_cache(f"{store.url}/nothing", tmp_path / "back", storage_options=store.options),
        "manifest.json: expected a file of a cache, found nothing",
    )
    store.line.mend(0)
    for url in (f"{store.url}/nothing", f"{store.url}-elsewhere/nothing"):
        refusal(lambda: runs.pull_cache(url, tmp_path / "back", storage_options=store.options), kind=NotNowError)  # noqa: B023
    assert not (tmp_path / "back").exists()


def test_the_commands_against_a_server(run: Run, capsys: Capture, copy_of: Path, store: Store) -> None:
    """A cache is pushed, pulled into a study that has none, and a student trained from it."""
    dump, url = "data/cache/big-logits", f"{store.url}/study/big-logits"
    storage = [word for key, value in store.options.items() for word in ("--storage", f"{key}={value}")]
    sealed = files(copy_of / dump)
    assert run(copy_of, "cache", "push", dump, url, *storage) == 0
    pinned = capsys.readouterr().out.splitlines()[1].partition("cache pull ")[2]
    for path in ("data/cache", "data/teachers", "data/students"):
        (copy_of / path).rename(copy_of / path.replace("/", "-"))
    assert "expected" in refused(run, capsys, copy_of, "train-student", "kd")
    assert run(copy_of, "cache", "pull", pinned, dump, "--expect", "teacher.name=big", *storage) == 0
    assert files(copy_of / dump) == sealed
    before = json.loads((copy_of / "data/metrics/students/kd.json").read_bytes())
    assert run(copy_of, "train-student", "kd") == 0
    assert json.loads((copy_of / "data/metrics/students/kd.json").read_bytes()) == before
    wrong = refused(run, capsys, copy_of, "cache", "pull", f"{url}#{'0' * 12}", "x", *storage)
    assert "root: expected 000000000000" in wrong


def test_a_cache_on_a_webdav_server_is_pulled_over_plain_http(tmp_path: Path, store: Store) -> None:
    if store.http is None:
        pytest.skip("this server answers no plain HTTP")
    made = write(tmp_path, "zarr", "none")
    runs.push_cache(made, f"{store.url}/plain", storage_options=store.options)
    store.line.mend()
    runs.pull_cache(f"{store.http}/plain", tmp_path / "back")
    assert files(tmp_path / "back") == files(made)
    step, cuts = store.line.passed // 22, 0
    for number in range(1, 21):
        back = tmp_path / f"back-{number}"
        store.line.mend(number * step)
        try:
            runs.pull_cache(f"{store.http}/plain", back)
        except NotNowError:
            cuts += 1
            assert not back.exists()
        store.line.mend()
        runs.pull_cache(f"{store.http}/plain", back)
        assert files(back) == files(made)
    assert cuts >= 15


def test_a_host_that_is_not_known_is_refused(tmp_path: Path, store: Store) -> None:
    if "known_hosts" not in store.options:
        pytest.skip("this server is no host of SSH")
    (tmp_path / "nobody").write_text("")
    options = {**store.options, "known_hosts": str(tmp_path / "nobody")}
    with pytest.raises(InputError, match=r"[Hh]ost key"):
        runs.push_cache(write(tmp_path, "zarr", "none"), f"{store.url}/stranger", storage_options=options)
    assert there(store, "stranger") == {}


def test_a_bucket_that_is_not_there_is_not_made(tmp_path: Path, store: Store) -> None:
    if not store.url.startswith("s3://"):
        pytest.skip("this server has no buckets")
    push = functools.partial(runs.push_cache, write(tmp_path, "zarr", "none"), storage_options=store.options)
    refusal(lambda: push("s3://no-such-bucket/x"), "s3://no-such-bucket/x", "bucket does not exist")


@pytest.mark.dvc
def test_a_dvc_remote_on_the_same_server(tmp_path: Path, store: Store) -> None:
    """A cache that `dvc push` sent there is pulled into a fresh clone, and read without one."""
    kind, options = DVC_REMOTES[store.url.partition(":")[0]]
    pytest.importorskip(kind, reason=f"DVC reaches this server with {kind}, which is not installed")
    origin, url = tmp_path / "origin", store.url  # DVC's WebDAV wants a folder that is there
    made = write(origin / "data/cache", "zarr", "none")
    sealed = files(made)
    for lock in made.parent.glob("*.lock"):
        lock.unlink()
    shell(origin, "git init -q && git config user.name t && git config user.email t@t && dvc init -q")
    shell(origin, f"dvc config core.analytics false && dvc remote add -q -d shared '{url}'")
    for key, name in options.items():
        shell(origin, f"dvc remote modify -q shared {key} '{store.options[name]}'")
    shell(origin, "dvc config remote.shared.verify true && dvc add -q data/cache && dvc push -q")
    shell(origin, "git add -A && git commit -qm made && rm -r data/cache .dvc/cache")
    shell(tmp_path, "git clone -q origin clone")
    shell(tmp_path / "clone", "dvc pull -q")
    assert files(tmp_path / "clone/data/cache/dump") == sealed
    opened = cache.open("dvc://data/cache/dump", storage_options={"repo": str(origin)})
    assert np.array_equal(opened.rows([69, 0]), values()[0][[69, 0]])
