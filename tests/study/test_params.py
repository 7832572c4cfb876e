from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.study.params_file import load_study, parse_study
from tests.conftest import ROOT

Study = dict[str, Any]


def set_at(study: Study, key: str, value: object) -> Study:
    """Set `a.b.c`; None deletes."""
    *folders, last = key.split(".")
    place = study
    for folder in folders:
        place = place[folder]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return study


def test_the_default_study_is_valid() -> None:
    study = load_study(ROOT / "params.yaml")
    assert set(study.students) == {"baseline", "kd", "logits", "hints", "tsne", "channels"}
    assert study.students["kd"].losses["soft_targets"].options["temperature"] == 4.0


def test_what_may_be_left_out_is_filled_in(study: Study) -> None:
    made = parse_study(study)
    assert made.teachers["big"].dataset == made.students["kd"].dataset == made.dumps["big-logits"].dataset == "digits"
    assert made.students["kd"].losses["soft_targets"].reads == {"target": "big-logits"}
    assert made.dumps["big-logits"].format == "zarr"
    assert made.dumps["big-logits"].options == {"dtype": "float32", "codec": "none", "top_k": None, "temperature": None}


def test_a_dump_may_override_the_cache_section(study: Study) -> None:
    study["dumps"]["big-logits"] |= {"format": "hdf5", "dtype": "float16"}
    made = parse_study(study)
    assert (made.dumps["big-logits"].format, made.dumps["big-logits"].options["dtype"]) == ("hdf5", "float16")


@pytest.mark.parametrize(
    ("of_all", "own", "expected"), [(None, None, None), (64, None, 64), (64, 8, 8), (None, 1 << 20, 1 << 20)]
)
def test_the_size_of_chunks_is_that_of_the_cache_section_or_the_dump(
    study: Study, of_all: int | None, own: int | None, expected: int | None
) -> None:
    study["cache"]["chunk_kib"] = of_all
    study["dumps"]["big-logits"]["chunk_kib"] = own
    made = parse_study(study)
    assert made.dumps["big-logits"].chunk_kib == expected
    assert "chunk_kib" not in made.dumps["big-logits"].options  # it decides no value


def test_one_unnamed_dataset_is_called_default(study: Study) -> None:
    study["dataset"] = study.pop("datasets")["digits"]
    assert list(parse_study(study).datasets) == ["default"]


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path, study: Study) -> None:
    text = "datasets: {d: {source: digits}}\nteachers: {t: {model: {name: mlp, widths: [4]}, optimizer: {name: adam, lr: 1e-4}, epochs: 1}}\n"
    (tmp_path / "params.yaml").write_text(text)
    assert load_study(tmp_path / "params.yaml").teachers["t"].optimizer.options["lr"] == 1e-4


def test_sections_are_frozen(study: Study) -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_study(study).seed = 3  # type: ignore[misc]


MISTAKES = [
    ("sed", 1, "sed", "unknown key 'sed'", "did you mean 'seed'?"),
    ("students.kd.epoch", 1, "students.kd", "unknown key 'epoch'", "did you mean 'epochs'?"),
    ("students.kd.epochs", "many", "students.kd.epochs", "integer", "'many'"),
    ("students.kd.epochs", 0, "students.kd.epochs", "greater than 0", "found 0"),
    ("students.kd.steps", 5, "students.kd", "exactly one of epochs and steps", ""),
    ("students.kd.model.name", "mpl", "students.kd.model.name", "unknown model 'mpl'", "did you mean 'mlp'?"),
    ("students.kd.model.widths", ["a"], "students.kd.model.widths.0", "integer", "'a'"),
    ("students.kd.model.depth", 3, "students.kd.model", "unknown key 'depth'", "widths"),
    ("students.kd.model", None, "students.kd.model", "missing", ""),
    ("students.kd.model.name", "torchvision:resnet19", "students.kd.model.name", "unknown torchvision model", "resnet18"),
    ("students.kd.optimizer", {"name": "adamm"}, "students.kd.optimizer.name", "unknown optimizer 'adamm'", "'adam'"),
    ("students.kd.optimizer", {"name": "adam", "lr": -1}, "students.kd.optimizer.lr", "greater than 0", "-1"),
    ("students.kd.lr_schedule", "cosin", "students.kd.lr_schedule.name", "unknown learning-rate schedule", "'cosine'"),
    ("students.kd.losses.soft_target", {}, "students.kd.losses.soft_target", "unknown loss 'soft_target'", "soft_targets"),
    ("students.kd.losses.soft_targets.temprature", 2, "students.kd.losses.soft_targets", "'temprature'", "'temperature'"),
    ("students.kd.losses.soft_targets.form", "lk", "students.kd.losses.soft_targets.form", "'ce' or 'kl'", "'lk'"),
    ("students.kd.losses.ce.weight", -1, "students.kd.losses.ce.weight", "a number from 0", "-1"),
    ("students.kd.losses.ce.weight", {"name": "linear", "start": 1}, "students.kd.losses.ce.weight.end", "missing", ""),
    ("students.kd.losses.ce.reads", "big-logits", "students.kd.losses.ce.reads", "reads no dump", ""),
    ("students.kd.losses", {}, "students.kd.losses", "mapping of loss terms", ""),
    ("students.kd.losses.soft_targets.reads", "big", "losses.soft_targets.reads", "'big' is a teacher", "one of its dumps"),
    ("students.kd.losses.soft_targets.reads", "nobody", "losses.soft_targets.reads", "unknown dump 'nobody'", "big-logits"),
    ("dumps", None, "students.kd.losses.soft_targets", "needs a dump of field 'logits'", "found none"),
    ("dumps.big-logits.of", "bog", "dumps.big-logits.of", "unknown teacher or student 'bog'", "did you mean 'big'?"),
    ("dumps.big-logits.field", "logit", "dumps.big-logits.field", "unknown field 'logit'", "'logits'"),
    ("dumps.big-logits.dtype", "int8", "dumps.big-logits.dtype", "'float16', 'bfloat16' or 'float32'", "'int8'"),
    ("dumps.big-logits.format", "npz", "dumps.big-logits.format", "'zarr' or 'hdf5'", "'npz'"),
    ("datasets.digits.source", "digit", "datasets.digits.source", "unknown source 'digit'", "did you mean 'digits'?"),
    ("datasets.digits.folds", {"count": 3, "test": 3}, "datasets.digits.folds", "0 to 2", "found 3"),
    ("datasets.digits.sise", 3, "datasets.digits", "unknown key 'sise'", "did you mean 'size'?"),
    ("datasets", {}, "datasets", "at least 1", ""),
    ("datasets", None, "datasets", "missing", ""),
    ("teachers.big.dataset", "mnist", "teachers.big.dataset", "unknown data set 'mnist'", "digits"),
    ("teachers.both", {"members": ["big", "tiny"]}, "teachers.both.members", "unknown single teacher 'tiny'", "big"),
    ("teachers.big.members", ["a", "b"], "teachers.big", "an ensemble has no model", ""),
    ("teachers.big.weights", "w.safetensors", "teachers.big", "is not trained", "remove epochs"),
    ("teachers.big.model", None, "teachers.big", "needs a model, members or external", ""),
    ("teachers.kd", {"model": {"name": "mlp", "widths": [2]}, "epochs": 1}, "students.kd", "also the name of a teacher", ""),
    ("teachers.a b", {"model": {"name": "mlp", "widths": [2]}, "epochs": 1}, "teachers.a b", "match", ""),
    ("teachers", ["big"], "teachers", "expected a mapping", ""),
    ("report", {"baseline": "base"}, "report.baseline", "unknown student 'base'", "baseline"),
    ("views", {"policy": "flipp"}, "views.policy", "flip, none", "'flipp'"),
    ("views", {"policy": "none", "count": 4}, "views", "1, since all views of policy none are the same", "4"),
    ("views", {"policy": "crop_flip", "paddings": 2}, "views", "padding", "paddings"),
    ("views", {"policy": "random_resized_crop", "scale": [0.5, 0.1]}, "views.scale", "the smaller number first", "0.5"),
    ("dumps.big-logits", {"field": "logits", "of": "big", "top_k": 3, "temperature": 2.0}, "losses.soft_targets", "expected 2.0, that of the dump's tail, found 4.0", "big-logits"),
    ("dumps.big-logits", {"field": "logits", "of": "big", "codec": "zstd", "format": "hdf5"}, "dumps.big-logits.codec", "none, gzip for hdf5", "zstd"),
    ("dumps.big-logits.chunk_kib", 0, "dumps.big-logits.chunk_kib", "greater than or equal to 1", "0"),
    ("cache.chunk_kib", (1 << 20) + 1, "cache.chunk_kib", "less than or equal to 1048576", "1048577"),
    ("cache.chunk_kib", 0.5, "cache.chunk_kib", "integer", "0.5"),
    ("dumps.big-logits.top_k", 3, "dumps.big-logits", "temperature: missing", ""),
    ("dumps.big-logits.temperature", 4.0, "dumps.big-logits", "only with top_k", ""),
    ("teachers.big.external", "ab", "teachers.big.external", "", ""),
    ("teachers.big.external", "ab" * 32, "teachers.big", "external: this teacher is never run here", ""),
    ("students.kd.epochs", "2", "students.kd.epochs", "integer", "'2'"),
    ("students.kd.batch_size", True, "students.kd.batch_size", "integer", "True"),
    ("students.kd.losses.ce", 0, "students.kd.losses.ce", "a mapping of this term's options", "found 0"),
    ("students.kd.losses.ce", {"loss": "soft_targets"}, "students.kd.losses.ce.loss", "a term with the name of a loss is that loss", "'soft_targets'"),
    ("datasets.digits.validation", 1.0, "datasets.digits.validation", "a share below 1", "found 1.0"),
    ("datasets.digits.validation", True, "datasets.digits.validation", "a number of images", "found True"),
    ("datasets.digits.train", {"first": 0}, "datasets.digits.train.first", "greater than 0", "found 0"),
    ("datasets.digits.root", "", "datasets.digits.root", "at least 1 character", ""),
    ("students.kd.optimizer", {"name": "sgd", "nesterov": True}, "students.kd.optimizer", "Nesterov", ""),
    ("students.kd.lr_schedule", {"name": "plateau", "factor": 2.0}, "students.kd.lr_schedule.factor", "less than 1", "2.0"),
    ("students.kd.lr_schedule", "step", "students.kd.lr_schedule", "exactly one of every and milestones", ""),
    ("teachers.big.members", ["a", "b"], "teachers.big", "an ensemble has no model", ""),
    ("students.kd.losses.loss", {"loss": "ce"}, "students.kd.losses.loss", "this name is taken", "say `loss: NAME`"),
    ("students.kd.losses.mine", {}, "students.kd.losses.mine.loss", "unknown loss 'mine'", ""),
    ("students.kd.losses.mine", {"loss": "cee"}, "students.kd.losses.mine.loss", "unknown loss 'cee'", "did you mean 'ce'?"),
    ("students.kd.losses.soft_targets.reads", 3, "losses.soft_targets.reads", "the name of a dump, or of one for each role", "3"),
    ("students.kd.losses.soft_targets.reads", {"teacher": "big-logits"}, "losses.soft_targets.reads", "unknown role 'teacher'", "target"),
    ("students.kd.losses.adversarial", {}, "losses.adversarial", "a student that starts from another one", "`init: STUDENT`"),
    ("students.kd.losses.ce.weight", {"name": "piecewise", "unit": "share", "points": [[0, 1], [2, 0]]}, "losses.ce.weight", "shares of the phase", "0 to 1"),
    ("students.kd.trainable", {"only": []}, "students.kd.trainable.only", "at least 1 in the list", "found []"),
    ("students.kd.losses.adversarial", {"reads": "big-logits"}, "losses.adversarial.reads", "a dump for each of teacher, initial", "'big-logits' alone"),
    ("students.kd.losses.adversarial", {"discriminator": {"width": [3]}}, "losses.adversarial.discriminator", "unknown key 'width'", "widths"),
    ("students.kd.losses", {"../x": {"loss": "ce"}}, "students.kd.losses.../x", "a name of letters, digits", ""),
    ("students.kd.losses", {"": {"loss": "ce"}, "ce": {}}, "students.kd.losses", "a name of letters, digits", ""),
    ("students.kd.losses", {1: {"loss": "ce"}}, "students.kd.losses.1", "a name of letters, digits", ""),
    ("students.kd.losses", {"x" * 101: {"loss": "ce"}}, "students.kd.losses.xxx", "a name of letters, digits", ""),
    ("students.kd.losses.mutual_kl", {}, "students.kd.losses.mutual_kl", "a student with peers", "peers: 2"),
    ("students.kd.peers", 2, "students.kd.peers", "no loss learns from them", "add mutual_kl"),
    ("students.kd.init", "nobody", "students.kd.init", "unknown student 'nobody'", "baseline"),
    ("students.kd.init", {"student": "baseline", "seed": 2}, "students.kd.init.seed", "0 to 1", "found 2"),
    ("students.kd.init", {"student": "baseline", "sead": 2}, "students.kd.init", "unknown key 'sead'", "did you mean 'seed'?"),
    ("students.kd.init", 3, "students.kd.init", "a student, or {student: NAME, seed: 0}", "3"),
    ("students.kd.init", "kd", "students.kd", "other teachers (or start) than itself", "kd <- kd"),
    ("students.kd.trainable", {"up_to": "a", "only": ["b"]}, "students.kd.trainable", "exactly one of up_to and only", ""),
    ("students.kd.trainable", {}, "students.kd.trainable", "exactly one of up_to and only", ""),
    ("students.kd.trainable", 3, "students.kd.trainable", "expected a mapping", ""),
    ("students.kd.order", "block", "students.kd.order.name", "unknown order 'block'", "did you mean 'blocks'?"),
    ("students.kd.order", {"name": "blocks", "rows": 0}, "students.kd.order.rows", "greater than 0", "found 0"),
    ("students.kd.order", {"name": "blocks", "windows": 2}, "students.kd.order", "unknown key 'windows'", "window"),
    ("students.kd.order", {"name": "shuffled", "rows": 2}, "students.kd.order", "unknown key 'rows'", ""),
    ("teachers.pair", {"members": ["big", "big"], "order": "blocks"}, "teachers.pair", "order: this teacher is not trained here", ""),
    ("students.kd.on_nan", "go", "students.kd.on_nan", "stop, restore or {divide: 100.0, at_most: 10}", "'go'"),
    ("students.kd.on_nan", {"divide": 1.0}, "students.kd.on_nan.divide", "greater than 1", "1.0"),
    ("students.kd.binary", "xnorr", "students.kd.binary.form", "'weights' or 'xnor'", "'xnorr'"),
    ("students.kd.binary", {"form": "xnor", "scale": 1}, "students.kd.binary", "unknown key 'scale'", "scale_map"),
    ("teachers.pair", {"members": ["big", "big"], "binary": "xnor"}, "teachers.pair", "binary: belongs to a model", ""),
    ("students.kd.losses.ce.weight", {"name": "cosine"}, "students.kd.losses.ce.weight.start", "missing", ""),
    ("students.kd.losses.ce.weight", {"name": "obedient", "of": "label"}, "students.kd.losses.ce.weight.of", "'labels', 'hints' or 'softmax'", "'label'"),
    ("teachers.pair", {"members": ["big", "big"], "l1": 0.1}, "teachers.pair", "l1: this teacher is not trained here", ""),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "names", "expected", "advice"), MISTAKES)
def test_every_mistake_is_named(study: Study, key: str, value: object, names: str, expected: str, advice: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_study(set_at(study, key, value))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("params.yaml: ")
    assert all(part in message for part in (names, expected, advice)), message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "valid YAML"),
        ("- a", "a mapping of sections"),
        ("seed: 1\nseed: 2", "duplicate key.*line 2"),
        ("", "mapping"),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        load_study(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; run from the study's folder"):
        load_study(tmp_path / "params.yaml")


def test_two_dumps_that_fit_must_be_chosen_between(study: Study) -> None:
    study["dumps"]["other"] = {"field": "logits", "of": "big"}
    with pytest.raises(InputError, match="reads: missing; expected one of big-logits, other"):
        parse_study(study)


def test_a_dump_on_another_data_set_is_refused(study: Study) -> None:
    study["datasets"]["more"] = {"source": "digits"}
    study["teachers"]["big"]["dataset"] = "digits"
    study["dumps"]["big-logits"]["dataset"] = "more"
    for student in study["students"].values():
        student["dataset"] = "digits"
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    with pytest.raises(InputError, match="expected a dump on data set 'digits', found 'big-logits' on 'more'"):
        parse_study(study)


def test_a_student_cannot_teach_itself(study: Study) -> None:
    study["dumps"] |= {"of-kd": {"field": "logits", "of": "kd"}, "of-base": {"field": "logits", "of": "baseline"}}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "of-base"
    parse_study(study)
    study["students"]["baseline"]["losses"] = {"logits_mse": {"reads": "of-kd"}}
    with pytest.raises(InputError, match=r"students\.baseline: .*found baseline <- kd <- baseline"):
        parse_study(study)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("students.kd.trains", "features", "students.kd: unknown key 'trains': it is now called 'trainable'"),
        ("students.kd.schedule", "cosine", "students.kd: unknown key 'schedule': it is now called 'lr_schedule'"),
        ("teachers.big.schedule", "cosine", "teachers.big: unknown key 'schedule': it is now called 'lr_schedule'"),
        ("students.kd.pretrain", [{"losses": {"ce": {}}, "epochs": 1, "trains": "features"}], "pretrain.0: unknown key 'trains'"),
        ("report.claims", {"a": {"says": "so"}}, "report.claims.a: unknown key 'says': it is now called 'text'"),
        ("report.claims", {"a": {"text": "so", "of": "test"}}, "claims.a: unknown key 'of': it is now called 'metric'"),
        ("report.published", {"of": "test", "error": {"kd": 1}}, "published: unknown key 'of': it is now called 'metric'"),
    ],
)  # fmt: skip
def test_a_key_of_before_is_refused_with_its_name_of_today(study: Study, key: str, value: Any, message: str) -> None:
    place: Any = study
    *path, last = key.split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    with pytest.raises(InputError) as refused:
        parse_study(study)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "rename it" in str(refused.value)


def test_a_part_may_be_named_by_its_tap_alone(study: Study) -> None:
    study["students"]["kd"]["trainable"] = "features"
    made = parse_study(study).students["kd"].trainable
    assert made is not None
    assert (made.up_to, made.only) == ("features", None)


def test_the_roles_of_adversarial_distillation_are_not_taken_for_each_other(study: Study) -> None:
    for seed in (0, 1):
        study["dumps"][f"base-{seed}"] = {"field": "logits", "of": "baseline", "of_seed": seed}
    study["students"]["kd"] |= {"init": {"student": "baseline", "seed": 1}, "losses": {"adversarial": {}}}

    def reading(**reads: str) -> dict[str, str]:
        study["students"]["kd"]["losses"]["adversarial"]["reads"] = reads
        made: dict[str, str] = parse_study(study).students["kd"].losses["adversarial"].model_dump()["reads"]
        return made

    assert reading(teacher="big-logits") == {"teacher": "big-logits", "initial": "base-1"}
    for swapped, message in (
        ({"teacher": "base-1", "initial": "big-logits"}, "expected another teacher than the student"),
        (
            {"initial": "big-logits"},
            r"expected a dump of student 'baseline', seed 1 \(init\), found 'big-logits' of 'big'",
        ),
        ({"teacher": "base-1"}, "expected another teacher than the student"),
        ({"initial": "base-0"}, r"expected a dump of student 'baseline', seed 1 \(init\), found 'base-0'"),
    ):
        with pytest.raises(InputError, match=message):
            reading(**swapped)


def test_a_dump_may_be_of_a_student(study: Study) -> None:
    study["dumps"]["of-student"] = {"field": "logits", "of": "baseline", "of_seed": 1}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "of-student"
    assert parse_study(study).dumps["of-student"].of_seed == 1
    study["dumps"]["of-student"]["of_seed"] = 2
    with pytest.raises(InputError, match=r"of_seed: expected 0 to 1, found 2"):
        parse_study(study)


def test_a_value_inside_itself_is_refused() -> None:
    students: dict[str, Any] = {}
    students["a"] = students
    with pytest.raises(InputError, match="expected values, found one inside itself"):
        parse_study({"students": students})
