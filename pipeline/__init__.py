"""Precomputed-teacher distillation: dataset -> teacher -> dump -> cache -> student -> report.

The rooms hand over files with a manifest, not objects. Nothing here knows Typer or DVC; the
commands in `stages` call these plain functions.
"""

__version__ = "0.1.0"
