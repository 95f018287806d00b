"""The contact sheet of discovered parts: many images, each beside its part map."""

import pathlib

import numpy as np

from umr_jax.data.dataset import Dataset
from umr_jax.data.part_store import PartStore, write_store
from umr_jax.data.transforms import crop
from umr_jax.viz.images import labelled_grid, save_png
from umr_jax.viz.panels import part_map

_SHOWN, _PER_ROW = 48, 6  # images of a sheet, and of a row of it
_CELL = 112


def contact_sheet(dataset: Dataset, store: PartStore) -> np.ndarray:
  """Images from all over the training set, each with its part map to the right.

  A part has one colour throughout the sheet, so that parts are consistent where a colour stays on
  one region of the object.

  Args:
    dataset: with the images.
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
      x0, y0, side = (float(value) for value in store.squares[row])
      cells.append(crop(split[i], (x0, y0, side), image_size=_CELL).image)
      cells.append(part_map(store.probabilities(row)))
  columns = 2 * _PER_ROW
  blank = np.ones((_CELL, _CELL, 3), np.float32)
  cells += [blank] * (-len(cells) % columns)
  grid = [cells[i : i + columns] for i in range(0, len(cells), columns)]
  return labelled_grid(grid, ["image", "parts"] * _PER_ROW, cell=_CELL)


def write_parts(workdir: pathlib.Path, dataset: Dataset, store: PartStore) -> None:
  """Writes parts/parts.npz, which --config.data.part_file reads, and parts/sheet.png.

  Args:
    workdir: of the run.
    dataset: with the images.
    store: with the part maps.
  """
  write_store(workdir / "parts" / "parts.npz", store)
  save_png(workdir / "parts" / "sheet.png", contact_sheet(dataset, store))
