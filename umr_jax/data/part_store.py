"""Part maps that this package made: one file for a data set, and examples that carry them."""

import dataclasses
import io
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from umr_jax.data.dataset import Dataset, Split
from umr_jax.data.example import Example, Source
from umr_jax.data.transforms import Square, resample
from umr_jax.files import write_bytes

_LEVELS = np.float32(255.0)


def from_bytes(maps: np.ndarray) -> np.ndarray:
  """Part maps that are stored as uint8 in 0..255 as float32 in [0, 1]."""
  return maps / _LEVELS


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PartStore:
  """Part maps of the crops of many images."""

  names: tuple[str, ...]  # of the examples
  squares: np.ndarray  # [N, 3] float64: x0, y0, side of each crop, in pixels of the stored image
  maps: np.ndarray  # [N, S, S, P + 1] uint8 in 0..255, background first
  # Share of the objects' pixels that have the same part in the mirrored image; NaN: not measured.
  mirror_agreement: float = math.nan

  def probabilities(self, rows: int | Sequence[int]) -> np.ndarray:
    """[*B, S, S, P + 1] float32 in [0, 1]: the maps of these rows."""
    return from_bytes(self.maps[rows])

  @property
  def part_names(self) -> tuple[str, ...]:
    """Parts that were discovered have no other names than numbers."""
    return tuple(f"part {number}" for number in range(1, self.maps.shape[-1]))


def make_store(
  names: Sequence[str],
  squares: Sequence[Square],
  maps: np.ndarray,
  *,
  mirror_agreement: float = math.nan,
) -> PartStore:
  """A store of part maps.

  Args:
    names: of the N examples.
    squares: of their crops.
    maps: [N, S, S, P + 1] uint8 of the crops.
    mirror_agreement: see `PartStore`.
  """
  return PartStore(
    names=tuple(names),
    squares=np.array(squares, np.float64).reshape(-1, 3),
    maps=maps,
    mirror_agreement=mirror_agreement,
  )


def write_store(path: pathlib.Path, store: PartStore) -> None:
  """Writes a store; a file of that name is replaced when the new one is complete.

  Args:
    path: of the file.
    store: what it is to hold.
  """
  file = io.BytesIO()
  names = np.array(store.names, np.str_)
  arrays = {"names": names, "squares": store.squares, "maps": store.maps}
  np.savez_compressed(
    file, allow_pickle=False, mirror_agreement=np.float64(store.mirror_agreement), **arrays
  )
  write_bytes(path, file.getvalue())


def read_store(path: pathlib.Path) -> PartStore:
  """Reads a store.

  Raises:
    FileNotFoundError: when there is none.
    ValueError: when the file is damaged or something else.
  """
  if not path.is_file():
    raise FileNotFoundError(
      f"no part maps at {path}: expected a file that train, train_scops or improve_scops wrote"
    )
  try:
    with np.load(path, allow_pickle=False) as archive:
      names, squares, maps = (archive[key] for key in ("names", "squares", "maps"))
      mirror_agreement = float(archive["mirror_agreement"])
  except Exception as error:
    # The parsers of zip and NumPy raise exceptions of any type for a damaged archive.
    raise ValueError(
      f"{path} holds no part maps, or is damaged ({type(error).__name__}: {error})"
    ) from error
  count = len(names)
  if squares.shape != (count, 3) or maps.ndim != 4 or len(maps) != count or maps.shape[-1] < 2:
    raise ValueError(
      f"{path} holds {count} names, squares {squares.shape} and maps {maps.shape}; expected "
      "[N, 3] squares and [N, S, S, P + 1] maps"
    )
  return PartStore(
    names=tuple(names.tolist()), squares=squares, maps=maps, mirror_agreement=mirror_agreement
  )


class StoredParts:
  """A source of examples of which some get part maps from a store."""

  def __init__(self, source: Source, store: PartStore, indices: Sequence[int]):
    """Wraps a source.

    Args:
      source: of the examples.
      store: of their part maps, by name.
      indices: of those that get part maps, if the store has them; all others have none.
    """
    self._source, self._store, self._indices = source, store, frozenset(indices)
    self._rows = {name: row for row, name in enumerate(store.names)}

  def __getitem__(self, index: int) -> Example:
    example = self._source[index]
    row = self._rows.get(example.name) if index in self._indices else None
    if row is None:
      return dataclasses.replace(example, parts=None)
    square, probs = tuple(self._store.squares[row]), self._store.probabilities(row)
    return dataclasses.replace(example, parts=paste_part_map(probs, square, example.mask.shape))


def paste_part_map(
  probs: np.ndarray, square: tuple[float, ...], shape: tuple[int, ...]
) -> np.ndarray:
  """A crop's part map on the pixels of its image; background where the crop does not reach.

  Args:
    probs: [S, S, P + 1], background first.
    square: x0, y0 and side of the crop, in pixels of the image.
    shape: H, W of the image.

  Returns:
    [H, W, P + 1].
  """
  x0, y0, side = square
  zoom, longer = len(probs) / side, max(shape)
  # The image, grown to a square at its right or lower side, as a square of the map.
  frame = (-x0 * zoom, -y0 * zoom, longer * zoom)
  parts = resample(probs.astype(np.float32), frame, longer, fill=0.0)[: shape[0], : shape[1]]
  parts[..., 0] = np.maximum(1.0 - parts[..., 1:].sum(axis=-1), 0.0)
  return np.ascontiguousarray(parts)


def with_part_maps(dataset: Dataset, store: PartStore) -> Dataset:
  """The data set with a store's part maps on its training images, in place of any other.

  Test images get none: what they are measured against must not come from what is measured.

  Args:
    dataset: whose splits get the parts.
    store: of the part maps, by the examples' names.

  Raises:
    ValueError: when no training image is in the store.
  """
  train = dataset.splits["train"]
  known = set(store.names)
  if not any(train[i].name in known for i in range(len(train))):
    raise ValueError(
      f"the part maps are of other images than {dataset.name}'s, such as {store.names[:1]}"
    )
  channels = store.maps.shape[-1]
  splits = {
    name: Split(
      StoredParts(split, store, range(len(split)) if name == "train" else ()),
      range(len(split)),
      keypoint_flip=split.keypoint_flip,
      part_channels=channels,
    )
    for name, split in dataset.splits.items()
  }
  return dataclasses.replace(dataset, splits=splits, part_names=store.part_names)
