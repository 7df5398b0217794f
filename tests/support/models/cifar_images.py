"""Images that a tiny network tells apart within seconds, in the shape of CIFAR-10's."""

import numpy as np

from moedb.capture.jobs.cifar_moe.config import CLASSES, IMAGE_SIZE
from moedb.capture.jobs.cifar_moe.images import ImageSet


def make_image_sets(n_train: int, n_test: int, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Make a training and a test set in which each class has its own colours, with noise.

    A class is a pattern of 4 x 4 colours; an image is the pattern, 8 times as large, brighter or
    darker, with noise in each pixel. The classes come in a random order and are equally frequent.
    """
    draw = np.random.default_rng(seed)
    patterns = draw.uniform(40, 215, (len(CLASSES), 4, 4, 3))
    patterns = patterns.repeat(IMAGE_SIZE // 4, axis=1).repeat(IMAGE_SIZE // 4, axis=2)

    def image_set(n_images: int) -> ImageSet:
        labels = draw.permutation(np.arange(n_images) % len(CLASSES))
        brightness = draw.normal(0, 12, (n_images, 1, 1, 1))
        noise = draw.normal(0, 25, (n_images, IMAGE_SIZE, IMAGE_SIZE, 3))
        images = (patterns[labels] + brightness + noise).round().clip(0, 255)
        return ImageSet(images.astype(np.uint8), labels.astype(np.int64))

    return image_set(n_train), image_set(n_test)
