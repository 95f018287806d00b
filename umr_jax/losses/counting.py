"""How much every term, and every camera hypothesis, counts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.config.settings import LossConfig
from umr_jax.losses.entropy import responsibilities
from umr_jax.random import per_image_keys
from umr_jax.types import checked


@checked
def sample_hypothesis(
  logits: Float[Array, "B K"], index: Int[Array, "B"], key: PRNGKeyArray
) -> Int[Array, "B"]:
  """A camera hypothesis per image, drawn with its probability under the image's own key.

  Source: Li et al. 2020, supplementary 2.2; Insafutdinov and Dosovitskiy 2018.
  """
  keys = per_image_keys(key, index)
  return jax.vmap(jax.random.categorical)(keys, logits)


def weigh_hypotheses(
  values: Float[Array, "B K"], logits: Float[Array, "B K"], weights: LossConfig
) -> Float[Array, "B K"]:
  """How much each camera hypothesis counts.

  By probability, as in the paper; or, with a `camera_temperature`, by responsibility for the
  `values`: how badly each explains its image, in units of the mask term.
  """
  if not weights.camera_temperature:
    return jax.nn.softmax(logits, axis=-1)
  return responsibilities(
    values, logits, temperature=weights.camera_temperature, prior=weights.camera_prior
  )


def term_weights(
  weights: LossConfig, *, round_index: Int[Array, ""], round_step: Int[Array, ""]
) -> dict[str, float | Float[Array, ""]]:
  """Every term's weight at this moment of the run.

  The orientation prior flattens the first shapes towards the mirror plane, so that the cameras
  learn a side view, and then lets go; the deformation term may wait for a template, which later
  rounds have; the deviation term holds the shapes together until the cameras have settled.

  Source: Li et al. 2020, supplementary 2.2; weights and moments from the released configuration.
  """
  orienting = (round_index == 0) & (round_step < weights.orientation_stop)
  deforming = (round_index > 0) | (round_step >= weights.deformation_start)
  settling = (round_index == 0) & (round_step < weights.shape_variance_stop)
  always = (
    "mask",
    "segmentation",
    "texture",
    "texture_dt",
    "texture_cycle",
    "flow_correction",
    "laplacian",
    "flatten",
    "edge",
    "part_probability",
    "part_vertices",
    "adversary",
    "target_camera",
    "camera_entropy",
    "camera_posterior",
  )
  return {name: getattr(weights, name) for name in always} | {
    "deformation": jnp.where(deforming, weights.deformation, 0.0),
    "shape_variance": jnp.where(settling, weights.shape_variance, 0.0),
    "orientation": jnp.where(orienting, weights.orientation, 0.0),
  }
