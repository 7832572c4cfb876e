"""A damaged cache -> a sound copy: the study that made it computes the lost blocks again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.base.expected_values import differences
from pipeline.cache.block_files import BlockFunction
from pipeline.cache.blocks import Block
from pipeline.cache.folder import LocalFolder
from pipeline.cache.manifest import Manifest
from pipeline.cache.rewrite import repair_cache as rewrite_damaged
from pipeline.dumps.one_pass import make_block_function
from pipeline.runs.caches import expected_parameters, read_forward
from pipeline.runs.dumps import load_teacher_and_data, plan_dump
from pipeline.runs.new_folders import open_work_beside, refuse_existing
from pipeline.runs.result import Result
from pipeline.runs.stage_work import in_study_folder
from pipeline.runs.studies import open_study
from pipeline.runs.verification import CheckedCache
from pipeline.study.part_sections import DumpParams
from pipeline.study.sections import Study


def repair_cache(checked: CheckedCache, to: Path, params: Path | str = "params.yaml", device: str = "auto") -> Result:
    """Write a sound copy of a damaged cache; nothing is written where it is whole.

    Args:
        checked: what `verify_cache` says of it.
        to: a new folder.
        params: of the study that made it; read only where rows are lost.
        device: where the network runs.

    Raises:
        InputError: a cache that is not here, a place that is taken, or a study that does not make these very bytes.
    """
    manifest, name = checked.manifest, str(checked.values["cache"])
    if checked.found.is_whole:
        return Result(text=(f"nothing to repair; {to} was not written",))
    if not isinstance(checked.folder, LocalFolder):
        raise InputError(name, expected="a local copy to repair", found="a URL", fix="copy it first")
    folder, target = checked.folder.path.resolve(), to.resolve()
    refuse_existing(target)
    known: list[BlockFunction] = []

    def compute(block: Block) -> Mapping[str, Any]:
        if not known:  # a teacher is loaded only where rows are lost
            known.append(compute_from_study(open_study(params), manifest, device))
        return known[0](block)

    with open_work_beside(target) as work:
        rewrite_damaged(folder, manifest, checked.found, target=target, work=work, compute=compute)
    return Result({"root": manifest.root}, text=(f"{to}: repaired, root {manifest.root[:12]}",))


@in_study_folder
def compute_from_study(study: Study, manifest: Manifest, device: str) -> BlockFunction:
    """What computes the blocks of a cache again.

    Raises:
        InputError: the study has no such dump, or its teacher and data have changed since.
    """
    for spec in study.dumps.values():
        if _made(study, spec, manifest):
            teacher, dataset = load_teacher_and_data(study, spec, resolve_device(device))
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
    ours = spec.field, spec.of, spec.batch, study.views.views().parameters, spec.forward.model_dump()
    its = (
        manifest.field.name,
        manifest.teacher.name,
        manifest.batch,
        manifest.views.model_dump(),
        read_forward(manifest),
    )
    return ours == its and not list(differences(expected_parameters(spec), manifest.field.parameters))
