"""Metrics, curves, caches and students -> data/report."""

from __future__ import annotations

from stages import cli, options


def report(params: options.ParamsOption = options.PARAMS) -> None:
    """Put teachers and students into one table with pictures (report.md, report.html)."""
    from pipeline import runs

    cli.show(runs.write_report(runs.open_study(params)))


if __name__ == "__main__":
    cli.main(report)
