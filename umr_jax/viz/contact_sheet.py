"""Part maps as a person looks at them: many photographs, each beside its parts."""

import pathlib

import numpy as np

from umr_jax.data.dataset import Dataset
from umr_jax.data.part_store import PartStore, write_store
from umr_jax.data.transforms import crop
from umr_jax.viz import panels as viz

# Photographs a sheet shows, and in a row of it.
_SHOWN, _PER_ROW = 48, 6
_CELL = 112


def contact_sheet(dataset: Dataset, store: PartStore) -> np.ndarray:
  """Photographs from all over the training set, each with its part map to the right.

  Every part has one colour throughout the sheet: what is good about parts is that one colour is one
  thing.

  Args:
    dataset: with the photographs.
    store: with the part maps.

  Returns:
    uint8 [H, W, 3].
  """
  rows = {name: row for row, name in enumerate(store.names)}
  split = dataset.splits["train"].subsample(_SHOWN)
  cells: list[np.ndarray] = []
  for i in range(len(split)):
    row = rows.get(split[i].name)
    if row is not None:
      maps = store.probabilities(row)
      x0, y0, side = store.squares[row]
      photograph = crop(split[i], (float(x0), float(y0), float(side)), image_size=_CELL).image
      cells += [photograph, viz.part_map(maps) / np.float32(255.0)]
  wide = 2 * _PER_ROW
  blank = np.ones((_CELL, _CELL, 3), np.float32)
  cells += [blank] * (-len(cells) % wide)
  names = ["photograph", "parts"] * _PER_ROW
  return viz.labelled_grid(
    [cells[i : i + wide] for i in range(0, len(cells), wide)], names, cell=_CELL
  )


def write_parts(workdir: pathlib.Path, dataset: Dataset, store: PartStore) -> None:
  """Writes parts/parts.npz, which --config.data.part_file reads, and parts/sheet.png."""
  write_store(workdir / "parts" / "parts.npz", store)
  viz.save_png(workdir / "parts" / "sheet.png", contact_sheet(dataset, store))
