"""Data sets: one source a file, each a function (place, *, options) -> RawDataset; `prepare` makes it a `Dataset`."""

from __future__ import annotations

from pipeline.base.registry import Registry

__all__ = ["SOURCES"]

SOURCES = Registry(
    "source",
    {
        "digits": "pipeline.datasets.digits:digits",
        "mnist": "pipeline.datasets.idx:mnist",
        "fashion_mnist": "pipeline.datasets.idx:fashion_mnist",
        "kmnist": "pipeline.datasets.idx:kmnist",
        "notmnist": "pipeline.datasets.idx:notmnist",
        "cifar10": "pipeline.datasets.cifar:cifar10",
        "cifar100": "pipeline.datasets.cifar:cifar100",
        "svhn": "pipeline.datasets.svhn:svhn",
        "imagefolder": "pipeline.datasets.imagefolder:imagefolder",
        "mnist_variations": "pipeline.datasets.mnist_variations:mnist_variations",
        "amat": "pipeline.datasets.amat:amat",
    },
)
