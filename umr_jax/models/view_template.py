"""What an image's features tell of its view: a posterior over a grid of views.

The category is a shape of coarse voxels that carry features. What it shows in each view is compared
with the features of the image that the network's frozen encoder has made anyway: a look-up and a
matrix product.

Source: Scheres 2012 (RELION), whose images of unknown views have such posteriors, in cryo-electron
  microscopy. Departs: Li et al. 2020 have probabilities of a few hypotheses, which the network
  predicts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from umr_jax.geometry.camera import Camera
from umr_jax.models.framed_images import (
  FramedImages,
  center_and_side,
  frame_images,
  project_features,
)
from umr_jax.types import ViewTemplate, checked

# Weight of the silhouette beside the features: it changes with shape and posture, too.
_SILHOUETTE = 0.2
# Scores are sums over the pixels of a frame of this many, whatever its own size.
PIXELS = 24**2
# The probability of an image's credible region.
REGION = 0.9
# Views within this many degrees of the best one belong to one mode of a posterior.
MODE_DEGREES = 40.0


def channel_weights(channels: int) -> Float[Array, "C1"]:
  """Of the features, and of the silhouette last.

  Args:
    channels: C + 1.
  """
  return jnp.ones(channels).at[-1].set(_SILHOUETTE)


@checked
def render_features(
  features: Float[Array, "R R R C"], voxels: Int[Array, "K S S"]
) -> Float[Array, "K S S C1"]:
  """The features of voxels at the pixels that show them, and the silhouette last.

  Args:
    features: of all voxels.
    voxels: the first occupied one on each pixel's ray, or -1.
  """
  shown = (voxels >= 0).astype(features.dtype)[..., None]
  table = features.reshape(-1, features.shape[-1])
  return jnp.concatenate([shown * jnp.take(table, jnp.maximum(voxels, 0), axis=0), shown], axis=-1)


@checked
def compare_views(
  images: FramedImages, features: Float[Array, "R R R C"], voxels: Int[Array, "K S S"]
) -> Float[Array, "K N"]:
  """Half of what each view takes off the weighted squared residual of each image.

  Args:
    images: in their frames.
    features: of all voxels.
    voxels: what each view shows.
  """
  views = render_features(features, voxels)
  weighted = (views * channel_weights(views.shape[-1])[None, None, None]).reshape(len(voxels), -1)
  norm = jnp.sum(weighted * views.reshape(weighted.shape), axis=1, keepdims=True)
  return (weighted @ images.flat.T - 0.5 * norm) * (PIXELS / images.size**2)


@checked
def view_logits(
  template: ViewTemplate, maps: Float[Array, "B h w F"], masks: Float[Array, "B H W"]
) -> Float[Array, "B K"]:
  """The logarithms of the views' posterior at temperature 1, up to a constant.

  Args:
    template: of the category.
    maps: of the frozen encoder, at its coarsest resolution.
    masks: silhouettes of the same crops.
  """
  channels = project_features(template.projection, maps)
  framed = frame_images(channels, masks, size=template.voxels.shape[1])
  scores = compare_views(framed, template.features, template.voxels.astype(jnp.int32))
  return scores.T + template.log_prior[None]


@checked
def view_probabilities(
  template: ViewTemplate, maps: Float[Array, "B h w F"], masks: Float[Array, "B H W"]
) -> Float[Array, "B K"]:
  """The posterior over the template's views.

  Args:
    template: of the category.
    maps: of the frozen encoder, at its coarsest resolution.
    masks: silhouettes of the same crops.
  """
  return jax.nn.softmax(view_logits(template, maps, masks) / template.temperature, axis=-1)


@checked
def view_cameras(template: ViewTemplate, masks: Float[Array, "B H W"]) -> Float[Array, "B K 7"]:
  """The cameras under which the template is at an image's silhouette, one for each view.

  Args:
    template: of the category.
    masks: silhouettes.
  """
  center, side = center_and_side(masks)
  scale = side[:, None] / template.sides[None]
  translation = center[:, None] - scale[..., None] * template.centers[None]
  rotations = jnp.broadcast_to(template.rotations, (*scale.shape, 4))
  return Camera(scale, translation, rotations).pack()


@checked
def credible_region(probs: Float[np.ndarray, "*B K"], share: float) -> Bool[np.ndarray, "*B K"]:
  """The fewest views that together have a share of the probability.

  Args:
    probs: of the views.
    share: between 0 and 1.
  """
  order = np.argsort(-probs, axis=-1, kind="stable")
  ranked = np.take_along_axis(probs, order, axis=-1)
  # A view belongs to it if those before it do not reach the share.
  within = np.cumsum(ranked, axis=-1) - ranked < share
  region = np.zeros(probs.shape, bool)
  np.put_along_axis(region, order, within, axis=-1)
  return region
