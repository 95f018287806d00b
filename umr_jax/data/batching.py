"""Batches as a pure function of (seed, step), and the whole split for evaluation.

The loader has no state: the step determines which images come next and how they are jittered
and mirrored, so that a resumed run gets exactly the batches that an unbroken one would have got. A
host that takes a share of the rows decodes the images of these rows alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from umr_jax.data.dataset import Split
from umr_jax.data.example import Example
from umr_jax.data.threads import ordered_map
from umr_jax.data.transforms import (
  Crop,
  CropSpec,
  Square,
  barrier,
  crop,
  mirror_camera,
  move_camera,
  square_box,
)
from umr_jax.types import Batch

Result = TypeVar("Result")

_WORKERS, _AHEAD = 2, 3  # threads that prepare training batches, and how many of these at most
# What is sampled, as the second of the words that seed a stream. NumPy pads short seeds with zeros:
# without it the order of epoch 5 and the first row of step 5 would share theirs.
_ORDER, _AUGMENTATION = 0, 1


class Visit(NamedTuple):
  """One image of a training batch."""

  epoch: int
  number: int  # of the image in its split


def visits(count: int, *, step: int, seed: int, batch_size: int) -> list[Visit]:
  """The images of a training batch, in the order of its rows.

  Args:
    count: images of the split.
    step: which batch, from 0.
    seed: of the permutations.
    batch_size: images over all hosts.
  """
  orders: dict[int, np.ndarray] = {}
  found = []
  for row in range(batch_size):
    epoch, place = divmod(step * batch_size + row, count)
    if epoch not in orders:
      orders[epoch] = _order(count, epoch, seed)
    found.append(Visit(epoch, int(orders[epoch][place])))
  return found


def step_of(visit: Visit, count: int, *, seed: int, batch_size: int) -> int:
  """The step whose batch has a visit.

  Args:
    visit: an image in an epoch.
    count: images of the split.
    seed: of the permutations.
    batch_size: images over all hosts.
  """
  place = int(np.flatnonzero(_order(count, visit.epoch, seed) == visit.number)[0])
  return (visit.epoch * count + place) // batch_size


def _order(count: int, epoch: int, seed: int) -> np.ndarray:
  return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def train_batch(
  split: Split,
  spec: CropSpec,
  *,
  step: int,
  seed: int,
  batch_size: int,
  parts: bool = True,
  target_cameras: np.ndarray | None = None,
  shard: tuple[int, int] = (0, 1),
) -> Batch:
  """The training batch of one step, as NumPy arrays.

  The images of the split are visited in an endless sequence of random permutations, one an epoch; a
  batch takes the next `batch_size` of it, over the end of an epoch if need be.

  Args:
    split: the training images.
    spec: of the crops, with their augmentation.
    step: which batch, from 0.
    seed: of the permutations and the augmentation.
    batch_size: images over all hosts.
    parts: whether the batch holds part maps, where the data set has them; they are as costly to
      crop as everything else together.
    target_cameras: [N, 7] a camera for the crop of every image without jitter and mirror; the batch
      holds those of its images, for the crops as they are.
    shard: (index, count) of the host: it gets its share of the rows.

  Raises:
    ValueError: when the split is empty or the hosts cannot share the batch evenly.
  """
  if len(split) == 0:
    raise ValueError("the training split is empty")
  share = _share(batch_size, shard)
  crops, indices, cameras = [], [], []
  visited = visits(len(split), step=step, seed=seed, batch_size=batch_size)
  for row in range(shard[0] * share, (shard[0] + 1) * share):
    number = visited[row].number
    rng = np.random.default_rng((seed, _AUGMENTATION, step, row))
    jitter = rng.uniform(-spec.jitter, spec.jitter, 4)
    mirror = bool(spec.mirror and rng.random() < 0.5)
    example = split[number]
    square = square_box(example.box, padding=spec.padding, jitter=jitter)
    crops.append(_crop(split, example, square, spec.image_size, mirror=mirror, parts=parts))
    indices.append(number)
    if target_cameras is not None:
      source = square_box(example.box, padding=spec.padding)
      camera = move_camera(target_cameras[number], source=source, target=square)
      cameras.append(mirror_camera(camera) if mirror else camera)
  batch = _stack(crops, indices, np.ones(share, bool), split.part_channels if parts else 0)
  return dataclasses.replace(batch, target_camera=np.stack(cameras) if cameras else None)


def evaluation_batches(
  split: Split,
  spec: CropSpec,
  *,
  batch_size: int,
  parts: bool = True,
  shard: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Batch, list[Crop]]]:
  """Every image of a split once, in order, neither jittered nor mirrored.

  Args:
    split: the images.
    spec: of the crops; its augmentation is for training alone.
    batch_size: rows of every batch over all hosts; the last one is padded with copies of the last
      image that are not `valid`.
    parts: as in `train_batch`.
    shard: (index, count) of the host: of every batch it gets rows index, index + count, ...

  Yields:
    The host's rows of a batch, and the crops of the valid ones with their annotations.

  Raises:
    ValueError: when the hosts cannot share a batch evenly.
  """
  _share(batch_size, shard)
  for start in range(0, len(split), batch_size):
    last = min(start + batch_size, len(split)) - 1
    rows = np.arange(start, start + batch_size)[shard[0] :: shard[1]]
    indices = np.minimum(rows, last).tolist()
    cropped = {}
    for index in dict.fromkeys(indices):
      example = split[index]
      square = square_box(example.box, padding=spec.padding)
      cropped[index] = _crop(split, example, square, spec.image_size, mirror=False, parts=parts)
    crops = [cropped[index] for index in indices]
    batch = _stack(crops, indices, rows <= last, split.part_channels if parts else 0)
    yield batch, crops[: int(batch.valid.sum())]


def _share(batch_size: int, shard: tuple[int, int]) -> int:
  """The rows of a batch that each host gets."""
  if batch_size < 1 or batch_size % shard[1] != 0:
    raise ValueError(f"a batch of {batch_size} images cannot be shared by {shard[1]} hosts")
  return batch_size // shard[1]


def _crop(
  split: Split, example: Example, square: Square, size: int, *, mirror: bool, parts: bool
) -> Crop:
  if not parts:
    example = dataclasses.replace(example, parts=None)
  return crop(example, square, image_size=size, mirror=mirror, keypoint_flip=split.keypoint_flip)


def _stack(
  crops: Sequence[Crop], indices: Sequence[int], valid: np.ndarray, part_channels: int
) -> Batch:
  """Crops as a batch.

  A part map of nothing but zeros, not even background, stands for one that an image lacks. A batch
  of such images alone has them as well, where the data set has part maps: all batches are alike.
  """
  known = [item.parts for item in crops if item.parts is not None]
  if not known and part_channels:
    known = [np.zeros((*crops[0].mask.shape, part_channels), np.float32)]
  parts = [np.zeros_like(known[0]) if c.parts is None else c.parts for c in crops] if known else []
  return Batch(
    image=np.stack([item.image for item in crops]),
    mask=np.stack([item.mask for item in crops]),
    barrier=np.stack([barrier(item.mask) for item in crops]),
    index=np.array(indices, np.int32),
    valid=valid,
    parts=np.stack(parts) if parts else None,
  )


def prefetch(function: Callable[[int], Result], start: int, stop: int) -> Iterator[Result]:
  """Gives function(start), ..., function(stop - 1), computed ahead on threads.

  Args:
    function: makes the batch of a step; its exception is raised where its result is due.
    start: the first step.
    stop: one past the last step.
  """
  return ordered_map(function, range(start, stop), workers=_WORKERS, ahead=_AHEAD)
