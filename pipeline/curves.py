"""Training curves as dvclive writes them: one small table a quantity, a row an epoch."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from pipeline.errors import InputError
from pipeline.training import History


class Curves:
    """Logs each epoch of a history once. Used as `on_epoch` of a training.

    A resumed run hands over its whole history first, so its tables are those of a run that was
    never stopped.
    """

    def __init__(self, folder: Path) -> None:
        logging.getLogger("dvclive").setLevel(logging.ERROR)  # it warns where there is no git repository
        from dvclive.live import Live  # heavy imports
        from scmrepo.exceptions import SCMError

        try:
            # The defaults would rewrite dvc.yaml and record an experiment in git.
            self._live = Live(str(folder), dvcyaml=None, save_dvc_exp=False)
        except SCMError as error:
            raise InputError(
                "the git repository around this folder",
                expected="at least one commit (dvclive asks for it)",
                found=str(error),
                fix="commit once: git add -A && git commit -m start",
            ) from None
        self._logged = 0

    def __call__(self, history: History) -> None:
        for row in history[self._logged :]:
            for name, value in row.items():
                self._live.log_metric(name, value)
            self._live.next_step()  # type: ignore[no-untyped-call]
        self._logged = len(history)


def read_curve(folder: Path, quantity: str) -> list[float]:
    """The values of one quantity by epoch ("validation/accuracy"); empty where it was not logged."""
    path = folder / "plots/metrics" / f"{quantity}.tsv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [float(row[quantity.rpartition("/")[2]]) for row in csv.DictReader(file, delimiter="\t")]
