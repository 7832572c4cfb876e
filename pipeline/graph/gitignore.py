"""What git must not keep of a study: the lines of .gitignore for what DVC keeps, and for unfinished work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipeline.base.files import write_bytes
from pipeline.graph.git_checkout import find_repository

# Each line, and a path that it is there for, of a name that nothing else ignores. What came from elsewhere may be kept
# by `dvc add`, whose files are git's, as signatures are.
LINES = {
    "/.work/": ".work/made-by-a-stage",
    "/data/raw/*": "data/raw/made-by-a-stage",
    "!/data/raw/*.dvc": "",
    "/data/prepared/": "data/prepared/made-by-a-stage",
    "/data/teachers/": "data/teachers/made-by-a-stage",
    "/data/cache/*": "data/cache/made-by-a-stage",
    "!/data/cache/*.dvc": "",
    "!/data/cache/*.sig.json": "",
    "/data/students/": "data/students/made-by-a-stage",
    "/data/timings/": "data/timings/made-by-a-stage",
}
HEADLINE = "# teachercache: what the stages make is DVC's to keep; unfinished work and times are nobody's"


def find_missing_lines(study: Path) -> list[str]:
    """The lines without which git would take up what a study's stages make; none outside of a repository.

    Args:
        study: the folder of params.yaml.

    Returns:
        Lines for the study's own .gitignore. Git itself is asked, so that whatever ignores a path will do; where it
        does not answer, all of them.
    """
    return _ask_git(study)[0]


def _ask_git(study: Path) -> tuple[list[str], bool]:
    """The same lines, and whether git has answered."""
    if find_repository(study) is None:
        return [], True
    path = study / ".gitignore"
    # Git is not asked where it would read a pipe, for ever.
    asked = LINES if path.is_file() or not path.exists() else {}
    ignored = {line: _is_ignored(study, probe) for line, probe in asked.items() if probe}
    if ignored.get("/.work/") is None:  # of paths beyond a link git says nothing, and takes up nothing
        return list(LINES), False
    missing = {line for line, answer in ignored.items() if answer is False}
    return [line for line in LINES if _find_rule(line) in missing], True


def _find_rule(line: str) -> str:
    """The line that another is an exception to; itself, of one that is none."""
    return line.removeprefix("!").removesuffix(".dvc").removesuffix(".sig.json")


def _is_ignored(study: Path, path: str) -> bool | None:
    """What git says of a path; None where it does not say: the repository is another account's, or a link leads out."""
    git = shutil.which("git")
    if git is None:
        return None
    # --no-index: what somebody has committed by mistake still wants its line.
    command = [git, "check-ignore", "--no-index", "-q", path]
    done = subprocess.run(command, cwd=study, capture_output=True, check=False)  # noqa: S603 - paths of ours
    return {0: True, 1: False}.get(done.returncode)


def add_missing_lines(study: Path) -> tuple[list[str], list[str]]:
    """Add what is missing to the study's .gitignore.

    Returns:
        The lines added, and those that git needs all the same: another file overrules them, or they were not added
        because git does not answer or .gitignore is no file (git reads none that is a link).
    """
    (missing, answered), path = _ask_git(study), study / ".gitignore"
    if not missing or not answered or path.is_symlink():
        return [], missing
    before = path.read_bytes() if path.exists() else b""
    gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    write_bytes(path, before, gap, "\n".join((HEADLINE, *missing, "")).encode())
    return missing, find_missing_lines(study)
