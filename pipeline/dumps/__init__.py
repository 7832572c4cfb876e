"""Dumps: one field a file, each a function (teacher, samples, *, options) -> Field."""

from pipeline.registry import Registry

__all__ = ["FIELDS"]

FIELDS = Registry("field", {"logits": "pipeline.dumps.logits:logits"})
