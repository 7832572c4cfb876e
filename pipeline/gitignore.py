"""What git must not keep of a study: the lines of .gitignore for what DVC keeps, and for unfinished work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipeline.files import write_bytes

# Each line, and a path that it is there for. What came from elsewhere may be kept by `dvc add`, whose files are git's.
LINES = {
    "/.work/": ".work/x",
    "/data/raw/*": "data/raw/x",
    "!/data/raw/*.dvc": "",
    "/data/prepared/": "data/prepared/x",
    "/data/teachers/": "data/teachers/x",
    "/data/cache/*": "data/cache/x",
    "!/data/cache/*.dvc": "",
    "/data/students/": "data/students/x",
    "/data/timings/": "data/timings/x",
}
HEADLINE = "# teachercache: what the stages make is DVC's to keep; unfinished work and times are nobody's"


def missing_lines(study: Path) -> list[str]:
    """The lines without which git would take up what a study's stages make; none outside of a repository.

    Args:
        study: the folder of params.yaml.

    Returns:
        Lines for the study's own .gitignore; git itself is asked, so that whatever ignores a path will do.
    """
    git = shutil.which("git")
    if git is None:
        return []
    asked = {path: line for line, path in LINES.items() if path}
    # --no-index: what somebody has committed by mistake still wants its line.
    done = subprocess.run(  # noqa: S603 - the program that `which` found, and paths of ours
        [git, "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=study,
        input="\0".join(asked).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode not in (0, 1):  # 128: no repository around the study
        return []
    ignored = set(done.stdout.decode().split("\0"))
    missing = {line for path, line in asked.items() if path not in ignored}
    return [line for line in LINES if line.removeprefix("!").removesuffix(".dvc") in missing]


def add_lines(study: Path) -> tuple[list[str], list[str]]:
    """Add what is missing to the study's .gitignore.

    Returns:
        The lines added, and those of them that change nothing since another .gitignore says otherwise.
    """
    missing, path = missing_lines(study), study / ".gitignore"
    if not missing:
        return [], []
    before = path.read_bytes() if path.exists() else b""
    gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    write_bytes(path, before, gap, "\n".join((HEADLINE, *missing, "")).encode())
    return missing, missing_lines(study)
