"""The discriminator: tells two networks' logits apart, is tested on samples that it has not seen, and is refused if it cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from pipeline.base.seeds import derive_seed
from pipeline.losses import discriminator as room
from pipeline.losses.adversarial import adversarial
from pipeline.losses.discriminator import Discriminator, train_discriminator
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.outputs import Outputs
from pipeline.study.params_file import parse_study
from tests.conftest import STUDY, copied
from tests.data_files import refused
from tests.losses.test_loss_cases import normal

VIEWS, SAMPLES, CLASSES = 2, 150, 4


def logits(seed: int, shift: float = 0.0) -> Tensor:
    """(views, samples, classes); each sample's views are alike."""
    samples = normal(1, SAMPLES, CLASSES, seed=seed)
    return (samples + 0.1 * normal(VIEWS, SAMPLES, CLASSES, seed=seed + 100) + shift).float()


def trained(
    teacher: Tensor | None = None, student: Tensor | None = None, seed: int = 0, **options: Any
) -> tuple[Discriminator, dict[str, Any]]:
    teacher = logits(1, 2.0) if teacher is None else teacher
    student = logits(2, -2.0) if student is None else student
    return train_discriminator(teacher, student, DiscriminatorOptions(**options), seed=seed, what="student 's'")


def state(network: nn.Module) -> dict[str, Tensor]:
    return network.state_dict()


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = state(one), state(other)
    return ours.keys() == theirs.keys() and all(
        ours[name].shape == theirs[name].shape and torch.equal(ours[name], theirs[name]) for name in ours
    )


def test_it_tells_apart_what_can_be_told_apart() -> None:
    network, report = trained(lr=0.01)
    assert report == {"discriminator_accuracy": pytest.approx(1.0, abs=0.01), "held_out": 30}
    new, old = logits(7, -2.0).flatten(0, 1), logits(8, 2.0).flatten(0, 1)
    assert network(new).shape == (VIEWS * SAMPLES,)
    assert (network(new) > 0).double().mean() > 0.98  # the student's is label 1
    assert (network(old) < 0).double().mean() > 0.98


def test_networks_that_say_the_same_cannot_be_told_apart() -> None:
    alike = logits(1)
    expected = "expected to tell the student from its teacher on 60% of the held-out logits, found 50.0%"
    with refused("student 's': discriminator", expected, "`discriminator: {least_accuracy: 0}`"):
        trained(alike, alike.clone())
    assert trained(alike, alike.clone(), least_accuracy=0.0)[1]["discriminator_accuracy"] == 0.5
    with refused("on 51% of the held-out logits"):
        trained(alike, alike.clone(), least_accuracy=0.51)


def test_the_accuracy_is_the_share_of_held_out_rows_on_the_right_side(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(Discriminator):
        """Takes for the student's what has a positive first logit."""

        def forward(self, values: Tensor) -> Tensor:
            return values[:, 0] + 0 * super().forward(values)

    monkeypatch.setattr(room, "Discriminator", Fixed)
    teacher, student = (torch.full((1, 10, 2), -1.0) for _ in range(2))
    student[0, :6] = 1.0  # 6 of 10 students' rows are on the right side, and all of the teacher's
    found = trained(teacher, student, held_out=0.5, least_accuracy=0.0)[1]
    held = torch.randperm(10, generator=torch.Generator().manual_seed(derive_seed(0, "held-out")))[:5]
    assert found == {"discriminator_accuracy": (5 + int((held < 6).sum())) / 10, "held_out": 5}


def test_held_out_samples_are_not_trained_on_in_any_view(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = room._label_rows

    def labelled(teacher: Tensor, student: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(samples)
        return real(teacher, student, samples)

    monkeypatch.setattr(room, "_label_rows", labelled)
    teacher, student = logits(1, 2.0), logits(2, -2.0)
    network, _ = trained(teacher, student, held_out=0.3)
    learnt, held = seen
    assert (len(learnt), len(held)) == (105, 45)
    assert sorted(torch.cat([learnt, held]).tolist()) == list(range(SAMPLES))
    monkeypatch.undo()
    for values in (teacher, student):
        values[:, held] = 1e6  # whatever they are, in every view
    assert same(network, trained(teacher, student, held_out=0.3, least_accuracy=0.0)[0])
    teacher[1, learnt[0]] += 1
    assert not same(network, trained(teacher, student, held_out=0.3, least_accuracy=0.0)[0])


def test_the_inputs_are_scaled_as_the_rows_it_was_trained_on() -> None:
    network, _ = trained(logits(1, 2.0), logits(2, -2.0))
    much, _ = trained(100 * logits(1, 2.0) + 7, 100 * logits(2, -2.0) + 7)
    probe = normal(9, CLASSES, seed=3).float()
    assert torch.allclose(network(probe), much(100 * probe + 7), atol=1e-2)
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    made = Discriminator(rows, ())
    assert made.mean.tolist() == [2.0, 5.0]
    assert made.std.tolist() == [pytest.approx(math.sqrt(2)), pytest.approx(1e-6)]  # a constant logit says nothing


def test_the_seed_decides_everything() -> None:
    before = torch.get_rng_state()
    one, other = trained(epochs=2), trained(epochs=2)
    assert same(one[0], other[0])
    assert one[1] == other[1]
    assert not same(one[0], trained(epochs=2, seed=1)[0])
    torch.manual_seed(99)
    assert same(one[0], trained(epochs=2)[0])  # nothing else does
    torch.set_rng_state(before)
    trained(epochs=2)
    assert torch.equal(torch.get_rng_state(), before)


def linear_widths(network: nn.Module) -> list[int]:
    return [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_widths_are_its_hidden_layers() -> None:
    assert [linear_widths(trained(widths=widths, epochs=1, least_accuracy=0.0)[0]) for widths in ((), (8,), (5, 3))] == [
        [1], [8, 1], [5, 3, 1],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 20), ({"epochs": 3}, 3), ({"batch_size": 100}, 20 * 5), ({"held_out": 0.4, "batch_size": 100}, 20 * 4)],
)
def test_its_training_has_the_steps_that_the_options_say(
    options: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """480 rows are trained on by default: 2 networks, 2 views, 120 of 150 samples; one batch of 256 is not enough."""
    taken: list[float] = []
    real = Adam.step

    def step(self: Any, *arguments: Any) -> Any:
        taken.append(self.param_groups[0]["lr"])
        return real(self, *arguments)

    monkeypatch.setattr(Adam, "step", step)
    trained(**options, lr=0.005, least_accuracy=0.0)
    batches = 2 if "batch_size" not in options else 1
    assert taken == [0.005] * (steps * batches)


def test_an_untrained_rate_learns_nothing() -> None:
    slow, fast = trained(lr=1e-12, epochs=1, least_accuracy=0.0), trained(lr=0.05, epochs=1, least_accuracy=0.0)
    assert fast[1]["discriminator_accuracy"] > 0.95
    assert not same(slow[0], fast[0])


@pytest.mark.parametrize(("held_out", "samples"), [(0.001, 150), (0.999, 150), (0.2, 2)])
def test_too_few_samples_to_hold_some_out_are_refused(held_out: float, samples: int) -> None:
    with refused("student 's': held_out", "expected a share that leaves samples on both sides", f"of {samples}"):
        trained(logits(1)[:, :samples], logits(2)[:, :samples], held_out=held_out)


# ------------------------------------------------------------------ its loss


@pytest.fixture(scope="module")
def judge() -> Discriminator:
    return trained(lr=0.01)[0].requires_grad_(False).eval()


def outputs(values: Tensor, judge: nn.Module) -> Outputs:
    return Outputs(values, torch.zeros(len(values), dtype=torch.int64), module=judge)


def test_its_two_forms_are_cross_entropies_with_its_answer(judge: Discriminator) -> None:
    values = logits(5).flatten(0, 1)[:20]
    d = judge(values).double().sigmoid().numpy()  # D: the probability that it is the student's
    both = outputs(values, judge)
    assert adversarial(both, None, form="fool").item() == pytest.approx(-np.log(1 - d).mean(), rel=1e-5)
    assert adversarial(both, None, form="maximise").item() == pytest.approx(np.log(d).mean(), rel=1e-5)
    assert adversarial(both, None, form="fool").item() > 0 > adversarial(both, None, form="maximise").item()


def forms() -> list[Any]:
    return ["fool", "maximise"]


@pytest.mark.parametrize("form", forms())
def test_a_step_against_either_makes_the_student_less_recognisable(judge: Discriminator, form: Any) -> None:
    values = logits(2, -1.0).flatten(0, 1)[:20].requires_grad_()
    (gradient,) = torch.autograd.grad(adversarial(outputs(values, judge), None, form=form), values)
    with torch.no_grad():
        before, after = judge(values).sigmoid(), judge(values - 1e-2 * gradient / gradient.abs().max()).sigmoid()
    assert after.mean() < before.mean()


@pytest.mark.parametrize("shift", [50.0, -50.0, 0.0])
def test_one_form_is_bounded_and_the_other_is_not(judge: Discriminator, shift: float) -> None:
    values = logits(2, shift).flatten(0, 1)
    fool, maximise = (adversarial(outputs(values, judge), None, form=form).item() for form in forms())
    assert fool >= 0
    if shift > 0:  # far on the teacher's side
        assert fool < 1e-3
        assert maximise < -10
    if shift < 0:
        assert fool > 10
        assert maximise > -1e-3


# ------------------------------------------------------------------ params.yaml


def study(discriminator: Any) -> dict[str, Any]:
    made: dict[str, Any] = copied(STUDY)
    made["dumps"]["of-initial"] = {"field": "logits", "of": "baseline"}
    losses = {"ce": {}, "adversarial": {"discriminator": discriminator}}
    pupil = {**made["students"]["baseline"], "init": "baseline", "losses": losses}
    made["students"] = {"baseline": made["students"]["baseline"], "pupil": pupil}
    return made


def test_params_say_how_it_is_made() -> None:
    term = parse_study(study({"widths": [8], "epochs": 2})).students["pupil"].losses["adversarial"]
    assert term.options["discriminator"] == DiscriminatorOptions(widths=(8,), epochs=2)
    assert term.reads == {"teacher": "big-logits", "initial": "of-initial"}
    every = {"widths": [4, 2], "epochs": 3, "batch_size": 5, "lr": 0.5, "held_out": 0.5, "least_accuracy": 0.9}
    assert every.keys() == DiscriminatorOptions.model_fields.keys()
    made = parse_study(study(every)).students["pupil"].losses["adversarial"].options["discriminator"]
    assert made.model_dump() == {**every, "widths": (4, 2)}
    assert all(getattr(made, name) != getattr(DiscriminatorOptions(), name) for name in every)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"width": [8]}, [".discriminator: unknown key 'width'", "did you mean 'widths'?"]),
        ({"widths": [0]}, [".discriminator.widths.0: expected greater than 0, found 0"]),
        ({"widths": 8}, [".discriminator.widths: expected a list, such as [64], found 8"]),
        ({"epochs": 0}, [".discriminator.epochs: expected greater than 0, found 0"]),
        ({"batch_size": 2.5}, [".discriminator.batch_size: expected a valid integer, found 2.5"]),
        ({"lr": 0.0}, [".discriminator.lr: expected greater than 0, found 0.0"]),
        ({"held_out": 0.0}, [".discriminator.held_out: expected greater than 0, found 0.0"]),
        ({"held_out": 1.0}, [".discriminator.held_out: expected less than 1, found 1.0"]),
        ({"least_accuracy": 1.0}, [".discriminator.least_accuracy: expected less than 1, found 1.0"]),
        ({"least_accuracy": -0.1}, [".discriminator.least_accuracy: expected greater than or equal to 0, found -0.1"]),
        ("small", [".discriminator: expected a mapping"]),
    ],
)
def test_mistakes_are_named(options: Any, parts: list[str]) -> None:
    with refused("params.yaml: students.pupil.losses.adversarial", *parts):
        parse_study(study(options))
