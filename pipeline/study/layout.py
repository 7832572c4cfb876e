"""Where each room's files live, relative to the folder that holds `params.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """The folders of one study. Every path that a stage reads or writes is named here."""

    root: Path

    def prepared(self, dataset: str) -> Path:
        return self.root / "data/prepared" / dataset

    def teacher(self, teacher: str) -> Path:
        return self.root / "data/teachers" / teacher

    def cache(self, dump: str) -> Path:
        return self.root / "data/cache" / dump

    def part(self, dump: str, part: str) -> Path:
        """One part of a dump, for `cache merge`; made by hand, no DVC output."""
        return self.root / "data/cache" / f"{dump}.part-{part}"

    def student(self, student: str) -> Path:
        return self.root / "data/students" / student

    def network(self, student: str, seed: int, peer: int = 0) -> Path:
        """The network of one seed; those of its peers lie inside."""
        return network_folder(self.student(student), seed, peer)

    def metrics(self, kind: str, name: str) -> Path:
        """Small JSON files that git keeps, not DVC: `data/metrics/students/kd.json`."""
        return self.root / "data/metrics" / kind / f"{name}.json"

    def report(self) -> Path:
        return self.root / "data/report"

    def fidelity(self, student: str) -> Path:
        """What compact logits cost a student; made by hand, no DVC output."""
        return self.root / "data/fidelity" / student

    def timings(self, stage: str) -> Path:
        """Wall-clock seconds: no DVC output, since they differ from run to run."""
        return self.root / "data/timings" / stage / "timings.json"

    def work(self, stage: str) -> Path:
        """Unfinished work of one stage: on the outputs' file system, ignored by git and DVC."""
        return self.root / ".work" / stage

    @property
    def is_under_dvc(self) -> bool:
        """Whether DVC runs this study: its stages are here, and a DVC repository is around them."""
        around = (self.root.resolve(), *self.root.resolve().parents)
        return (self.root / "dvc.yaml").exists() and any((folder / ".dvc").is_dir() for folder in around)

    def how_to_make(self, stage: str, command: str) -> str:
        """What to run for what is missing: DVC's stage where there is DVC, else the command itself."""
        return f"run `dvc repro {stage}`" if self.is_under_dvc else f"run `teachercache {command}`"

    def how_to_train(self, kind: Literal["teacher", "student"], name: str) -> str:
        """What to run for a network that is missing."""
        return self.how_to_make(f"train-{kind}-{name}", f"train-{kind} {name}")

    def relative(self, path: Path) -> str:
        """The path as dvc.yaml and messages name it: relative to the study, with slashes."""
        return path.relative_to(self.root).as_posix()


def network_folder(student: Path, seed: int, peer: int = 0) -> Path:
    """Where in a student's folder the network of a seed lies, and inside it those of its peers."""
    folder = student / f"seed-{seed}"
    return folder / f"peer-{peer}" if peer else folder
