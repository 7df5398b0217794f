"""How an epoch shows the training images: as they are, mirrored, or mirrored and shifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from moedb.capture.jobs.cifar_moe.config import IMAGE_SIZE, Augmentation

MAX_SHIFT = 4
"""Pixels by which a cropped image moves at the most, along each side."""


@dataclass(frozen=True)
class Views:
    """Which pixel of its image each pixel of a view shows.

    Attributes
    ----------
    rows, columns
        Int[Tensor, "image pixel"]: the image's row, or column, at each row, or column, of the view.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def drawn(
        cls, draw: np.random.Generator, augmentation: Augmentation, n_images: int, device: str
    ) -> Views:
        """Draw how each of ``n_images`` is shown.

        What is moved over an edge is filled with the image's reflection at that edge.
        """
        pixels = np.arange(IMAGE_SIZE)
        mirrored = draw.random((n_images, 1)) < 0.5
        shifts = np.zeros((2, n_images, 1), dtype=np.int64)
        if augmentation == "crop":
            shifts = draw.integers(-MAX_SHIFT, MAX_SHIFT, size=shifts.shape, endpoint=True)
        rows, columns = (_reflected(pixels + shift) for shift in shifts)
        if augmentation != "none":
            columns = np.where(mirrored, columns[:, ::-1], columns)
        return cls(torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device))

    def of(self, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """The views of the ``chosen`` of ``images``, each (image, height, width, channel)."""
        rows, columns = self.rows[chosen], self.columns[chosen]
        return images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflected(pixels: np.ndarray) -> np.ndarray:
    last = IMAGE_SIZE - 1
    inside: np.ndarray = last - np.abs(last - np.abs(pixels))
    return inside
