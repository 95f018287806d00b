"""Batches as a pure function of (seed, step), and the whole split for evaluation.

The loader has no state: the step says which images come next and how they are jittered and
mirrored, so that a resumed run sees exactly what an unbroken one would have seen.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from umr_jax.data.dataset import Split
from umr_jax.data.example import Example
from umr_jax.data.threads import ordered_map
from umr_jax.data.transforms import (
  Crop,
  barrier,
  crop,
  mirror_camera,
  move_camera,
  square_box,
)
from umr_jax.types import Batch

Result = TypeVar("Result")


def train_batch(
  split: Split,
  *,
  step: int,
  seed: int,
  batch_size: int,
  image_size: int,
  padding: float,
  jitter: float,
  mirror: bool,
  parts: bool = True,
  bank: np.ndarray | None = None,
  shard: tuple[int, int] = (0, 1),
) -> Batch:
  """The training batch of one step, as NumPy arrays.

  The images of the split are visited in an endless row of random permutations, one an epoch; a
  batch takes the next `batch_size` of the row, over the end of an epoch if need be.

  Args:
    split: the training images.
    step: which batch, from 0.
    seed: of the permutations and the augmentation.
    batch_size: images over all hosts.
    image_size: S.
    padding: share of the mask's box added on every side.
    jitter: largest share by which every side of the box moves at random.
    mirror: mirror an image with probability one half.
    parts: whether the batch holds part maps, where the data set has them; they are as costly to cut
      as everything else together.
    bank: [N, 7] a camera for the crop of every image without jitter and mirror; each follows its
      image's crop into the batch.
    shard: (index, count) of the host that asks; it gets its share of the rows.

  Raises:
    ValueError: when the split is empty or the hosts cannot share the batch evenly.
  """
  index, count = shard
  if len(split) == 0:
    raise ValueError("the training split is empty")
  if batch_size < 1 or batch_size % count != 0:
    raise ValueError(f"a batch of {batch_size} images cannot be shared by {count} hosts")
  share = batch_size // count
  rows = range(index * share, (index + 1) * share)
  crops, indices, cameras = [], [], []
  permutations: dict[int, np.ndarray] = {}
  for row in rows:
    epoch, place = divmod(step * batch_size + row, len(split))
    if epoch not in permutations:
      permutations[epoch] = np.random.default_rng((seed, epoch)).permutation(len(split))
    number = int(permutations[epoch][place])
    rng = np.random.default_rng((seed, step, row))
    draws = rng.uniform(-jitter, jitter, 4)
    mirrored = bool(mirror and rng.random() < 0.5)
    example = split[number]
    square = square_box(example.box, padding=padding, jitter=draws)
    crops.append(_cut(split, example, square, image_size, mirrored=mirrored, parts=parts))
    indices.append(number)
    if bank is not None:
      camera = move_camera(
        bank[number], source=square_box(example.box, padding=padding), target=square
      )
      cameras.append(mirror_camera(camera) if mirrored else camera)
  batch = _stack(crops, indices, len(crops), split.part_channels if parts else 0)
  found: Any = np.stack(cameras) if cameras else None
  return dataclasses.replace(batch, target_camera=found)


def evaluation_batches(
  split: Split,
  *,
  batch_size: int,
  image_size: int,
  padding: float,
  parts: bool = True,
) -> Iterator[tuple[Batch, list[Crop]]]:
  """Every image of a split once, in order, without jitter.

  Args:
    split: the images.
    batch_size: rows of every batch; the last one is padded with copies that are not `valid`.
    image_size: S.
    padding: share of the mask's box added on every side.
    parts: as in `train_batch`.

  Yields:
    The batch, and the crops of its valid rows with their annotations.
  """
  for start in range(0, len(split), batch_size):
    indices = list(range(start, min(start + batch_size, len(split))))
    crops = []
    for index in indices:
      example = split[index]
      square = square_box(example.box, padding=padding)
      crops.append(_cut(split, example, square, image_size, mirrored=False, parts=parts))
    yield _stack(crops, indices, batch_size, split.part_channels if parts else 0), crops


def _cut(
  split: Split,
  example: Example,
  square: tuple[float, float, float],
  size: int,
  *,
  mirrored: bool,
  parts: bool,
) -> Crop:
  if not parts:
    example = dataclasses.replace(example, parts=None)
  return crop(example, square, image_size=size, mirror=mirrored, keypoint_flip=split.keypoint_flip)


def _stack(crops: list[Crop], indices: list[int], rows: int, part_channels: int) -> Batch:
  """Crops as a batch of `rows` rows; rows that are missing repeat the last crop.

  A part map of nothing but zeros, not even background, stands for one that an image lacks. A batch
  of such images alone has them as well, where the data set has part maps: all batches are alike.
  """
  filled = crops + [crops[-1]] * (rows - len(crops))
  known = [item.parts for item in crops if item.parts is not None]
  if not known and part_channels:
    known = [np.zeros((*crops[0].mask.shape, part_channels), np.float32)]
  barriers = [barrier(item.mask) for item in crops]
  arrays: dict[str, Any] = dict(
    image=np.stack([item.image for item in filled]),
    mask=np.stack([item.mask for item in filled]),
    barrier=np.stack(barriers + [barriers[-1]] * (rows - len(crops))),
    index=np.array(indices + [indices[-1]] * (rows - len(indices)), np.int32),
    valid=np.arange(rows) < len(crops),
    parts=np.stack(
      [np.zeros_like(known[0]) if item.parts is None else item.parts for item in filled]
    )
    if known
    else None,
  )
  return Batch(**arrays)


def prefetch(function: Callable[[int], Result], start: int, stop: int) -> Iterator[Result]:
  """Gives function(start), ..., function(stop - 1), computed ahead on threads.

  Args:
    function: makes the batch of a step; its exception is raised where its result is due.
    start: the first step.
    stop: one past the last step.
  """
  return ordered_map(function, range(start, stop), workers=2, ahead=3)
