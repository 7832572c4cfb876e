"""What computes the blocks of a cache again, from the study that made it."""

from __future__ import annotations

from pipeline.base.errors import InputError
from pipeline.base.expectations import differences
from pipeline.cache.block_files import BlockFunction
from pipeline.cache.manifest import Manifest
from pipeline.dumps.one_pass import make_block_function
from pipeline.runs.caches import expected_parameters
from pipeline.runs.dumps import load_teacher_and_data, plan_dump
from pipeline.runs.stage import in_study_folder
from pipeline.study.parts import DumpParams
from pipeline.study.sections import Study


@in_study_folder
def compute_from_study(study: Study, manifest: Manifest, device: str) -> BlockFunction:
    """What computes the blocks of a cache again.

    Raises:
        InputError: the study has no such dump, or its teacher and data have changed since.
    """
    for spec in study.dumps.values():
        if _made(study, spec, manifest):
            teacher, dataset = load_teacher_and_data(study, spec, device)
            fingerprint, weights = dataset.fingerprint, teacher.card["weights_sha256"]
            if (fingerprint, weights) == (manifest.dataset.fingerprint, manifest.teacher.weights_sha256):
                field, seen = plan_dump(spec, study, teacher, dataset)
                return make_block_function(teacher, seen, field)
    raise InputError(
        study.file,
        expected=f"the dump of {manifest.field.name} of {manifest.teacher.name!r} that made this cache",
        found="none with this teacher and these data",
        fix="run it in the study that made it, or dump again",
    )


def _made(study: Study, spec: DumpParams, manifest: Manifest) -> bool:
    """Whether a configured dump is the one that made a cache, teacher and data apart."""
    ours = spec.field, spec.of, spec.batch, study.views.views().parameters
    its = manifest.field.name, manifest.teacher.name, manifest.batch, manifest.views.model_dump()
    return ours == its and not list(differences(expected_parameters(spec), manifest.field.parameters))
