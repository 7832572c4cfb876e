"""Claims of a source and its numbers: measured by hand, against scipy's intervals, and as the report tells them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy import stats

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, read_json
from pipeline.graph import stages as graph
from pipeline.report.build import build_report
from pipeline.report.claims import Claim, Metric, Verdict, judge_claim
from pipeline.report.groups import Group, Unit, group_students
from pipeline.report.network_results import Measurements, average_end, first_epoch_reaching
from pipeline.report.page import Report
from pipeline.report.published import Published, compare_with_source
from pipeline.study.params_file import parse_study
from tests.conftest import ROOT, Run, write_study

KD, PLAIN, FEW = (0.91, 0.93, 0.92, 0.95), (0.88, 0.91, 0.90, 0.91), (0.93, 0.94)
APART = (0.90, 0.85, 0.91)  # another number of seeds
AHEAD_OF_BIG = stats.ttest_1samp([value - 0.9 for value in KD], 0)
TEACHERS = {"big": {"test_accuracy": 0.9, "parameters": 9, "bytes": 36, "bits": 288}}


def group(name: str, *runs: tuple[float, ...], unit: Unit = "run") -> Group:
    """A group whose students are called after it."""
    return Group(
        name, tuple(f"{name}-{n}" for n in range(len(runs))), tuple("abc"[n] for n in range(len(runs))), runs, unit
    )


def networks(*groups: Group, **curves: Any) -> Measurements:
    return Measurements(
        {each.name: each for each in groups},
        TEACHERS,
        {name.replace("_", "-"): given for name, given in curves.items()},
    )


def claim(ahead: str, behind: str, of: Metric = "test", by: float = 0.0) -> Claim:
    return Claim("a", "it is so", ahead, behind, of, by)


def judged(ahead: tuple[float, ...] | None, behind: tuple[float, ...] | None, by: float = 0.0) -> Verdict:
    """Two students' test accuracies; None: the teacher."""
    there = [group(name, runs) for name, runs in (("one", ahead), ("other", behind)) if runs is not None]
    sides = ["big" if runs is None else name for name, runs in (("one", ahead), ("other", behind))]
    return judge_claim(claim(sides[0], sides[1], by=by), networks(*there))


@pytest.mark.parametrize(
    ("ahead", "behind", "how", "expected"),
    [
        (KD, PLAIN, "paired", stats.ttest_rel(KD, PLAIN)),
        (KD, APART, "welch", stats.ttest_ind(KD, APART, equal_var=False)),
        (APART, KD, "welch", stats.ttest_ind(APART, KD, equal_var=False)),
        (KD, (0.9,) * 3, "welch", AHEAD_OF_BIG),  # one side alone varies
        (KD, None, "one-sample", AHEAD_OF_BIG),
        (None, PLAIN, "one-sample", stats.ttest_1samp([0.9 - value for value in PLAIN], 0)),
    ],
)
def test_intervals_are_scipys(ahead: Any, behind: Any, how: str, expected: Any) -> None:
    made = judged(ahead, behind).estimate
    ends = expected.confidence_interval(0.95)
    assert made.how == how
    assert made.interval == pytest.approx((100 * ends.low, 100 * ends.high))
    means = [0.9 if runs is None else np.mean(runs) for runs in (ahead, behind)]
    assert made.difference == pytest.approx(100 * (means[0] - means[1]))


def test_an_interval_by_hand() -> None:
    # Points 3, 2, 2, 4: mean 2.75, std 0.9574271, t(0.975, 3) = 3.182446, so 2.75 +- 1.5234802.
    assert judged(KD, PLAIN).estimate.interval == pytest.approx((2.75 - 1.5234802, 2.75 + 1.5234802))


@pytest.mark.parametrize(
    ("ahead", "behind", "by", "outcome"),
    [
        (KD, PLAIN, 1.2, "reproduced"),  # 1.23 to 4.27
        (KD, PLAIN, 1.3, "unclear"),
        (KD, PLAIN, 4.2, "unclear"),
        (KD, PLAIN, 4.3, "not reproduced"),
        (PLAIN, KD, 0.0, "not reproduced"),
        (KD, None, 0.0, "reproduced"),  # 0.03 to 5.47
        (KD, None, 0.1, "unclear"),
        (KD, APART, 0.0, "unclear"),
        (PLAIN, PLAIN, 0.0, "not reproduced"),  # no spread: the one value decides
        ((0.3, 0.5, 0.7), (0.1 + 0.2, 0.5, 0.7), 0.0, "not reproduced"),  # apart by rounding alone
        ((0.86, 0.87, 0.3), (0.85, 0.86, 0.29), 1.0, "not reproduced"),  # a point each, but for rounding
        ((0.86, 0.87, 0.3), (0.85, 0.86, 0.29), 0.99, "reproduced"),
        ((0.5,) * 3, (0.4,) * 4, 9.0, "reproduced"),
        ((0.5,) * 3, (0.4,) * 4, 10.0, "not reproduced"),
        ((0.91,) * 3, None, 0.5, "reproduced"),
        (None, (0.9,) * 3, 0.0, "not reproduced"),
    ],
)
def test_the_verdict_is_the_intervals(ahead: Any, behind: Any, by: float, outcome: str) -> None:
    assert judged(ahead, behind, by).outcome == outcome


@pytest.mark.parametrize(
    ("ahead", "behind", "how", "reason"),
    [
        (FEW, FEW, "paired", "fewer than 3 pairs"),
        (KD, FEW, "welch", "fewer than 3 values"),
        ((0.5,), KD, "welch", "fewer than 3 values"),
        (FEW, None, "one-sample", "fewer than 3 values"),
    ],
)
def test_too_few_are_unclear(ahead: Any, behind: Any, how: str, reason: str) -> None:
    made = judged(ahead, behind)
    assert (made.outcome, made.estimate.how, made.estimate.interval) == ("unclear", how, None)
    assert made.estimate.reason == reason
    assert made.cells()[3:] == ("", "> 0 points", f"unclear ({reason})")


def test_a_unit_may_be_a_student() -> None:
    runs = ((0.9, 0.8), (0.8, 0.8), (0.7, 0.9)), ((0.7, 0.7), (0.6, 0.7), (0.6, 0.6))
    for unit, values in {"run": [np.ravel(r) for r in runs], "student": [np.mean(r, axis=1) for r in runs]}.items():
        there = [group(name, *own, unit=unit) for name, own in zip("ab", runs, strict=True)]  # type: ignore[arg-type]
        made = judge_claim(claim("a", "b"), networks(*there))
        ends = stats.ttest_rel(*values).confidence_interval(0.95)
        assert made.estimate.interval == pytest.approx((100 * ends.low, 100 * ends.high))
        assert made.numbers()["n"] == {"ahead": len(values[0]), "behind": len(values[0])}


def test_the_end_of_a_training_is_its_last_twentieth() -> None:
    curve = [0.0] * 95 + [0.90, 0.91, 0.92, 0.93, 0.94]
    assert average_end(curve) == pytest.approx(0.92)
    assert average_end(curve[:99]) == pytest.approx((0.90 + 0.91 + 0.92 + 0.93) / 4)  # 4.95, rounded down
    assert average_end([0.1, 0.7]) == 0.7
    assert [first_epoch_reaching(curve, level) for level in (0.0, 0.905, 0.94, 0.95)] == [1, 97, 100, None]
    flat = [0.1] * 60  # the mean of three is more than 0.1, by rounding
    assert average_end(flat) > 0.1
    assert first_epoch_reaching(flat, average_end(flat)) == 1


def test_validation_accuracies_are_of_curves_and_peers_are_one() -> None:
    curves = [[0.0] * 95 + [0.8 + 0.01 * seed + 0.1 * peer] * 5 for seed in range(3) for peer in range(2)]
    made = networks(group("a", KD[:3]), a_0=curves, big=[[0.0] * 95 + [0.91] * 5])
    ours = made.accuracy("a", "validation")
    assert isinstance(ours, Group)
    assert ours.values == pytest.approx((0.85, 0.86, 0.87))
    assert made.accuracy("big", "validation") == pytest.approx(0.91)
    assert (made.accuracy("big", "test"), made.accuracy("a", "test")) == (0.9, made.groups["a"])
    told = judge_claim(claim("big", "a", "validation", 3.0), made)
    expected = stats.ttest_1samp([6, 5, 4], 0).confidence_interval(0.95)
    assert told.estimate.interval == pytest.approx((expected.low, expected.high))


def rising(*steps: int, top: float = 0.9, epochs: int = 40) -> list[list[float]]:
    """One curve a seed, that steps to `top` at an epoch."""
    return [[0.1] * (step - 1) + [top] * (epochs - step + 1) for step in steps]


def test_epochs_saved() -> None:
    made = networks(group("kd", KD), group("plain", PLAIN), kd_0=rising(3, 4, 5, 7), plain_0=rising(9, 12, 11, 13))
    told = judge_claim(claim("kd", "plain", "epochs", 5.0), made)
    ends = stats.ttest_rel([9, 12, 11, 13], [3, 4, 5, 7]).confidence_interval(0.95)
    assert told.estimate.difference == pytest.approx(6.5)
    assert told.estimate.interval == pytest.approx((ends.low, ends.high))
    assert told.values == ((3, 4, 5, 7), (9, 12, 11, 13))
    assert told.outcome == "unclear"
    assert judge_claim(claim("kd", "plain", "epochs", 2.0), made).outcome == "reproduced"
    assert judge_claim(claim("plain", "kd", "epochs"), made).outcome == "not reproduced"
    assert told.cells()[1:3] == ("plain - kd, epochs to 90.00 % on validation, paired, n = 4", "+6.50 epochs")


def test_runs_that_never_reach_it_count_against_the_claim() -> None:
    ahead = [*rising(3, 4), *rising(5, top=0.5, epochs=30)]  # 30 epochs: 31
    behind = [*rising(9, 10), *rising(8, top=0.6)]  # ends at 0.8 in the mean, the last never: 40
    made = networks(group("kd", KD[:3]), group("plain", PLAIN), kd_0=ahead, plain_0=[*behind, *rising(7, top=0.8)])
    told = judge_claim(claim("kd", "plain", "epochs"), made)
    assert told.epochs is not None
    assert told.epochs.level == pytest.approx((0.9 + 0.9 + 0.6 + 0.8) / 4)
    assert (told.values, told.epochs.never) == (((3, 4, 31), (9, 10, 40, 7)), (1, 1))
    assert told.reason == "1 of 3 runs of kd never get there"
    assert told.estimate.how == "welch"
    assert told.estimate.difference == pytest.approx(66 / 4 - 38 / 3)
    assert told.cells()[1].endswith("Welch, n = 4 and 3")
    made = networks(group("kd", KD[:3]), group("plain", PLAIN[:3]), kd_0=rising(5, 5, 5, top=0.2), plain_0=behind)
    none = judge_claim(claim("kd", "plain", "epochs"), made)
    assert (none.values[0], none.epochs and none.epochs.never) == ((41, 41, 41), (3, 1))


def test_a_run_that_never_gets_there_forbids_a_claim_but_no_refutation() -> None:
    five = tuple(range(5))
    made = networks(
        group("kd", (0.9,) * 5), group("plain", (0.9,) * 5),
        kd_0=[*rising(1, 1, 1, 1), *rising(5, top=0.5)], plain_0=rising(*(16 + seed % 2 for seed in five)),
    )  # fmt: skip
    told = judge_claim(claim("kd", "plain", "epochs", 0.0), made)
    assert told.estimate.interval is not None
    made_up = replace(told, estimate=replace(told.estimate, interval=(2.0, 20.0)))
    assert (made_up.outcome, made_up.cells()[-1]) == ("unclear", "unclear (1 of 5 runs of kd never get there)")
    assert replace(told, estimate=replace(told.estimate, interval=(-20.0, -2.0))).outcome == "not reproduced"
    assert told.epochs is not None
    assert replace(made_up, epochs=replace(told.epochs, never=(0, 3))).outcome == "reproduced"


def test_equal_numbers_of_epochs_are_no_proof() -> None:
    for saved, expected in ((1, "unclear"), (2, "reproduced"), (0, "unclear")):
        made = networks(
            group("kd", KD[:3]), group("plain", PLAIN[:3]),
            kd_0=rising(5, 5, 5), plain_0=rising(*[5 + saved] * 3),
        )  # fmt: skip
        told = judge_claim(claim("kd", "plain", "epochs"), made)
        assert told.estimate.interval == (saved - 1, saved + 1)
        assert told.outcome == expected


def test_missing_curves_are_refused() -> None:
    made = networks(group("a", KD), group("b", KD), a_0=[[]] * 4, big=[[]])
    for name, kind in {"a": "student 'a-0'", "b": "student 'b-0'", "big": "teacher 'big'"}.items():
        with pytest.raises(InputError, match=f"{kind}: expected its validation accuracy by epoch, found none; "):
            made.accuracy(name, "validation")
    with pytest.raises(InputError, match="'b-0'"):
        made.compare_epochs("a", "b")


def test_numbers_beside_the_source() -> None:
    made = networks(group("kd", KD), group("two", FEW), kd_0=rising(3, 4, 5, 7))
    error = compare_with_source(Published("test", "error", {"kd": 7.0, "two": 6.0, "big": 9.5}), made)
    low, high = stats.t.interval(0.95, 3, loc=92.75, scale=100 * np.std(KD, ddof=1) / 2)
    kd = error["kd"]
    assert (kd.ours, kd.std, kd.difference) == pytest.approx((7.25, 100 * np.std(KD, ddof=1), 0.25))
    assert (kd.low, kd.high) == pytest.approx((100 - high, 100 - low))
    assert (error["two"].low, error["two"].n) == (None, 2)
    assert error["big"].ours == pytest.approx(10)
    assert (error["big"].std, error["big"].n) == (None, 1)
    accuracy = compare_with_source(Published("validation", "accuracy", {"kd": 91.0}), made)["kd"]
    assert (accuracy.ours, accuracy.std, accuracy.difference) == pytest.approx((90, 0, -1))


def student(values: tuple[float, ...], **losses: float) -> dict[str, Any]:
    """A student's metrics file."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    return {
        "test_accuracy": {"mean": mean, "std": std, "n": len(values)}, "test_accuracy_per_seed": list(values),
        "losses": {name: {"weight": weight, "options": {}} for name, weight in losses.items()}, "taught_by": [],
        "rule": "the last epoch", "parameters": 1, "bytes": 4, "bits": 32, "dataset": "f" * 64, "pretrain": [],
        "phase_epochs": [40], "init": None, "consumed": {}, "prepared": {}, "restores": [0], "test_accuracy_per_peer": None,
    }  # fmt: skip


STUDENTS = {"plain": student(PLAIN, ce=1.0), "kd": student(KD, soft_targets=1.0)}
CURVES = {"plain": rising(9, 12, 11, 13), "kd": rising(3, 4, 5, 7), "big": [[0.95]]}
CLAIMS = [
    Claim("better", "<b>KD</b> is | *better*\nby a lot", "kd", "plain", "test", 0.5),
    Claim("sooner", "KD is sooner", "kd", "plain", "epochs", 5.0),
    Claim("same", "KD is its teacher's equal", "kd", "big", "validation"),
]
PUBLISHED = Published("test", "error", {"kd": 7.1, "big": 10.0})


def reported(**more: Any) -> Report:
    return build_report(TEACHERS, STUDENTS, group_students(STUDENTS, {}, "run"), curves=CURVES, **more)


def test_the_report_tells_both() -> None:
    told = reported(claims=CLAIMS, published=PUBLISHED).markdown()
    assert re.findall("^## (.*)", told, re.MULTILINE) == ["Statistics", "Beside the source", "Claims"]
    for row in (
        "| network | test error (%) | std | 95 % interval | n | the source's | difference (points) |",
        "| kd | 7.25 | 1.71 | 4.53 to 9.97 | 4 | 7.1 | +0.15 |",
        "| big | 10.00 |  |  | 1 | 10 | +0.00 |",
        r"| \<b\>KD\</b\> is \| \*better\* by a lot | kd - plain, test accuracy, paired, n = 4 | +2.75 points | +1.23 to +4.27 | \> 0.5 points | reproduced |",
        r"| KD is sooner | plain - kd, epochs to 90.00 % on validation, paired, n = 4 | +6.50 epochs | +4.91 to +8.09 | \> 5 epochs | unclear |",
        r"| KD is its teacher's equal | kd - big, end-of-training validation accuracy, one-sample, n = 4 and 1 | -5.00 points | -5.00 to -5.00 | \> 0 points | not reproduced |",
        "90.00 % on validation, where plain ends: never reached by 0 of 4 runs of kd and 0 of 4 runs of plain.",
    ):
        assert f"\n{row}\n" in told
    assert "they are not corrected for the number of claims (3), and tell" in told
    page = reported(claims=CLAIMS, published=PUBLISHED).html()
    assert re.findall("<h2>(.*)</h2>", page) == ["Statistics", "Beside the source", "Claims"]
    assert "<td>&lt;b&gt;KD&lt;/b&gt; is | *better* by a lot</td><td>kd - plain, test accuracy," in page
    assert "<b>" not in page
    assert "<td>&gt; 0.5 points</td><td>reproduced</td>" in page


def test_the_report_says_nothing_of_what_is_not_stated() -> None:
    alone = reported()
    assert re.findall("^## (.*)", alone.markdown(), re.MULTILINE) == ["Statistics"]
    assert not {"claims", "published"} & set(alone.numbers)
    whole = reported(claims=CLAIMS, published=PUBLISHED)
    assert whole.markdown().startswith(alone.markdown().rstrip())
    assert {**alone.numbers, **{key: whole.numbers[key] for key in ("claims", "published")}} == whole.numbers


def test_the_numbers_are_json() -> None:
    made = json.loads(encode_json(reported(claims=CLAIMS, published=PUBLISHED).numbers))
    assert list(made["claims"]) == ["better", "same", "sooner"]
    sooner = made["claims"]["sooner"]
    assert (sooner["level"], sooner["never"]) == (pytest.approx(0.9), {"ahead": 0, "behind": 0})
    assert sooner["values"] == {"ahead": [3, 4, 5, 7], "behind": [9, 12, 11, 13]}
    better = made["claims"]["better"]
    assert (better["difference"], better["low"]) == pytest.approx((2.75, 2.75 - 1.5234802))
    assert (better["of"], better["by"], better["unit"], better["how"]) == ("test", 0.5, "points", "paired")
    assert (better["verdict"], better["reason"]) == ("reproduced", None)
    assert made["published"]["networks"]["kd"]["difference"] == pytest.approx(0.15)
    assert (made["published"]["of"], made["published"]["kind"]) == ("test", "error")


STATED = {"text": "so", "ahead": "kd", "behind": "baseline"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"claims": {"a": {**STATED, "ahead": "kdd"}}}, r"report\.claims\.a\.ahead: unknown .* 'kdd'.*did you mean 'kd'"),
        ({"claims": {"a": {**STATED, "behind": "base"}}}, r"report\.claims\.a\.behind: unknown .* 'base'"),
        ({"claims": {"a": {**STATED, "behind": "kd"}}}, r"report\.claims\.a: expected two networks, found 'kd' twice"),
        ({"claims": {"a": {**STATED, "ahead": "big", "metric": "epochs"}}}, r"report\.claims\.a: expected students, .* found a teacher"),
        ({"claims": {"a": {**STATED, "metric": "last"}}}, r"report\.claims\.a\.metric: expected 'test', 'validation' or 'epochs'"),
        ({"claims": {"a": {**STATED, "by": -1}}}, r"report\.claims\.a\.by"),
        ({"claims": {"a": {**STATED, "text": ""}}}, r"report\.claims\.a\.text"),
        ({"published": {"error": {"kd": 1.0}, "accuracy": {"kd": 99.0}}}, r"report\.published: .*exactly one of error and accuracy"),
        ({"published": {}}, r"report\.published: .*exactly one of error and accuracy"),
        ({"published": {"error": {"kdd": 1.0}}}, r"report\.published: unknown .* 'kdd'"),
        ({"published": {"error": {"kd": 101.0}}}, r"report\.published\.error\.kd"),
        ({"groups": {"big": ["kd"]}}, "also the name of a teacher"),
        ({"terms": ["kd", "kd"]}, r"report\.terms: expected each student once"),
        ({"groups": {"soft": ["kd"]}, "published": {"error": {"kd": 1.0}}}, "'kd' is compared as a part of group 'soft'"),
    ],
)  # fmt: skip
def test_what_the_section_cannot_mean_is_refused(study: dict[str, Any], section: Any, message: str) -> None:
    study["report"] = section
    with pytest.raises(InputError, match=message):
        parse_study(study)


@pytest.mark.parametrize("metric", ["validation", "epochs"])
def test_validation_accuracies_that_nobody_measures_are_refused_before_training(
    study: dict[str, Any], metric: str
) -> None:
    study["report"] = {"claims": {"a": {"text": "so", "ahead": "kd", "behind": "baseline", "metric": metric}}}
    parse_study(study)
    del study["datasets"]["digits"]["validation"]
    with pytest.raises(InputError, match="asks for the validation accuracy of 'baseline'; expected a network"):
        parse_study(study)


def test_the_examples_of_the_report_page_are_valid(study: dict[str, Any]) -> None:
    shown = re.findall(r"```yaml\n(report:.*?)```", (ROOT / "docs/report.md").read_text(), re.DOTALL)
    folds = {f"{method}-{fold}": study["students"]["kd"] for method in ("small", "kd") for fold in (0, 1, 2, 4, 20)}
    sizes = ("plain-small", "kd-small", "tsne-small", "plain-large", "kd-large")
    study["students"] |= folds | dict.fromkeys(("logits", *sizes), study["students"]["kd"])
    grouped, compared, claimed, drawn = (
        parse_study({**study, **YAML(typ="safe").load(block)}).report for block in shown
    )
    assert grouped.groups.keys() == {"small", "kd-folds"}
    assert compared.baselines == ("plain-small", "plain-large")
    assert [each.metric for each in claimed.claims.values()] == ["test", "epochs"]
    assert claimed.published is not None
    assert drawn.terms == ("kd-4",)
    assert drawn.sweeps.keys() == {"temperature"}


def test_a_teachers_curve_is_a_dependency_where_it_is_read(study: dict[str, Any]) -> None:
    for of, needed in {"test": False, "validation": True}.items():
        study["report"] = {"published": {"metric": of, "error": {"big": 1.0}}}
        assert ("data/teachers/big" in graph.compile_stages(parse_study(study))[-1].deps) == needed


def test_the_command_writes_both(copy_of: Any, run: Run, study: dict[str, Any]) -> None:
    study["report"] = {
        "claims": {
            "end": {**STATED, "metric": "validation", "behind": "big"},
            "sooner": {**STATED, "metric": "epochs", "by": 1},
        },
        "published": {"metric": "validation", "error": {"kd": 50.0, "big": 50.0}},
    }
    write_study(copy_of, study)
    assert run(copy_of, "report") == 0
    made = read_json(copy_of / "data/report/statistics.json", "")
    assert made["claims"]["end"]["n"] == {"ahead": 2, "behind": 1}
    assert all(1 <= epochs <= 3 for epochs in made["claims"]["sooner"]["values"]["ahead"])
    assert made["published"]["networks"]["big"]["n"] == 1
    assert "## Claims" in (copy_of / "data/report/report.md").read_text()
