"""Metrics and curves -> data/report."""
from __future__ import annotations
def report() -> None:
    """x"""
