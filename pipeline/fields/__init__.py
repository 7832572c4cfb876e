"""Cached fields as tensors: what a student, or a loop of one's own, reads."""
