"""Every option of every loss: what it does to the value, and that `params.yaml` brings it there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.losses import TERMS
from pipeline.losses.discriminator import Discriminator
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.hooks import prepared_factory
from pipeline.losses.outputs import Outputs
from pipeline.models.heads import CHANNELS
from pipeline.runs.recipes import build_recipe as recipe
from pipeline.study.params_file import parse_study
from tests import reference
from tests.losses.test_loss_cases import labels_of, normal, signature

ROWS, CLASSES = 6, 5

# ------------------------------------------------------------------ one batch for all losses

LOGITS, TEACHER = (3 * normal(ROWS, CLASSES, seed=seed) for seed in (1, 2))
FEATURES, HIDDEN, HINT = (normal(ROWS, 4, seed=seed) for seed in (3, 4, 5))
SCORES = normal(ROWS, 4, 3, seed=6)
PEERS = 3 * normal(3, ROWS, CLASSES, seed=7)
P = reference.naive_affinities(normal(ROWS, 3, seed=8), 2.0)
BITS = (normal(ROWS, 12, seed=9) > 0).int().tolist()
JUDGE = Discriminator(3 * normal(20, CLASSES, seed=10), (4,)).double().requires_grad_(False)

TARGETS: dict[str, Any] = {
    "ce": None,
    "soft_targets": TEACHER,
    "logits_mse": TEACHER,
    "hint_mse": {"features": HINT + 1, "hidden1": HINT},
    "tsne": P,
    "multichannel_bce": torch.tensor(reference.packed(BITS), dtype=torch.uint8),
    "adversarial": None,
    "mutual_kl": None,
}


def value(loss: str, **options: Any) -> float:
    """A loss of the batch."""
    target = TARGETS.get(loss)
    if loss == "probe_rmse":
        target = TEACHER if options.get("between") == "softmax" else TARGETS["hint_mse"]
    taps = {"features": FEATURES, "hidden1": HIDDEN, CHANNELS: SCORES}
    beside = JUDGE if loss == "adversarial" else None
    outputs = Outputs(LOGITS, labels_of(ROWS, 1), taps, beside, PEERS)
    return float(TERMS.import_function(loss)(outputs, target, **options))


# ------------------------------------------------------------------ by hand


def entropy(temperature: float) -> float:
    p = reference.softmax(TEACHER.numpy(), temperature)
    return float(-(p * np.log(p)).sum(1).mean())


def cross_entropy(temperature: float) -> float:
    p, q = (reference.softmax(each.numpy() / temperature) for each in (TEACHER, LOGITS))
    return float(-(p * np.log(q)).sum(1).mean())


def divergences(temperature: float) -> float:
    """KL from each of the three peers, averaged."""
    student = reference.softmax(LOGITS.numpy() / temperature)
    peers = [reference.softmax(peer.numpy() / temperature) for peer in PEERS]
    return float(np.mean([(p * np.log(p / student)).sum(1).mean() for p in peers]))


def probe(temperature: float = 0.7) -> float:
    q, p = (reference.softmax(each.numpy(), temperature) for each in (LOGITS, TEACHER))
    return float(np.sqrt(((q - p) ** 2).mean(1)).mean())


def rms(student: Any, teacher: Any, axis: int | None = 1) -> float:
    return float(np.sqrt(((student - teacher).numpy() ** 2).mean(axis)).mean())


def square(student: Any, teacher: Any) -> float:
    return float(((student - teacher) ** 2).mean())


def samples(loss: str) -> Callable[[], float]:
    """The sum over the samples is so many means."""
    return lambda: ROWS * value(loss)


@dataclass(frozen=True)
class Effect:
    """An option at a value that is not its default, and what the loss then is.

    Attributes:
        beside: options that must be given with it.
        changes: whether the value of a step changes; a discriminator's options act before.
    """

    loss: str
    option: str
    value: Any
    expected: Callable[[], float]
    beside: tuple[tuple[str, Any], ...] = ()
    changes: bool = True

    @property
    def options(self) -> dict[str, Any]:
        return {self.option: self.value, **dict(self.beside)}

    def __str__(self) -> str:
        return f"{self.loss}-{self.option}"


EFFECTS = [
    *(
        Effect(loss, "reduction", "sum", samples(loss))
        for loss in TERMS.entries if "reduction" in signature(loss)
    ),
    Effect("soft_targets", "temperature", 2.0, lambda: 4 * cross_entropy(2.0)),
    Effect("soft_targets", "form", "kl", lambda: value("soft_targets") - 16 * entropy(4.0)),
    Effect("soft_targets", "scaled", False, lambda: value("soft_targets") / 16),
    Effect("logits_mse", "over_classes", "sum", lambda: CLASSES * value("logits_mse")),
    Effect("probe_rmse", "between", "softmax", probe),
    Effect("probe_rmse", "temperature", 3.0, lambda: probe(3.0), beside=(("between", "softmax"),)),
    Effect("probe_rmse", "tap", "hidden1", lambda: rms(HIDDEN, HINT + 1)),
    Effect("probe_rmse", "hint", "hidden1", lambda: rms(FEATURES, HINT)),
    Effect("probe_rmse", "over_batch", "root", lambda: rms(FEATURES, HINT + 1, None)),
    Effect("hint_mse", "tap", "hidden1", lambda: square(HIDDEN, HINT + 1)),
    Effect("hint_mse", "hint", "hidden1", lambda: square(FEATURES, HINT)),
    Effect("hint_mse", "over_units", "sum", lambda: 4 * value("hint_mse")),
    Effect("tsne", "tap", "hidden1", lambda: reference.tsne(P.numpy(), HIDDEN.numpy(), np.inf, 1e-12)),
    Effect("tsne", "dof", 3.7, lambda: reference.tsne(P.numpy(), FEATURES.numpy(), 3.7, 1e-12)),
    Effect("tsne", "floor", 0.03, lambda: reference.tsne(P.numpy(), FEATURES.numpy(), np.inf, 0.03)),
    Effect("multichannel_bce", "over_channels", "sum", lambda: 12 * value("multichannel_bce")),
    Effect("adversarial", "form", "maximise", lambda: float(JUDGE(LOGITS).sigmoid().log().mean())),
    Effect(
        "adversarial", "discriminator", DiscriminatorOptions(widths=(8,), epochs=2), lambda: value("adversarial"),
        changes=False,
    ),
    Effect("mutual_kl", "temperature", 2.0, lambda: divergences(2.0)),
    Effect("mutual_kl", "over_peers", "sum", lambda: 3 * value("mutual_kl")),
]  # fmt: skip

each_effect = pytest.mark.parametrize("effect", EFFECTS, ids=str)


def test_every_option_has_its_effect() -> None:
    stated = [(effect.loss, effect.option) for effect in EFFECTS]
    assert len(set(stated)) == len(stated)
    assert set(stated) == {(loss, option) for loss in TERMS.entries for option in signature(loss)}
    assert all(effect.value != signature(effect.loss)[effect.option] for effect in EFFECTS)


@each_effect
def test_an_option_does_what_it_should(effect: Effect) -> None:
    found = value(effect.loss, **effect.options)
    assert found == pytest.approx(effect.expected(), rel=1e-10)
    assert (abs(found - value(effect.loss, **dict(effect.beside))) > 1e-6) is effect.changes


def test_a_root_over_the_batch_is_never_below_the_mean_of_roots() -> None:
    assert value("probe_rmse", over_batch="root") > value("probe_rmse")
    alike = Outputs(LOGITS, labels_of(ROWS, 1), {"features": FEATURES})
    moved = FEATURES + torch.tensor([1.0, -2.0, 0.5, 3.0])  # each sample as far off
    root, mean = (
        TERMS.import_function("probe_rmse")(alike, moved, over_batch=over).item() for over in ("root", "mean")
    )
    assert root == pytest.approx(mean, rel=1e-12)


# ------------------------------------------------------------------ from params.yaml


def wanting(study: dict[str, Any], effect: Effect) -> dict[str, Any]:
    """The study with a student that learns by this loss with this option."""
    option = {"widths": [8], "epochs": 2} if effect.option == "discriminator" else effect.value
    taps = ["features", "hidden1"] if effect.option == "hint" else ["features"]
    study["teachers"]["big"]["head"] = {"multichannel": {}}
    study["dumps"] |= {
        "hints": {"field": "hints", "of": "big", "taps": taps},
        "bits": {"field": "multichannel", "of": "big"},
        "p": {"field": "affinities", "of": "big", "batch_size": 50},
    }
    pupil = {**study["students"]["baseline"], "losses": {effect.loss: {effect.option: option, **dict(effect.beside)}}}
    if effect.loss == "adversarial":
        pupil["init"] = "baseline"
        study["dumps"]["of-initial"] = {"field": "logits", "of": "baseline"}
    if effect.loss == "mutual_kl":
        pupil["peers"] = 2
    if effect.loss == "multichannel_bce":
        pupil["head"] = {"channel_outputs": {"channels": 3}}
    study["students"] = {"baseline": study["students"]["baseline"], "pupil": pupil}
    return study


@each_effect
def test_an_option_in_params_reaches_the_loss(study: dict[str, Any], effect: Effect) -> None:
    (term,) = recipe(parse_study(wanting(study, effect)).students["pupil"], epochs=3).terms
    assert (term.name, term.loss) == (effect.loss, effect.loss)
    assert dict(term.options) == signature(effect.loss) | effect.options
    assert value(term.loss, **term.options) == value(effect.loss, **effect.options)


def test_what_params_leave_out_is_the_default(study: dict[str, Any]) -> None:
    terms = recipe(parse_study(study).students["kd"], epochs=3).terms
    assert [(term.name, dict(term.options), dict(term.reads)) for term in terms] == [
        ("ce", {"reduction": "mean"}, {}),
        ("soft_targets", signature("soft_targets"), {"target": "big-logits"}),
    ]


def test_a_discriminator_in_params_is_the_one_that_is_trained(study: dict[str, Any]) -> None:
    (effect,) = [effect for effect in EFFECTS if effect.option == "discriminator"]
    (term,) = recipe(parse_study(wanting(study, effect)).students["pupil"], epochs=3).terms
    assert term.reads == {"teacher": "big-logits", "initial": "of-initial"}
    maker = prepared_factory("adversarial")
    assert maker is not None
    rows = {"teacher": normal(1, 40, CLASSES, seed=1).float() + 3, "initial": normal(1, 40, CLASSES, seed=2).float()}
    asked = term.options["discriminator"].model_copy(update={"least_accuracy": 0.0})
    for options, widths in ((DiscriminatorOptions(least_accuracy=0.0), [64, 1]), (asked, [8, 1])):
        network, _ = maker(rows, {**term.options, "discriminator": options}, 0, "s")
        assert [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)] == widths
