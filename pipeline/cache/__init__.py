"""The cache: a folder with a manifest that proves what is inside.

cache = pipeline.cache.open("data/cache/big-logits")
logits = cache.load()[0]  # (samples, classes)
"""

from pipeline.cache.codecs import Format
from pipeline.cache.manifest import Manifest
from pipeline.cache.reader import Cache, open

__all__ = ["Cache", "Format", "Manifest", "open"]
