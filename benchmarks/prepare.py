"""`prepare` of an image folder, beside the same command of an earlier version; its seconds and its memory.

    python benchmarks/prepare.py [--photos FOLDER] [--before CHECKOUT] [--repeats 3] [--images 60000]

--photos is a folder with CIFAR-10 as JPEGs, in `train/<class>/` and `test/<class>/`, zipped or not; without it JPEGs of
random blots are written. --before is a checkout of the version to compare with (`git worktree add`); without it there
are no ratios. Each command runs in a process of its own; its time and memory are counted from when all is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Goal, Row, Spread, interleave, parser, ratios, record
from PIL import Image

from pipeline.base.files import remove_path

HERE = Path(__file__).parents[1]
CLASSES = 10
COLUMNS = ("now / before", "now, s", "before, s", "now, MB", "before, MB")
RUN = """
import json, sys, time
from pathlib import Path
from pipeline import runs

study = runs.open_study(Path(sys.argv[1]))
runs.prepare_dataset  # imported when it is first asked for
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
Path("/proc/self/clear_refs").write_text("5")
before, start = peak(), time.perf_counter()
runs.prepare_dataset(study, "photos")
print(json.dumps({"s": time.perf_counter() - start, "MB": (peak() - before) * 1024 / 1e6}))
"""


@dataclass
class Side:
    """One way to prepare the images.

    Attributes:
        checkout: of the version that runs.
        study: its folder.
        split: keys of the data set.
        megabytes: the most resident memory above that at the start, of each run.
    """

    checkout: Path
    study: Path
    split: dict[str, Any]
    megabytes: list[float] = field(default_factory=list)

    def run(self, photos: Path) -> float:
        """Seconds of one run."""
        self.study.mkdir(parents=True, exist_ok=True)
        params = self.study / "params.yaml"
        section = {"source": "imagefolder", "root": str(photos), **self.split}
        params.write_text(json.dumps({"datasets": {"photos": section}}), encoding="utf-8", newline="\n")
        done = subprocess.run(
            [sys.executable, "-c", RUN, params], cwd=self.checkout, check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(self.checkout)},
        )  # fmt: skip
        remove_path(self.study)
        found: dict[str, float] = json.loads(done.stdout)
        self.megabytes.append(found["MB"])
        return found["s"]


def write_photos(folder: Path, count: int, side: int = 32) -> None:
    """A zip a part of JPEGs of random blots, five of six images to train with."""
    random = np.random.default_rng(0)
    for part, images in (("train", count * 5 // 6), ("test", count // 6)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for row in range(images):
                blots = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
                data = BytesIO()
                blots.resize((side, side)).save(data, "JPEG", quality=90)
                archive.writestr(f"{part}/c{row % CLASSES}/{row:06}.jpg", data.getvalue())


def make_cases(images: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """By name: what is asked for now, and what came nearest to it before."""
    few = images // 12
    return {
        f"{images:,} JPEGs, all kept": ({}, {}),
        f"{images:,} JPEGs, {2 * few:,} kept": ({"train": few, "test": few}, {"train": few}),
        f"{images:,} JPEGs, `duplicates: drop`": ({"duplicates": "drop"}, {"duplicates": "drop"}),
    }


def measure(photos: Path, before: Path | None, images: int, repeats: int, folder: Path) -> Iterator[tuple[str, Row]]:
    """A row for each case."""
    for name, (now, then) in make_cases(images).items():
        sides = {"now": Side(HERE, folder / "now", now)}
        if before is not None:
            sides["before"] = Side(before, folder / "before", then)
        runs = {each: partial(side.run, photos) for each, side in sides.items()}
        found = interleave(runs, repeats, warm_up=False)
        values: dict[str, Spread | float | None] = dict.fromkeys(COLUMNS)
        for each, side in sides.items():
            values |= {f"{each}, s": Spread.of(found[each]), f"{each}, MB": Spread.of(side.megabytes)}
        if before is not None:
            values["now / before"] = ratios(found["now"], found["before"])
        goal = Goal(at_most=0.4) if "all kept" in name else None
        yield "times", Row(labels={"what": name}, values=values, goal=goal)


def measure_sizes(folder: Path, images: int, repeats: int) -> Iterator[tuple[str, Row]]:
    """Memory beside the bytes of the images that are prepared."""
    few = max(60, images // 30)
    for count, side in ((few, 64), (few, 256), (4 * few, 256)):
        photos = folder / f"photos-{count}-{side}"
        photos.mkdir()
        write_photos(photos, count, side)
        now = Side(HERE, folder / "now", {})
        spent = [now.run(photos) for _ in range(repeats)]
        remove_path(photos)
        labels = {"what": f"{count:,} JPEGs of {side} x {side}"}
        values = {"MB": Spread.of(now.megabytes), "MB of pixels": count * side * side * 3 / 1e6, "s": Spread.of(spent)}
        yield "memory", Row(labels=labels, values=values, goal=Goal(at_most=300))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--photos", type=Path, help="the folder of CIFAR-10's JPEGs")
    options.add_argument("--before", type=Path, help="a checkout of an earlier version")
    options.add_argument("--images", type=int, default=60_000, help="that there are, or are written")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        photos = given.photos and given.photos.resolve()
        if photos is None:
            photos = Path(place) / "photos"
            photos.mkdir()
            write_photos(photos, given.images)
        before = given.before and given.before.resolve()
        times = measure(photos, before, given.images, given.repeats, Path(place))
        rows = chain(times, measure_sizes(Path(place), given.images, given.repeats))
        name = "CIFAR-10 as JPEGs" if given.photos else "random blots"
        record("prepare", rows, given, ["pillow", "numpy"], photos=name, images=given.images)


if __name__ == "__main__":
    main()
