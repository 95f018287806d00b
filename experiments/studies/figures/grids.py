"""Figures that are grids of images: results, failures, drawings, templates, ablations."""

import collections
import dataclasses
import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import trimesh
from PIL import Image, ImageDraw, ImageFont

from experiments.studies.ablation_rows import Row, title_of
from umr_jax.config.settings import Config
from umr_jax.data.dataset import evaluation_split, load_dataset
from umr_jax.data.transforms import Crop, CropSpec, crop_about_box
from umr_jax.eval.mask_metrics import hard_mask_iou
from umr_jax.eval.shape_error import spread
from umr_jax.geometry import camera
from umr_jax.predict.predictor import load_predictor
from umr_jax.predict.reconstruction import Reconstruction
from umr_jax.predict.views import four_sides, over_white, shading
from umr_jax.render import hard_rasterize
from umr_jax.viz.gallery import find_photographs
from umr_jax.viz.images import labelled_grid, resized, to_uint8
from umr_jax.viz.panels import overlay, part_map

CELL = 128
_AZIMUTHS = (90.0, 180.0)
_RESULTS = 12  # images of the grid of results
_ROWS = 8  # images of the other grids
_COLUMNS = 4  # images of a row of an ablation, each from the front and turned twice
Color = tuple[int, int, int]  # of 8 bits each


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subjects:
  """A run's unseen images (its training images, where there are none), reconstructed."""

  config: Config
  crops: list[Crop]  # the network's inputs, with masks and keypoints
  reconstructions: list[Reconstruction]
  mask_iou: np.ndarray  # [N], hard, in the crop

  def best_first(self) -> list[int]:
    """Indices of the images, by decreasing mask IoU."""
    return np.argsort(-self.mask_iou, kind="stable").tolist()


def load_subjects(workdir: pathlib.Path, *, limit: int) -> Subjects:
  """Reconstructs images of a run's data, evenly spaced over the split.

  Args:
    workdir: the run.
    limit: of the images.

  Raises:
    FileNotFoundError: if there is no checkpoint in the work directory.
  """
  predictor = load_predictor(workdir)
  config = predictor.config
  dataset = load_dataset(config.data)
  split = dataset.splits[evaluation_split(dataset)].subsample(limit)
  examples = [split[i] for i in range(len(split))]
  spec = CropSpec.from_config(config.data)
  crops = [crop_about_box(e, spec, keypoint_flip=dataset.keypoint_flip) for e in examples]
  # Boxes alone: with a mask, test-time optimisation would fit the mesh to it.
  reconstructions = predictor.batch(
    [example.image for example in examples],
    boxes=[example.box for example in examples],
  )
  scores = hard_mask_iou(
    alpha=jnp.asarray([r.silhouette for r in reconstructions]),
    mask=jnp.asarray([c.mask for c in crops]),
  )
  return Subjects(
    config=config,
    crops=crops,
    reconstructions=reconstructions,
    mask_iou=np.asarray(scores),
  )


def results(subjects: Subjects) -> np.ndarray:
  """A grid of results, evenly spread over the ranks of mask IoU (supplementary 12 to 15)."""
  return _rows(subjects, evenly_spaced(subjects.best_first(), _RESULTS))


def evenly_spaced(items: Sequence[int], count: int) -> list[int]:
  """Items at equal distances, with the first and the last; all of them where they are fewer.

  Args:
    items: to choose from.
    count: how many at most.
  """
  return [items[place] for place in spread(len(items), count)]


def vertex_parts(subjects: Subjects, labels: np.ndarray, *, parts: int) -> np.ndarray:
  """The template's vertices by part, projected by the predicted cameras (supplementary 2).

  Args:
    subjects: the images.
    labels: [V] the part of each vertex, 0 for none.
    parts: P, of which some may have no vertex.
  """
  palette = part_map(np.eye(parts + 1, dtype=np.float32)[None])[0]
  cells, shown = [], subjects.best_first()[:_ROWS]
  for i in shown:
    one, crop = subjects.reconstructions[i], subjects.crops[i]
    projected = np.asarray(camera.project(jnp.asarray(one.template), jnp.asarray(one.camera)))
    given = np.ones_like(crop.image) if crop.parts is None else part_map(crop.parts)
    # The nearest last, and only vertices that belong to a part.
    order = np.argsort(-projected[:, 2])
    order = order[labels[order] > 0]
    colors = [tuple(palette[label].tolist()) for label in labels[order]]
    points = with_points(one.image, projected[order, :2], colors, radius=2, size=CELL)
    row = [one.image, given, points]
    if one.part_probs is not None:
      row.append(part_map(one.part_probs))
    cells.append(row)
  names = ["input", "its parts", "template's vertices", "rendered parts"][: len(cells[0])]
  return labelled_grid(cells, names, cell=CELL)


def with_points(
  image: np.ndarray,
  points: np.ndarray,
  colors: Sequence[Color],
  *,
  radius: int,
  size: int,
  outline: str | None = None,
) -> np.ndarray:
  """An image with a disc for each point, later ones over earlier ones.

  Args:
    image: [S, S, 3].
    points: [N, 2] in [-1, 1] of the image.
    colors: of each point.
    radius: of the discs, in pixels.
    size: pixels of a side of the result.
    outline: colour of the discs' outlines; by default they have none.

  Returns:
    uint8 [size, size, 3].
  """
  canvas = Image.fromarray(to_uint8(resized(image, size)))
  pen = ImageDraw.Draw(canvas)
  for (x, y), color in zip((points + 1.0) / 2.0 * size, colors, strict=True):
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), color, outline)
  return np.asarray(canvas)


def unseen_views(folder: pathlib.Path, rows: Mapping[str, Row]) -> np.ndarray:
  """Views of reconstructions by the rows of an ablation that no image shows (supplementary 10).

  Args:
    folder: the ablation's runs, FOLDER/ROW/SEED. One seed is shown, the first of those that most
      rows have finished.
    rows: by their names; those without a finished run of that seed are left out.

  Raises:
    FileNotFoundError: if there is no finished run of any row.
  """
  ended = (path.parent for path in folder.glob("*/*/evaluation.json"))
  runs = {(run.parent.name, run.name) for run in ended if (run / "checkpoints").is_dir()}
  finished = collections.Counter(seed for name, seed in sorted(runs) if name in rows)
  if not finished:
    raise FileNotFoundError(f"{folder} holds no finished run of {', '.join(rows)}")
  seed = max(sorted(finished), key=lambda seed: finished[seed])
  cells, names = [], []
  for name in (name for name in rows if (name, seed) in runs):
    subjects = load_subjects(folder / name / seed, limit=_COLUMNS)
    cells.append([view for one in subjects.reconstructions for view in _views(one)[2:5]])
    names.append(title_of(rows[name], subjects.config))
  columns = [*(["textured", *(f"turned {a:g}" for a in _AZIMUTHS)] * _COLUMNS)]
  return labelled_rows(cells, columns, names)


def labelled_rows(
  cells: Sequence[Sequence[np.ndarray]], columns: Sequence[str], names: Sequence[str]
) -> np.ndarray:
  """A grid whose rows have names, too, written into a first column.

  Args:
    cells: the rows of images [S, S, 3].
    columns: names of the columns; those past the first row's length are left out.
    names: of the rows.

  Returns:
    uint8 [H, W, 3].
  """
  rows = []
  for name, row in zip(names, cells, strict=True):
    page = Image.new("RGB", (CELL, CELL), "white")
    text = textwrap.fill(name, 16, break_long_words=False, break_on_hyphens=False)
    ImageDraw.Draw(page).multiline_text((6, 6), text, "black", ImageFont.load_default(13))
    rows.append([np.asarray(page), *row])
  return labelled_grid(rows, ["", *columns[: len(cells[0])]], cell=CELL)


def failures(subjects: Subjects) -> np.ndarray:
  """The images of lowest mask IoU (supplementary 8)."""
  return _rows(subjects, subjects.best_first()[::-1][:_ROWS])


def _rows(subjects: Subjects, chosen: Sequence[int]) -> np.ndarray:
  cells = []
  for i in chosen:
    mask = np.repeat(subjects.crops[i].mask[..., None], 3, axis=-1)
    cells.append(
      [subjects.reconstructions[i].image, mask, *_views(subjects.reconstructions[i])[1:]]
    )
  return labelled_grid(
    cells, ["input", "mask", *_names(subjects.reconstructions[0])[1:]], cell=CELL
  )


def drawings(workdir: pathlib.Path, folder: pathlib.Path) -> np.ndarray:
  """Images of another domain, such as drawings and paintings, a row each (supplementary 1).

  Args:
    workdir: the run.
    folder: the images.
  """
  found = load_predictor(workdir).batch(list(find_photographs(folder).values()))
  return labelled_grid([_views(one) for one in found], _names(found[0]), cell=CELL)


def _views(one: Reconstruction) -> list[np.ndarray]:
  """The crop, the outline on it, the textured mesh from three sides, and its parts, if known."""
  turned = [over_white(one.render(image_size=CELL, azimuth=angle)) for angle in (0.0, *_AZIMUTHS)]
  parts = [] if one.part_probs is None else [part_map(one.part_probs)]
  return [one.image, overlay(one.image, one.silhouette), *turned, *parts]


def _names(one: Reconstruction) -> list[str]:
  parts = [] if one.part_probs is None else ["parts"]
  return ["input", "outline", "textured", *(f"turned {a:g}" for a in _AZIMUTHS), *parts]


def templates(workdir: pathlib.Path) -> np.ndarray:
  """The template of each round, from four sides (supplementary 7)."""
  folders = [f for f in (workdir / "rounds").iterdir() if (f / "template.glb").is_file()]
  folders.sort(key=lambda folder: int(folder.name))
  cells = [list(_mesh_views(folder / "template.glb")) for folder in folders]
  return labelled_grid(cells, ["template", "turned 90", "turned 180", "turned 270"], cell=CELL)


def _mesh_views(path: pathlib.Path) -> np.ndarray:
  """A GLB in grey from four sides: [4, S, S, 3]."""
  mesh = trimesh.load_mesh(path, process=False)
  # A file's y is up: (x, y, z) was written as (x, z, -y).
  vertices, normals = (
    np.asarray(rows)[:, [0, 2, 1]] * np.array([[1.0, -1.0, 1.0]])
    for rows in (mesh.vertices, mesh.vertex_normals)
  )
  cameras, faces = four_sides(vertices), np.asarray(mesh.faces)
  meshes = jnp.asarray(np.stack([vertices] * 4), jnp.float32)
  projected = camera.project(meshes, jnp.asarray(cameras))
  colors = jnp.asarray(shading(np.stack([normals] * 4), cameras)[:, faces], jnp.float32)
  corners = camera.face_vertices(projected, faces)
  view = hard_rasterize(corners, colors, image_size=CELL, texture_type="vertex", antialias=3)
  return over_white(np.clip(np.asarray(view), 0.0, 1.0))
