"""scikit-learn's handwritten digits: 1,797 real 8x8 images that come with the library."""

from __future__ import annotations

import numpy as np

from pipeline.datasets.raw import Place, RawDataset, as_labels

TEST_IMAGES = 360


def digits(place: Place) -> RawDataset:
    """Ten classes, (1, 8, 8); the last 360 images are the test part.

    The images stand in the order of their writers, so the test digits are by hands that the
    training part has (nearly) never seen: a harder and more honest split than a shuffled one.
    """
    from sklearn.datasets import load_digits  # a heavy import

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # 17 grey levels -> 0..255
    labels = as_labels(bunch.target)
    cut = len(images) - TEST_IMAGES
    return RawDataset(images[:cut], labels[:cut], images[cut:], labels[cut:], tuple("0123456789"))
