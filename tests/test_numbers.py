"""A tiny study, trained anew, ends where it ended before: a change of results is noticed, and meant or mended.

The studies' locks do not depend on our code, so this is what would tell. After a change that is meant, write the
file again: `python tests/test_numbers.py FOLDER`, of a study that is made like the fixture `made`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

STORED = Path(__file__).with_name("numbers.json")


def last_epochs(folder: Path) -> dict[str, dict[str, float]]:
    """The last point of each curve of each network of a study."""
    files = sorted(folder.glob("data/*/**/curves/metrics.json"))
    return {
        path.parent.parent.relative_to(folder / "data").as_posix(): _flat(json.loads(path.read_text()))
        for path in files
    }


def _flat(values: dict[str, object], name: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{name}{key}/") if isinstance(value, dict) else {f"{name}{key}": float(str(value))}
    return flat


def test_the_tiny_study_ends_where_it_ended_before(made: Path) -> None:
    stored, found = json.loads(STORED.read_text()), last_epochs(made)
    assert found.keys() == stored.keys()
    assert len(found) == 5
    for network, numbers in stored.items():
        # Other processors sum in another order: a few units in the last place of float32, grown over two epochs.
        assert found[network] == pytest.approx(numbers, rel=1e-4), network
    for network in ("students/kd/seed-0", "students/kd/seed-1"):
        assert stored[network]["train/soft_targets"] > 1


if __name__ == "__main__":
    STORED.write_text(json.dumps(last_epochs(Path(sys.argv[1])), indent=2, sort_keys=True) + "\n")
