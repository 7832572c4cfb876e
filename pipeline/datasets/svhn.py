"""Street View House Numbers, format 2: `train_32x32.mat` and `test_32x32.mat`."""

from __future__ import annotations

from pipeline.datasets.raw import Place, RawDataset, as_labels, convert_torchvision_errors


def svhn(place: Place) -> RawDataset:
    """73,257 + 26,032 colour images (3, 32, 32) of ten digits (the files' label 10 is the digit 0)."""
    from torchvision import datasets  # a heavy import

    folder = place.find()
    with convert_torchvision_errors(folder, "SVHN"):
        train, test = (datasets.SVHN(str(folder), split=split, download=place.download) for split in ("train", "test"))
    return RawDataset(train.data, as_labels(train.labels), test.data, as_labels(test.labels), tuple("0123456789"))
