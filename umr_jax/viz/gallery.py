"""A folder of photographs to a folder of meshes, with a page that shows them all."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator

from absl import logging

from umr_jax.data.example import Example
from umr_jax.data.image_files import IMAGE_SUFFIXES, list_files
from umr_jax.data.threads import ordered_map
from umr_jax.files import write_text
from umr_jax.predict.inputs import as_example
from umr_jax.predict.predictor import Predictor, load_predictor
from umr_jax.predict.reconstruction import Reconstruction
from umr_jax.types import Report
from umr_jax.viz.images import save_png
from umr_jax.viz.pages import render_page
from umr_jax.viz.panels import prediction_strip

_SIDES = (90.0, 180.0, 270.0)
_CELL = 192


@dataclasses.dataclass(frozen=True)
class Gallery:
  """The outcome for a folder of photographs."""

  written: list[str]  # names, in order
  skipped: list[tuple[str, str]]  # file name and reason

  @property
  def total(self) -> int:
    """How many photographs there were."""
    return len(self.written) + len(self.skipped)


def predict_folder(
  workdir: pathlib.Path,
  images: pathlib.Path,
  out: pathlib.Path,
  *,
  masks: pathlib.Path | None = None,
  batch_size: int = 8,
  refine_steps: int | None = None,
) -> Report:
  """Writes the meshes of all photographs that can be read; returns what was done.

  Args:
    workdir: the run, or a checkpoint folder.
    images: a photograph, or a folder of them.
    out: where the results go.
    masks: a mask, or a folder of them, by the photographs' names.
    batch_size: photographs at a time; changes only memory and time.
    refine_steps: of test-time optimisation, in place of the run's.

  Raises:
    ValueError: if not one photograph could be read.
  """
  predictor = load_predictor(workdir, batch_size=batch_size, refine_steps=refine_steps)
  gallery = write_gallery(predictor, images, out, masks=masks)
  if not gallery.written:
    name, reason = gallery.skipped[0]
    raise ValueError(f"none of {len(gallery.skipped)} photographs is usable; {name}: {reason}")
  logging.info("%d of %d: %s", len(gallery.written), gallery.total, out / "index.html")
  skipped = [{"image": name, "reason": reason} for name, reason in gallery.skipped]
  return {"out": str(out), "step": predictor.step, "written": gallery.written, "skipped": skipped}


def find_photographs(path: pathlib.Path) -> dict[str, pathlib.Path]:
  """The photographs at a path, by the name that their results will have.

  Args:
    path: one file, or a folder, of which the image files are taken in order of their names.

  Returns:
    Name to file. The name is the file's without its suffix, unless two share it.

  Raises:
    FileNotFoundError: if nothing is there, or no image file.
  """
  if path.is_file():
    return {path.stem: path}
  if not path.is_dir():
    raise FileNotFoundError(f"no file or folder {path}: expected a photograph, or a folder of them")
  taken: list[tuple[str, str]] = []
  found = list_files(path, IMAGE_SUFFIXES, taken)
  if not found:
    suffixes = ", *".join(IMAGE_SUFFIXES)
    raise FileNotFoundError(f"no photograph in {path}: expected files *{suffixes}")
  return found | {name.replace(".", "_"): path / name for name, _ in taken}


def write_gallery(
  predictor: Predictor,
  images: pathlib.Path,
  out: pathlib.Path,
  *,
  masks: pathlib.Path | None = None,
) -> Gallery:
  """Reconstructs photographs and writes, for each, NAME.glb, NAME.json and NAME.png; and a page.

  NAME.png shows the crop, the predicted outline over it, and the mesh turned by 90, 180 and 270
  degrees. `index.html` shows them all and refers to nothing outside the folder.

  Args:
    predictor: the trained network.
    images: a photograph or a folder of them.
    out: the folder for the results; made if it does not exist.
    masks: a mask's file for one photograph, or a folder with a file of each photograph's name;
      None takes the photographs' own alpha, or the whole image.

  Returns:
    What was written, and what was skipped and why: unreadable files and missing masks stop nothing.

  Raises:
    FileNotFoundError: if there is no photograph at all, or no `masks`.
    ValueError: if the results would be written among the inputs, or for one mask for a folder.
  """
  found = find_photographs(images)
  if masks is not None and not masks.exists():
    raise FileNotFoundError(f"no file or folder {masks}: expected masks as PNG files")
  if masks is not None and masks.is_file() and images.is_dir():
    raise ValueError(
      f"{masks} is one mask, but {images} is a folder: give a folder of masks with the names of "
      "the photographs"
    )
  sources = [path if path.is_dir() else path.parent for path in (images, masks) if path]
  if any(source.resolve() == out.resolve() for source in sources):
    raise ValueError(f"the results would overwrite the images in {out}: choose another folder")
  out.mkdir(parents=True, exist_ok=True)
  names: list[str] = []
  skipped: list[tuple[str, str]] = []

  def usable() -> Iterator[Example]:
    for (name, file), read in zip(found.items(), ordered_map(read_one, found.items()), strict=True):
      if isinstance(read, Example):
        names.append(name)
        yield read
      else:
        logging.warning("skipped %s: %s", file.name, read)
        skipped.append((file.name, read))

  def read_one(item: tuple[str, pathlib.Path]) -> Example | str:
    try:
      return as_example(item[1], mask=_mask_of(item[1], masks))
    except (ValueError, OSError) as error:
      return str(error)

  for index, reconstruction in enumerate(predictor.stream(usable())):
    _write_one(out, names[index], reconstruction)
    logging.log_every_n(logging.INFO, "%d of %d photographs", 50, index + 1, len(found))
  write_text(out / "index.html", render_page("gallery.html", written=names, skipped=skipped))
  return Gallery(names, skipped)


def _mask_of(image: pathlib.Path, masks: pathlib.Path | None) -> pathlib.Path | None:
  if masks is None or masks.is_file():
    return masks
  for suffix in (".png", *IMAGE_SUFFIXES):
    for candidate in (masks / (image.stem + suffix), masks / (image.stem + suffix.upper())):
      if candidate.is_file():
        return candidate
  raise ValueError(f"no mask {image.stem}.png in {masks}")


def _write_one(out: pathlib.Path, name: str, reconstruction: Reconstruction) -> None:
  # Joined by hand: `with_suffix` would shorten a name like "a.b".
  reconstruction.export(out / f"{name}.glb")
  description = {
    "camera": reconstruction.camera.tolist(),
    "cameras": reconstruction.cameras.tolist(),
    "camera_probs": reconstruction.camera_probs.tolist(),
    "box": list(reconstruction.box),
    "image_size": len(reconstruction.silhouette),
    "step": reconstruction.step,
    "glb": f"{name}.glb",
  }
  if reconstruction.view_probs is not None:
    description["views"] = [
      {"probability": mode.probability, "camera": mode.camera.tolist()}
      for mode in reconstruction.view_modes()
    ]
  write_text(out / f"{name}.json", json.dumps(description, indent=1))
  views = [reconstruction.render(_CELL, azimuth) for azimuth in _SIDES]
  strip = prediction_strip(
    reconstruction.image, reconstruction.silhouette, views, cell=_CELL, azimuths=_SIDES
  )
  save_png(out / f"{name}.png", strip)
