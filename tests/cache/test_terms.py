"""The card of a cache, the terms that it names, and what `cache inspect` fetches of a URL to say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import cache, runs
from pipeline.base.errors import InputError
from pipeline.base.files import hash_json
from pipeline.cache import rewrite, writer
from pipeline.cache.blocks import Block
from pipeline.cache.cache_paths import CARD_PATH
from pipeline.cache.codecs import Format
from pipeline.cache.folder import LocalFolder
from pipeline.cache.manifest import ComputedInfo, Manifest, SharingInfo, parse_manifest
from pipeline.cache.verify import verify_cache
from pipeline.study.params_file import parse_study
from pipeline.study.sections import SharingParams
from tests.cache import test_golden
from tests.cache.test_cache import DESCRIPTION, flip, plan, tree, values
from tests.cache.test_urls import with_ranges
from tests.conftest import Capture, Run, refused, write_study
from tests.dumps import test_golden_fields

STORES: list[Format] = ["zarr", "hdf5"]
CITATION = "@misc{big,\n  title = {What *big* knows},\n}\n"
TERMS = {"licence": "CC-BY-4.0", "citation": CITATION, "contact": "big@example.org"}
COMPUTED = ComputedInfo(device="cuda (Card 5)", precision="bfloat16", layout="channels_last")
DUMP = "data/cache/big-logits"


def compute(block: Block) -> dict[str, NDArray[Any]]:
    return {"logits": values("float32")[block.view, block.start : block.stop]}


def write(folder: Path, store: Format = "zarr", **optional: Any) -> Manifest:
    described = {**DESCRIPTION, **optional}
    return writer.write_cache(folder / "dump", folder / "work", plan(), compute, store=store, description=described)


def card(folder: Path) -> str:
    return (folder / CARD_PATH).read_text()


@pytest.mark.parametrize("store", STORES)
def test_a_card_says_what_the_cache_is_and_on_which_terms(tmp_path: Path, store: Format) -> None:
    made = write(tmp_path, store, computed=COMPUTED, sharing=SharingInfo(**TERMS))
    page = card(tmp_path / "dump")
    assert page.startswith("# logits of big on digits\n")
    for line in (
        f"- teacher: big (mlp), test accuracy {made.teacher.test_accuracy:.4f},",
        f"  weights SHA-256 `{made.teacher.weights_sha256}`",
        f"- data set: digits, {made.dataset.samples} samples of 1 x 8 x 8, {len(made.dataset.classes)} classes,",
        f"  fingerprint `{made.dataset.fingerprint}`",
        "- views: 1 of policy none",
        "- computed: on cuda (Card 5), in bfloat16, channels_last",
        f"- values: SHA-256 `{made.values}`",
        "- licence: CC-BY-4.0",
        "- contact: big@example.org",
    ):
        assert f"\n{line}\n" in page, line
    assert page.endswith("\n## Cite\n\n    @misc{big,\n      title = {What *big* knows},\n    }\n")
    stored = int(cache.open(tmp_path / "dump").table.arrays["logits"].records["bytes"].sum())
    assert f"| `logits` | (1, 70, 5) | float32 | none | 1 kB | {stored / 1000:.0f} kB |" in page


def test_what_nobody_said_stands_in_the_card_as_that(tmp_path: Path) -> None:
    write(tmp_path)
    page = card(tmp_path / "dump")
    assert "\n- computed: nobody said how\n" in page
    assert "\n- licence: none is named; ask before you pass it on\n" in page
    assert "contact" not in page
    assert "Cite" not in page


MADE: list[tuple[Callable[[Path, str], Manifest], str]] = [
    *((test_golden.write, name) for name in test_golden.NAMES),
    *((test_golden_fields.write, name) for name in test_golden_fields.NAMES),
]


@pytest.mark.parametrize(("make", "name"), MADE, ids=lambda each: each if isinstance(each, str) else "")
def test_the_lines_of_a_card_read_the_cache(
    tmp_path: Path, make: Callable[[Path, str], Manifest], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path, name)
    (code,) = re.findall(r"```python\n(.*?)```", card(tmp_path / name), re.DOTALL)
    assert len(code.splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code.replace("FOLDER", name), found)
    array = re.findall(r'array="(.*?)"', code)[0]
    assert np.array_equal(found["rows"], found["opened"].load(array)[0][:1])
    with pytest.raises(InputError, match=f"values expected f{{64}}, found {made.values}"):
        exec(code.replace("FOLDER", name).replace(made.values, "f" * 64), {})


@pytest.mark.parametrize("store", STORES)
def test_terms_that_nobody_gave_are_not_among_the_bytes(tmp_path: Path, store: Format) -> None:
    without, with_terms = write(tmp_path / "a", store), write(tmp_path / "b", store, sharing=SharingInfo(**TERMS))
    assert b"sharing" not in (tmp_path / "a/dump/manifest.json").read_bytes()
    assert without.sharing is None
    assert cache.open(tmp_path / "b/dump").manifest.sharing == SharingInfo(**TERMS)
    assert (without.values, without.root == with_terms.root) == (with_terms.values, False)
    a, b = tree(tmp_path / "a/dump"), tree(tmp_path / "b/dump")
    assert {name for name in a if a[name] != b[name]} == {"manifest.json", "card.md"}


@pytest.mark.parametrize("store", STORES)
def test_a_cache_with_terms_is_mended_and_converted_with_them(tmp_path: Path, store: Format) -> None:
    sealed = write(tmp_path, store, computed=COMPUTED, sharing=SharingInfo(**TERMS))
    folder, before = tmp_path / "dump", tree(tmp_path / "dump")
    flip(folder / CARD_PATH, 5)
    found = verify_cache(LocalFolder(folder), sealed)
    assert [each.file for each in found.damage] == [CARD_PATH]
    rewrite.repair_cache(folder, sealed, found, target=tmp_path / "new", work=tmp_path / "w", compute=compute)
    assert tree(tmp_path / "new") == before
    other: Format = "hdf5" if store == "zarr" else "zarr"
    runs.convert_cache(tmp_path / "new", tmp_path / "other", store=other)
    made = cache.open(tmp_path / "other").manifest
    assert (made.sharing, made.computed) == (sealed.sharing, sealed.computed)


def test_other_terms_take_up_the_finished_blocks(tmp_path: Path) -> None:
    done: list[int] = []

    def stop(block: Block) -> dict[str, NDArray[Any]]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(block.start)
        return compute(block)

    def go_on(block: Block) -> dict[str, NDArray[Any]]:
        done.append(block.start)
        return compute(block)

    named = {"store": "zarr", "description": DESCRIPTION}
    with pytest.raises(KeyboardInterrupt):
        writer.write_cache(tmp_path / "dump", tmp_path / "work", plan(chunk_rows=16), stop, **named)  # type: ignore[arg-type]
    named["description"] = {**DESCRIPTION, "sharing": SharingInfo(**TERMS)}
    writer.write_cache(tmp_path / "dump", tmp_path / "work", plan(chunk_rows=16), go_on, **named)  # type: ignore[arg-type]
    assert done == [0, 16, 32, 48, 64]
    assert "CC-BY-4.0" in card(tmp_path / "dump")


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({**TERMS, "licence": ""}, "sharing.licence"),
        ({**TERMS, "licence": " "}, "sharing.licence"),
        ({**TERMS, "licence": "two\nlines"}, "sharing.licence"),
        ({**TERMS, "contact": "x" * 201}, "sharing.contact"),
        ({**TERMS, "citation": "x" * 4001}, "sharing.citation"),
        ({**TERMS, "citation": "\n"}, "sharing.citation"),
        ({**TERMS, "citation": 3}, "sharing.citation"),
        ({**TERMS, "more": "x"}, "sharing.more: unknown entry"),
        ({"licence": "CC-BY-4.0"}, "sharing.c"),
        ({}, "sharing."),
        (None, "the bytes that were sealed"),
    ],
)
def test_a_manifest_of_odd_terms_is_refused(tmp_path: Path, terms: dict[str, Any] | None, found: str) -> None:
    entries = write(tmp_path, sharing=SharingInfo(**TERMS)).model_dump()
    entries.pop("root")
    entries["sharing"] = terms
    sealed = {**entries, "root": hash_json(entries)}
    data = (json.dumps(sealed, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()
    with pytest.raises(InputError) as caught:
        parse_manifest(data, "x", "dump it again")
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ as a user says them


def test_a_study_says_the_terms_of_its_dumps(run: Run, copy_of: Path, study: dict[str, Any], capsys: Capture) -> None:
    before = cache.open(copy_of / DUMP).manifest
    study["sharing"] = TERMS
    write_study(copy_of, study)
    assert run(copy_of, "train-student", "kd") == 0  # terms are no reason to refuse what is there
    assert run(copy_of, "dump-logits", "big-logits") == 0
    made = cache.open(copy_of / DUMP).manifest
    assert made.sharing == SharingInfo(**TERMS)
    assert made.values == before.values
    capsys.readouterr()
    assert run(copy_of, "cache", "inspect", DUMP) == 0
    shown = capsys.readouterr().out
    assert re.search(r"licence +│ CC-BY-4\.0", shown)
    assert re.search(r"contact +│ big@example\.org", shown)
    assert "cite:\n  @misc{big,\n    title = {What *big* knows},\n  }\n" in shown


def test_a_change_of_terms_makes_no_stage_stale(study: dict[str, Any]) -> None:
    """It would train every student again that reads the dump."""
    from pipeline.graph.stages import compile_stages

    before = compile_stages(parse_study(study))
    assert compile_stages(parse_study({**study, "sharing": TERMS})) == before


@pytest.mark.parametrize(
    ("sharing", "found"),
    [
        ({"license": "MIT"}, "sharing"),
        ({"licence": ""}, "sharing.licence"),
        ({"licence": 3}, "sharing.licence"),
        ({"contact": "a\nb"}, "sharing.contact"),
        ("MIT", "sharing"),
    ],
)
def test_odd_terms_in_a_study_are_refused(study: dict[str, Any], sharing: object, found: str) -> None:
    with pytest.raises(InputError, match=rf"^params\.yaml: {re.escape(found)}: "):
        parse_study({**study, "sharing": sharing})


def test_the_keys_of_a_study_are_those_of_a_manifest() -> None:
    assert list(SharingParams.model_fields) == list(SharingInfo.model_fields)


def test_convert_changes_terms_alone(run: Run, capsys: Capture, copy_of: Path) -> None:
    assert run(copy_of, "cache", "convert", DUMP, "a", "--terms", "licence=CC0-1.0", "--terms", "contact=me") == 0
    assert "the same values" in capsys.readouterr().out
    assert run(copy_of, "cache", "convert", "a", "b", "--terms", "licence=MIT", "--terms", "citation=Me.") == 0
    terms = [cache.open(copy_of / name).manifest.sharing for name in "ab"]
    assert terms == [
        SharingInfo(licence="CC0-1.0", citation=None, contact="me"),
        SharingInfo(licence="MIT", citation="Me.", contact="me"),
    ]
    old, new = tree(copy_of / DUMP), tree(copy_of / "a")
    assert {name for name in old if old[name] != new[name]} == {"manifest.json", "card.md"}
    for given, expected in (
        ("licence=a\nb", "licence: expected one line of at most 200 letters"),
        ("contact=", "contact: expected one line"),
        ("citation=" + "x" * 4001, "citation: expected some text of at most 4000 letters"),
        ("author=me", "terms: expected licence, citation, contact, found author"),
        ("MIT", "--terms: expected KEY=VALUE, found MIT"),
    ):
        assert expected in refused(run, capsys, copy_of, "cache", "convert", DUMP, "c", "--terms", given)
    assert not (copy_of / "c").exists()


def test_a_foreign_cache_names_its_terms(run: Run, copy_of: Path) -> None:
    images = np.load(copy_of / "data/prepared/digits/labels.npy")
    train = cache.open(copy_of / DUMP).manifest.rows
    np.save(copy_of / "x.npy", np.eye(10, dtype=np.float32)[images[:train]] * 5)
    create = ("cache", "create", "new", "--from", "x.npy", "--teacher", "t", "--data", "data/prepared/digits")
    assert run(copy_of, *create, "--terms", "licence=CC0-1.0") == 0
    assert cache.open(copy_of / "new").manifest.sharing == SharingInfo(licence="CC0-1.0", citation=None, contact=None)


def test_inspect_fetches_no_data_of_a_url(run: Run, capsys: Capture, copy_of: Path) -> None:
    """And says of it all that it says of a folder, but how the numbers look."""
    assert (
        run(copy_of, "cache", "convert", DUMP, "shared", "--terms", "licence=CC0-1.0", "--terms", "citation=Me.") == 0
    )
    assert run(copy_of, "cache", "inspect", "shared", "--json") == 0
    whole = json.loads(capsys.readouterr().out.partition("\n")[2])
    with with_ranges(copy_of / "shared") as served:
        assert run(copy_of, "cache", "inspect", served.url, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        fetched = [(each.path, each.sent) for each in served.requests]
        size = (copy_of / "shared/manifest.json").stat().st_size
        assert fetched == [("/manifest.json", size)]
        assert found["sharing"] == {"licence": "CC0-1.0", "citation": "Me.", "contact": None}
        for array in whole["arrays"].values():
            assert array["stored_bytes"] > 0
            array["stored_bytes"] = None
        assert found == {**whole, "facts": None}

        assert run(copy_of, "cache", "inspect", served.url) == 0
        shown = capsys.readouterr().out
        for part in ("CC0-1.0", "Me.", found["root"], found["teacher"]["weights_sha256"][:12], "no data; --numbers"):
            assert part in shown
        assert "entropy" not in shown
        assert sum(each.sent for each in served.requests) == 2 * size

        served.requests.clear()
        assert run(copy_of, "cache", "inspect", served.url, "--numbers") == 0
        assert "entropy: mean" in capsys.readouterr().out
        assert any("/c/0/0/0" in each.path for each in served.requests)
        assert run(copy_of, "cache", "inspect", served.url, "--data", "data/prepared/digits") == 0
        assert "agreement with the labels" in capsys.readouterr().out
