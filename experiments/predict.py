"""Photographs to textured meshes, with a trained run.

  python -m experiments.predict --workdir=runs/quickstart --images=photos --out=meshes

--images is a file or a folder; masks, if given, are files of the photographs' names. OUT gets, for
each photograph, NAME.glb, NAME.json (cameras and crop) and NAME.png, and an index.html.
"""

import pathlib
from typing import Any

from absl import flags, logging

from experiments import launch
from umr_jax.predict.predictor import load_predictor
from umr_jax.viz.gallery import write_gallery

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "The run, or a checkpoint folder.")
_IMAGES = flags.DEFINE_string("images", "", "A photograph, or a folder of photographs.")
_OUT = flags.DEFINE_string("out", "meshes", "The folder for the results.")
_MASKS = flags.DEFINE_string(
  "masks", "", "A mask, or a folder of them; default: alpha, or all of it."
)
_REFINE_STEPS = flags.DEFINE_integer(
  "refine_steps", None, "Another number of steps of refinement; 0: the network alone.", 0
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Photographs at a time.", lower_bound=1)


def run(
  workdir: pathlib.Path,
  images: pathlib.Path,
  out: pathlib.Path,
  *,
  masks: pathlib.Path | None = None,
  batch_size: int = 8,
  refine_steps: int | None = None,
) -> dict[str, Any]:
  """Writes the results of all photographs that can be read; returns what was done.

  Raises:
    ValueError: if not one could.
  """
  predictor = load_predictor(workdir, batch_size=batch_size, refine_steps=refine_steps)
  gallery = write_gallery(predictor, images, out, masks=masks)
  if not gallery.written:
    name, reason = gallery.skipped[0]
    raise ValueError(f"none of {len(gallery.skipped)} photographs is usable; {name}: {reason}")
  logging.info("%d of %d: %s", len(gallery.written), gallery.total, out / "index.html")
  skipped = [{"image": name, "reason": reason} for name, reason in gallery.skipped]
  return {"out": str(out), "step": predictor.step, "written": gallery.written, "skipped": skipped}


def main() -> dict[str, Any]:
  """Runs what the flags say."""
  if not _IMAGES.value:
    raise launch.UsageError("--images is missing: give a photograph, or a folder of photographs")
  masks = pathlib.Path(_MASKS.value) if _MASKS.value else None
  paths = (pathlib.Path(flag.value) for flag in (_WORKDIR, _IMAGES, _OUT))
  return run(*paths, masks=masks, batch_size=_BATCH_SIZE.value, refine_steps=_REFINE_STEPS.value)


if __name__ == "__main__":
  launch.launch(main)
