"""Programs that torchrun starts as several processes, as people start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ONE_MACHINE = ("--standalone",)


def start_processes(
    folder: Path, count: int, module: str, *arguments: str, where: tuple[str, ...] = ONE_MACHINE, restarts: int = 0
) -> subprocess.Popen[str]:
    """Start a module as so many processes of one thread each.

    Args:
        folder: where they work.
        count: processes of this torchrun.
        module: its name.
        arguments: its own.
        where: torchrun's options of machines.
        restarts: times that torchrun starts all of them again.
    """
    launcher = ["torch.distributed.run", *where, "--nproc-per-node", str(count), "--max-restarts", str(restarts)]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
