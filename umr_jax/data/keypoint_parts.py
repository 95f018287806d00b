"""Part maps made of keypoints: an upper reference for parts that were found without any."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from umr_jax.data.example import Example, Source

# How far a keypoint's part reaches into its neighbour's, as a share of the mask box's longer side.
_SOFTNESS = 0.06


class KeypointParts:
  """A source of examples of which some get part maps from their keypoints.

  Mirror partners, such as the tips of both wings, are one part: parts have no left and right.

  Source: none; the paper's parts are found without keypoints. These show what better parts are
    worth, and are never the method.
  """

  def __init__(self, source: Source, indices: Sequence[int], keypoint_flip: Sequence[int]):
    """Wraps a source.

    Args:
      source: of the examples.
      indices: of those that get part maps.
      keypoint_flip: for each keypoint the one whose place it takes in a mirrored image.
    """
    self._source, self._indices = source, frozenset(indices)
    self._groups = keypoint_groups(keypoint_flip)

  def __getitem__(self, index: int) -> Example:
    example = self._source[index]
    if index not in self._indices or example.keypoints is None:
      return dataclasses.replace(example, parts=None)
    return dataclasses.replace(example, parts=parts_of(example, self._groups))


def keypoint_groups(keypoint_flip: Sequence[int]) -> list[list[int]]:
  """The keypoints of each part, mirror partners together, in the order of their first ones."""
  return [sorted({i, j}) for i, j in enumerate(keypoint_flip) if i <= j]


def parts_of(example: Example, groups: Sequence[Sequence[int]]) -> np.ndarray | None:
  """Every pixel of the object belongs to the visible keypoint that is nearest, softly.

  Args:
    example: with keypoints.
    groups: the keypoints of each part.

  Returns:
    [H, W, P + 1] float32, background first; None where no keypoint is visible.
  """
  keypoints = example.keypoints
  if keypoints is None or not (keypoints[:, 2] > 0).any():
    return None
  height, width = example.mask.shape
  y, x = np.mgrid[0:height, 0:width] + 0.5
  x0, y0, x1, y1 = example.box
  reach = _SOFTNESS * max(x1 - x0, y1 - y0)
  distance = np.full((height, width, len(groups)), np.inf)
  for part, members in enumerate(groups):
    for px, py, visible in keypoints[list(members)]:
      if visible > 0:
        np.minimum(distance[..., part], np.hypot(x - px, y - py), out=distance[..., part])
  nearest = distance.min(axis=-1, keepdims=True)
  shares = np.exp((nearest - distance) / reach)
  shares *= (example.mask / shares.sum(axis=-1))[..., None]
  return np.concatenate([1.0 - example.mask[..., None], shares], axis=-1).astype(np.float32)
