"""What numerical libraries read from the environment when they are first imported."""

from __future__ import annotations

import logging
import os
import sys

LOG = logging.getLogger(__name__)

DEFAULTS = {
    # OpenMP's threads wait by spinning, on the core that the other run needs: measured, two
    # trainings on two cores took 9 to 120 times longer a step; with a short spin 1.5 to 2 times,
    # and a lone one 1.0 to 1.2 times.
    "GOMP_SPINCOUNT": "1000",
    # MKL promises the same bits from run to run only in this mode (memory may be aligned otherwise).
    "MKL_CBWR": "AUTO,STRICT",
}


def set_library_defaults() -> None:
    """Set what is not set yet, before torch is imported; say so where it is too late."""
    missing = DEFAULTS.keys() - os.environ.keys()
    if missing and "torch" in sys.modules:
        LOG.warning("torch was imported before pipeline.runs: results may differ in the last bits from the commands'")
    for name in missing:
        os.environ[name] = DEFAULTS[name]
