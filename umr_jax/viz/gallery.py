"""A folder of photographs to a folder of meshes, with a page to look at them."""

import dataclasses
import html
import json
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence

from absl import logging

from umr_jax.data.example import Example
from umr_jax.data.threads import ordered_map
from umr_jax.files import write_text
from umr_jax.predict.inputs import read_photograph
from umr_jax.predict.predictor import Predictor
from umr_jax.predict.reconstruction import Reconstruction
from umr_jax.viz import panels as viz

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SIDES = (90.0, 180.0, 270.0)
_CELL = 192


@dataclasses.dataclass(frozen=True)
class Gallery:
  """What became of a folder of photographs."""

  written: list[str]  # names, in order
  skipped: list[tuple[str, str]]  # file name and reason

  @property
  def total(self) -> int:
    """How many photographs there were."""
    return len(self.written) + len(self.skipped)


def find_photographs(path: pathlib.Path) -> dict[str, pathlib.Path]:
  """The photographs that a path stands for, by the name that their results will have.

  Args:
    path: one file, or a folder, of which the picture files are taken in order of their names.

  Returns:
    Name to file. The name is the file's without its suffix, unless two share it.

  Raises:
    FileNotFoundError: if nothing is there, or no picture.
  """
  if path.is_file():
    return {path.stem: path}
  if not path.is_dir():
    raise FileNotFoundError(f"no file or folder {path}: expected a photograph, or a folder of them")
  files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
  if not files:
    raise FileNotFoundError(f"no photograph in {path}: expected files *{', *'.join(SUFFIXES)}")
  found: dict[str, pathlib.Path] = {}
  for file in files:
    found[file.name.replace(".", "_") if file.stem in found else file.stem] = file
  return found


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
      None takes the photographs' own alpha, or all of the picture.

  Returns:
    What was written, and what was skipped and why: unreadable files and missing masks stop nothing.

  Raises:
    FileNotFoundError: if there is no photograph at all, or no `masks`.
    ValueError: if the results would be written among the inputs.
  """
  found = find_photographs(images)
  if masks is not None and not masks.exists():
    raise FileNotFoundError(f"no file or folder {masks}: expected masks as PNG files")
  sources = [path if path.is_dir() else path.parent for path in (images, masks) if path]
  if any(source.resolve() == out.resolve() for source in sources):
    raise ValueError(f"the results would overwrite the pictures in {out}: choose another folder")
  out.mkdir(parents=True, exist_ok=True)
  gallery = Gallery([], [])
  names: list[str] = []

  def usable() -> Iterator[Example]:
    for (name, file), read in zip(found.items(), ordered_map(read_one, found.items()), strict=True):
      if isinstance(read, Example):
        names.append(name)
        yield read
      else:
        logging.warning("skipped %s: %s", file.name, read)
        gallery.skipped.append((file.name, read))

  def read_one(item: tuple[str, pathlib.Path]) -> Example | str:
    try:
      return read_photograph(item[1], _mask_of(item[1], masks))
    except (ValueError, OSError) as error:
      return str(error)

  for index, reconstruction in enumerate(predictor.stream(usable())):
    _write_one(out, names[index], reconstruction)
    gallery.written.append(names[index])
    logging.log_every_n(logging.INFO, "%d of %d photographs", 50, index + 1, len(found))
  write_text(out / "index.html", _page(gallery))
  return gallery


def _mask_of(image: pathlib.Path, masks: pathlib.Path | None) -> pathlib.Path | None:
  if masks is None or masks.is_file():
    return masks
  for suffix in (".png", *SUFFIXES):
    for candidate in (masks / (image.stem + suffix), masks / (image.stem + suffix.upper())):
      if candidate.is_file():
        return candidate
  raise ValueError(f"no mask {image.stem}.png in {masks}")


def _write_one(out: pathlib.Path, name: str, reconstruction: Reconstruction) -> None:
  # Joined by hand: `with_suffix` would cut a name like "a.b".
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
  write_text(out / f"{name}.json", json.dumps(description, indent=1))
  views = [reconstruction.render(_CELL, azimuth) for azimuth in _SIDES]
  strip = viz.prediction_strip(
    reconstruction.image, reconstruction.silhouette, views, cell=_CELL, azimuths=_SIDES
  )
  viz.save_png(out / f"{name}.png", strip)


_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 24px; color: #222; background: #fafafa; }
main { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); }
figure { margin: 0; padding: 10px; background: #fff; border: 1px solid #ddd; border-radius: 6px; }
img { width: 100%; display: block; }
figcaption { margin-top: 6px; overflow-wrap: anywhere; }
"""


def _page(gallery: Gallery) -> str:
  figures = [_figure(name) for name in gallery.written]
  skipped = _skipped(gallery.skipped)
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>Reconstructions</title><style>{_STYLE}</style></head>\n<body>"
    f"<h1>{len(figures)} reconstructions</h1>\n<main>\n" + "\n".join(figures) + "\n</main>\n"
    f"{skipped}</body></html>\n"
  )


def _figure(name: str) -> str:
  text, link = html.escape(name), html.escape(urllib.parse.quote(name))
  return (
    f'<figure><a href="{link}.png"><img src="{link}.png" alt="{text}" loading="lazy"></a>'
    f'<figcaption>{text}: <a href="{link}.glb">mesh</a>, <a href="{link}.json">camera</a>'
    "</figcaption></figure>"
  )


def _skipped(skipped: Sequence[tuple[str, str]]) -> str:
  if not skipped:
    return ""
  lines = "".join(f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in skipped)
  return f"<h2>{len(skipped)} skipped</h2><ul>{lines}</ul>\n"
