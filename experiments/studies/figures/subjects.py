"""What figures are drawn of: a run's reconstructions of its images, best and worst known."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np

from umr_jax.config.settings import Config
from umr_jax.data.dataset import Dataset, evaluation_split, load_dataset
from umr_jax.data.transforms import Crop, CropSpec, crop_about_box
from umr_jax.eval.mask_iou import hard_mask_iou
from umr_jax.predict.predictor import load_predictor
from umr_jax.predict.reconstruction import Reconstruction


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subjects:
  """A run's unseen images (its training images, where there are none) and what it makes of them."""

  workdir: pathlib.Path
  config: Config
  dataset: Dataset
  crops: list[Crop]  # the squares that the network saw, with masks and keypoints
  reconstructions: list[Reconstruction]
  mask_iou: np.ndarray  # [N], hard, in the crop

  def best_first(self) -> list[int]:
    """The images by falling mask IoU."""
    return np.argsort(-self.mask_iou, kind="stable").tolist()


def load_subjects(workdir: pathlib.Path, *, limit: int) -> Subjects:
  """Reconstructs at most `limit` images of a run's data, evenly spaced.

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
  # By their boxes alone: a known mask would be what the meshes are fitted to.
  reconstructions = predictor.batch(
    [example.image for example in examples],
    boxes=[example.box for example in examples],
  )
  scores = hard_mask_iou(
    alpha=jnp.asarray([r.silhouette for r in reconstructions]),
    mask=jnp.asarray([c.mask for c in crops]),
  )
  return Subjects(
    workdir=workdir,
    config=config,
    dataset=dataset,
    crops=crops,
    reconstructions=reconstructions,
    mask_iou=np.asarray(scores),
  )
