"""Training curves as dvclive writes them: one small table a quantity, a row an epoch."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

if TYPE_CHECKING:
    from pipeline.training.network_trainer import History


class Curves:
    """Logs each epoch of a history once. Used as `on_epoch` of a training.

    A resumed run hands over its whole history first, so its tables are those of a run that was
    never stopped.
    """

    def __init__(self, folder: Path) -> None:
        logging.getLogger("dvclive").setLevel(logging.ERROR)  # it warns where there is no git repository
        from dvclive.live import Live  # a heavy import

        # Only its tables are wanted: left alone it looks for the repository, refuses one without a
        # commit, runs `dvc init` in one without DVC, rewrites dvc.yaml and records an experiment.
        with patch("dvclive.live.get_dvc_repo", return_value=None):
            self._live = Live(str(folder), dvcyaml=None, save_dvc_exp=False)
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
    with path.open(encoding="utf-8", newline="") as file:
        return [float(row[quantity.rpartition("/")[2]]) for row in csv.DictReader(file, delimiter="\t")]
