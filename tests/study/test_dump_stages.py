"""Which dumps a stage makes, and what it is called."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.graph.stages import compile_stages
from pipeline.study.dump_stages import find_dump_stage, list_dump_stages
from pipeline.study.params_file import parse_study


@pytest.fixture
def several(study: dict[str, Any]) -> dict[str, Any]:
    """Five dumps of a teacher, of which two see other batches and other samples; one of another, one of a student."""
    study["teachers"]["other"] = study["teachers"]["big"]
    study["dumps"] = {
        "l": {"field": "logits", "of": "big"},
        "o": {"field": "logits", "of": "other"},
        "small": {"field": "logits", "of": "big", "batch": 64},
        "h": {"field": "hints", "of": "big"},
        "all": {"field": "logits", "of": "big", "samples": "all"},
        "small-h": {"field": "hints", "of": "big", "batch": 64},
        "s": {"field": "logits", "of": "baseline"},
        "s1": {"field": "logits", "of": "baseline", "of_seed": 1},
    }
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "l"
    return study


def made(study: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.dumps for stage in list_dump_stages(parse_study(study))}


def test_dumps_of_one_pass_are_one_stage(several: dict[str, Any]) -> None:
    assert made(several) == {
        "dumps-big": ("l", "h"), "dump-logits-o": ("o",), "dumps-big-small": ("small", "small-h"),
        "dump-logits-all": ("all",), "dump-logits-s": ("s",), "dump-logits-s1": ("s1",),
    }  # fmt: skip
    assert find_dump_stage(parse_study(several), "small-h").name == "dumps-big-small"


def test_a_dump_alone_has_the_stage_that_it_always_had(study: dict[str, Any]) -> None:
    (stage,) = list_dump_stages(parse_study(study))
    assert (stage.name, stage.command) == ("dump-logits-big-logits", "dump-logits big-logits")


@pytest.mark.parametrize(
    ("apart", "names"),
    [
        (True, {"dump-logits-l", "dump-hints-h", "dump-logits-small", "dump-hints-small-h"}),
        (["h"], {"dump-logits-l", "dump-hints-h", "dumps-big"}),
        ([], {"dumps-big", "dumps-big-small"}),
        (False, {"dumps-big", "dumps-big-small"}),
    ],
)
def test_dumps_that_are_apart_have_stages_of_their_own(several: dict[str, Any], apart: Any, names: set[str]) -> None:
    several["apart"] = apart
    assert made(several).keys() == names | {"dump-logits-o", "dump-logits-all", "dump-logits-s", "dump-logits-s1"}


def test_a_stage_depends_on_what_each_of_its_dumps_does(several: dict[str, Any]) -> None:
    stages = {stage.name: stage for stage in compile_stages(parse_study(several))}
    together = stages["dumps-big"]
    assert together.command == "teachercache dump big l h"
    assert together.outs == ("data/cache/l", "data/cache/h")
    assert together.params == ("cache", "dumps.l", "dumps.h")
    several["apart"] = True
    alone = [stage for stage in compile_stages(parse_study(several)) if stage.outs in [(out,) for out in together.outs]]
    assert len(alone) == 2
    assert {*together.modules} == {module for stage in alone for module in stage.modules}
    assert {together.deps} == {stage.deps for stage in alone}


def test_which_dumps_are_apart_decides_no_dump(several: dict[str, Any]) -> None:
    several["apart"] = ["small"]
    listed = {key for stage in compile_stages(parse_study(several)) for key in stage.params}
    assert "apart" not in listed


def test_an_unknown_dump_is_not_apart(several: dict[str, Any]) -> None:
    several["apart"] = ["l", "hints"]
    with pytest.raises(InputError, match=r"params.yaml: apart: unknown dump 'hints': expected one of all, h, l"):
        parse_study(several)


@pytest.mark.parametrize("apart", ["l", 1, {"l": True}, [["l"]], [True]])
def test_what_is_neither_a_list_nor_a_boolean_is_refused_once(several: dict[str, Any], apart: Any) -> None:
    several["apart"] = apart
    with pytest.raises(InputError, match=r"params.yaml: apart: expected true, false or a list of dumps") as caught:
        parse_study(several)
    assert "more)" not in str(caught.value)


def test_every_stage_has_a_name_of_its_own(several: dict[str, Any]) -> None:
    several["teachers"]["big-small"] = several["teachers"]["big"]
    several["dumps"] |= {name: {"field": field, "of": "big-small"} for name, field in (("x", "logits"), ("y", "hints"))}
    assert made(several)["dumps-big-small"] == ("small", "small-h")
    assert made(several)["dumps-big-small-x"] == ("x", "y")
    third = {"small-x": "logits", "small-y": "hints"}
    several["dumps"] |= {name: {"field": field, "of": "big", "batch": 32} for name, field in third.items()}
    with pytest.raises(
        InputError, match="'x' and 'small-x' would both be made by stage 'dumps-big-small-x'; rename one"
    ):
        parse_study(several)
