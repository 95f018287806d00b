"""From images to reconstructions: a checkpoint's network with everything that surrounds it."""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from umr_jax.data.example import Example
from umr_jax.data.transforms import crop, square_box
from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.models.assemble import uv_parts_to_texels, uv_texture
from umr_jax.models.infer import Inference, TrainedModel, load_model, texture_flow
from umr_jax.predict.inputs import Image, Path, as_example
from umr_jax.predict.reconstruction import Reconstruction as Reconstruction
from umr_jax.predict.test_time import KnownMasks, make_infer, with_steps
from umr_jax.predict.transfer import transfer_keypoints as transfer_keypoints
from umr_jax.render import soft_rasterize, soft_silhouette
from umr_jax.types import Model

# Rows of exported textures, and pixels of the crop that they are read from: an image usually has
# more pixels than the network reads.
TEXTURE_HEIGHT = 256


class Predictor:
  """A trained network with what turns its output into reconstructions.

  A single image and a batch have one compiled shape each, compiled on first use: `batch` takes
  `batch_size` images at a time and fills up the last time.
  """

  def __init__(
    self, trained: TrainedModel, *, batch_size: int = 8, refine_steps: int | None = None
  ):
    """Builds the network; `load_predictor` is the usual way.

    Args:
      trained: what a checkpoint holds.
      batch_size: images that go through the network at a time.
      refine_steps: as in `load_predictor`.
    """
    if batch_size < 1:
      raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    self.config = with_steps(trained.config, refine_steps)
    self.step = trained.step
    self.batch_size = batch_size
    self.topology = trained.model.topology
    half = jnp.asarray(trained.model.template.half_vertices)
    self.template = np.asarray(symmetrize(half, num_center=self.topology.num_center))
    self._model = jax.device_put(trained.model)
    self._infer = jax.jit(make_infer(self.config.at_round(trained.round)))

  def __call__(
    self, image: Image, mask: ArrayLike | None = None, box: ArrayLike | None = None
  ) -> Reconstruction:
    """Reconstructs one image.

    Args:
      image: [H, W, 3] of uint8 or of floats in [0, 1], also [H, W] or [H, W, 4]; or a file's path.
      mask: [H, W], where the object is; by default the image's alpha channel, if it has one. It
        gives the box, and test-time optimisation fits the mesh to it rather than to the network's.
      box: (x0, y0, x1, y1) of the object in pixels; by default the mask's, or else all.

    Raises:
      ValueError: for an input that cannot be used, saying why; or if the network predicts NaN.
    """
    return self._run([as_example(image, mask=mask, box=box)], rows=1)[0]

  def batch(
    self,
    images: Iterable[Image],
    masks: Sequence[ArrayLike | None] | None = None,
    boxes: Sequence[ArrayLike | None] | None = None,
  ) -> list[Reconstruction]:
    """Reconstructs any number of images of any sizes, in order.

    Args:
      images: as in a call.
      masks: one for each image, or None; by default none.
      boxes: one for each image, or None; by default none.

    Raises:
      ValueError: for an input that cannot be used, saying which and why, before anything runs.
    """
    if isinstance(images, (str, os.PathLike)) or (hasattr(images, "ndim") and images.ndim < 4):
      raise ValueError("expected a sequence of images, got one: wrap it in a list, or call with it")
    listed = list(images)
    for name, given in (("masks", masks), ("boxes", boxes)):
      if given is not None and len(given) != len(listed):
        raise ValueError(f"found {len(given)} {name} for {len(listed)} images; give one each")
    examples = [
      as_example(
        image,
        mask=None if masks is None else masks[i],
        box=None if boxes is None else boxes[i],
        name=f"image {i}",
      )
      for i, image in enumerate(listed)
    ]
    return list(self.stream(examples))

  def stream(self, examples: Iterable[Example]) -> Iterator[Reconstruction]:
    """Reconstructs images one after the other, reading no more than `batch_size` of them ahead.

    Args:
      examples: from `inputs.as_example`.

    Raises:
      ValueError: if the network predicts NaN.
    """
    remaining = iter(examples)
    chunk = list(itertools.islice(remaining, self.batch_size))
    rows = 1 if len(chunk) == 1 else self.batch_size
    while chunk:
      yield from self._run(chunk, rows=rows)
      chunk = list(itertools.islice(remaining, self.batch_size))

  def finish(
    self, examples: Sequence[Example], images: np.ndarray, found: Inference
  ) -> list[Reconstruction]:
    """Reconstructions of images for which the network's prediction is known.

    Args:
      examples: the images.
      images: [B, S, S, 3], the crops that the network read; rows beyond the examples fill up B.
      found: what it predicted of the crops.

    Raises:
      ValueError: for a prediction that is not finite.
    """
    padding = self.config.data.padding
    squares = [square_box(example.box, padding=padding) for example in examples]
    sharp = images
    if images.shape[1] < TEXTURE_HEIGHT:
      sharp = _stacked(
        [
          crop(example, square, image_size=TEXTURE_HEIGHT).image
          for example, square in zip(examples, squares, strict=True)
        ],
        rows=len(images),
      )
    fields = jax.device_get(
      _fields(self._model, jnp.asarray(sharp), found, image_size=images.shape[1])
    )
    if not np.isfinite(fields["vertices"][: len(examples)]).all():
      raise ValueError(f"the network of step {self.step} predicts NaN: its training failed")
    # Copies: a view of one row would keep the whole batch in memory.
    return [
      Reconstruction(
        **jax.tree.map(lambda rows, i=i: rows[i].copy(), fields),
        faces=self.topology.outward_faces,
        box=(x0, y0, x0 + side, y0 + side),
        image=images[i].copy(),
        template=self.template,
        topology=self.topology,
        step=self.step,
      )
      for i, (x0, y0, side) in enumerate(squares)
    ]

  def _run(self, examples: list[Example], *, rows: int) -> list[Reconstruction]:
    """At most `rows` reconstructions, through the compiled shape of so many."""
    size, padding = self.config.data.image_size, self.config.data.padding
    crops = [
      crop(example, square_box(example.box, padding=padding), image_size=size)
      for example in examples
    ]
    images, masks, known = (
      _stacked(column, rows=rows)
      for column in (
        [found.image for found in crops],
        [found.mask for found in crops],
        [example.has_mask for example in examples],
      )
    )
    given = KnownMasks(jnp.asarray(masks), jnp.asarray(known))
    return self.finish(examples, images, self._infer(self._model, jnp.asarray(images), given))


def _stacked(column: Sequence[ArrayLike], *, rows: int) -> np.ndarray:
  """One array of all, the first repeated at its end up to a number of rows."""
  return np.stack([*column, *[column[0]] * (rows - len(column))])


@functools.partial(jax.jit, static_argnames="image_size")
def _fields(model: Model, sharp: jax.Array, found: Inference, *, image_size: int) -> dict[str, Any]:
  """The fields of B `Reconstruction`s that a prediction decides.

  Args:
    model: that predicted.
    sharp: the squares that the network read, with the pixels that the texture is made of.
    found: its prediction.
    image_size: S, of the silhouettes and part maps.
  """
  topology = model.topology
  corners = camera_lib.project_faces(found.vertices, found.camera, topology.faces)
  probs = None
  if model.canonical_uv is None:
    silhouette = soft_silhouette(corners, image_size=image_size, antialias=2)
  else:
    parts = uv_parts_to_texels(jnp.asarray(model.canonical_uv), topology)
    texels = jnp.broadcast_to(parts, (len(corners), *parts.shape))
    background = jnp.eye(parts.shape[-1], dtype=jnp.float32)[0]
    rendered = soft_rasterize(
      corners, texels, image_size=image_size, background=background, antialias=2
    )
    silhouette, alpha = rendered[..., -1], rendered[..., -1:]
    probs = jnp.clip(rendered[..., :-1], 0.0, 1.0) * alpha
    probs = probs + background[None, None, None] * (1.0 - alpha)
    probs = probs / jnp.sum(probs, axis=-1, keepdims=True)
  flow = texture_flow(found, topology, height=TEXTURE_HEIGHT)
  texture = jnp.clip(uv_texture(sharp, flow), 0.0, 1.0)
  return {
    "vertices": found.vertices,
    "camera": found.camera,
    "cameras": found.cameras,
    "camera_probs": found.camera_probs,
    "view_cameras": found.view_cameras,
    "view_probs": found.view_probs,
    "silhouette": silhouette,
    "part_probs": probs,
    "texture": jnp.round(texture * 255.0).astype(jnp.uint8),
    "flow": flow,
    "flow_map": found.flow_map,
  }


def load_predictor(
  path: Path, *, batch_size: int = 8, refine_steps: int | None = None
) -> Predictor:
  """A predictor from a work directory, its `checkpoints` folder, or one step's folder.

  Args:
    path: where; nothing else is needed, the checkpoint holds its own configuration.
    batch_size: images that go through the network at a time in `Predictor.batch`.
    refine_steps: in how many steps of test-time optimisation meshes are fitted to the silhouettes
      that the network predicts; 0 for one pass of the network alone. By default as in the run's
      config.

  Raises:
    FileNotFoundError: if no checkpoint is there.
    CheckpointError: if every one is damaged.
    ValueError: for `refine_steps` where the network predicts no silhouettes.
  """
  return Predictor(load_model(path), batch_size=batch_size, refine_steps=refine_steps)


def predict(
  images: Iterable[Image],
  checkpoint: Path | Predictor,
  *,
  masks: Sequence[ArrayLike | None] | None = None,
  boxes: Sequence[ArrayLike | None] | None = None,
) -> list[Reconstruction]:
  """Images to reconstructions in one call.

  Args:
    images: arrays or paths of files, any number, any sizes; see `Predictor`.
    checkpoint: a work directory or checkpoint folder, or a predictor already loaded.
    masks: one for each image, or None.
    boxes: one for each image, or None.
  """
  predictor = checkpoint if isinstance(checkpoint, Predictor) else load_predictor(checkpoint)
  return predictor.batch(images, masks=masks, boxes=boxes)
