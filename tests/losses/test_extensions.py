"""What is added to the paper's objective: each extension alone, and what it leaves as it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.tiny import plain_loss
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.uv import uv_directions
from umr_jax.models import assemble
from umr_jax.models.camera_heads import UPRIGHT
from umr_jax.types import Template

B, K, S, HU = 2, 3, 32, 16  # as in conftest.py
TARGETS = jnp.array(
  [[0.6, 0.0, 0.0, 0.7071, 0.0, 0.7071, 0.0], [0.6, 0.0, 0.0, 0.0, 0.8, 0.6, 0.0]]
)


def test_with_a_prior_the_expected_hypothesis_is_responsible(objective, prediction):
  expected = jnp.broadcast_to(jnp.where(jnp.arange(K) == 1, 40.0, 0.0), (B, K))
  prediction = prediction.replace(camera_logits=expected)

  def mask_term(**weights):
    return objective(prediction, weights=plain_loss(**weights))[1]["loss/mask"]

  alone = mask_term()  # by its probability, which is 1
  with_prior = mask_term(camera_temperature=1.0)
  np.testing.assert_allclose(with_prior, alone, rtol=1e-5)


def test_corrections_of_a_projected_flow_are_kept_small(objective, prediction, only):
  assert "loss/flow_correction" not in objective(prediction, weights=only("flow_correction"))[1]

  def loss(p):
    return objective(p, weights=only("flow_correction"), flow="projected")

  (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(prediction)
  squared = np.square(np.asarray(prediction.flow_map)).sum(axis=-1).mean()
  np.testing.assert_allclose(metrics["loss/flow_correction"], squared, rtol=1e-5)
  np.testing.assert_allclose(value, squared, rtol=1e-5)
  expected = 2.0 * prediction.flow_map / (B * HU * 2 * HU)
  np.testing.assert_allclose(grad.flow_map, expected, rtol=1e-4, atol=1e-9)
  for leaf in (grad.half_offsets, grad.cameras, grad.camera_logits):
    assert (leaf == 0.0).all()


def test_smooth_offsets_leave_the_template_its_edges(objective, prediction, em_state, rng):
  rough = jnp.asarray(em_state.template.half_vertices)
  rough += jnp.asarray(0.1 * rng.normal(size=rough.shape), jnp.float32)
  spiky = dataclasses.replace(em_state, template=Template(half_vertices=rough))
  moved = dataclasses.replace(
    prediction, half_offsets=jnp.full_like(prediction.half_offsets, 0.1).at[..., 1].set(0.0)
  )
  values = {}
  for smooth in (False, True):
    weights = plain_loss(smooth_offsets=smooth)
    values[smooth] = float(objective(moved, em_state=spiky, weights=weights)[1]["loss/laplacian"])
  assert values[False] > 0.1
  np.testing.assert_allclose(values[True], 0.0, atol=1e-9)


def test_the_shape_variance_ends_with_the_first_round_or_before(objective, prediction, em_state):
  def at(round_index, step):
    state = em_state.replace(round=jnp.int32(round_index))
    weights = plain_loss(shape_variance=3.0)
    metrics = objective(prediction, em_state=state, step=step, weights=weights)[1]
    return float(metrics["weighted/shape_variance"] / metrics["loss/shape_variance"])

  np.testing.assert_allclose((at(0, 299), at(0, 300), at(1, 5)), (3.0, 0.0, 0.0), rtol=1e-6)


def test_only_extensions_with_a_weight_are_terms(objective, prediction, only):
  names = {name.removeprefix("loss/") for name in objective(prediction)[1] if "loss/" in name}
  added = {"camera_posterior", "shape_variance", "target_camera", "flow_correction", "segmentation"}
  assert not names & added
  with_one = objective(prediction, weights=plain_loss(shape_variance=1.0))[1]
  assert {name for name in with_one if "loss/" in name} - {f"loss/{n}" for n in names} == {
    "loss/shape_variance"
  }


def test_segmentation_is_a_term_where_the_network_has_the_head(objective, prediction, batch, only):
  blind = prediction.replace(mask_logits=None)
  assert "loss/segmentation" not in objective(blind, weights=only("segmentation"))[1]
  seeing = prediction.replace(mask_logits=jnp.zeros((B, S // 2, S // 2)))
  total, metrics = objective(seeing, weights=only("segmentation"))
  np.testing.assert_allclose(metrics["loss/segmentation"], np.log(2.0), rtol=1e-5)
  np.testing.assert_allclose(total, np.log(2.0), rtol=1e-5)


def test_a_hypothesis_is_responsible_for_its_parts_too(
  objective, prediction, mapped_state, topology
):
  """Two sides of a sphere have one silhouette; parts tell them apart."""
  back = uv_directions(HU)[..., 0] < 0.0  # the part that images show on the left
  canonical_uv = jnp.asarray(np.stack([0 * back, back, ~back], axis=-1), jnp.float32)
  state = mapped_state.replace(
    canonical_uv=canonical_uv, part_vertices=assemble.part_vertices(canonical_uv, topology)
  )
  upright = jnp.array(UPRIGHT)
  turned = quaternion.multiply(upright[None], camera.azimuth_turns(2)[1:])[0]
  cameras = prediction.cameras.at[:, :2, 0].set(0.6).at[:, 0, 3:].set(turned[None])
  prediction = prediction.replace(
    cameras=cameras.at[:, 1, 3:].set(upright[None]).at[:, 2, 0].set(0.1),
    half_offsets=jnp.zeros_like(prediction.half_offsets),
  )

  def part_vertices(weight):
    weights = plain_loss(camera_temperature=0.02, part_vertices=weight, camera_posterior=1.0)
    return float(objective(prediction, weights=weights, em_state=state)[1]["loss/part_vertices"])

  # By the silhouettes both count; by the parts the right one does.
  assert part_vertices(10.0) < 0.6 * part_vertices(1e-6)


def test_a_target_camera_selects_the_hypothesis_of_its_side(objective, prediction, only):
  turned = quaternion.multiply(
    jnp.broadcast_to(jnp.array([UPRIGHT]), (B, 4)), camera.azimuth_turns(K)[jnp.array([2, 1])]
  )
  # Scales and places as predicted: the rotation is what differs.
  target_cameras = jnp.concatenate([prediction.cameras[:, 0, :3], turned], axis=-1)
  prediction = prediction.replace(
    cameras=prediction.cameras.at[..., :3].set(prediction.cameras[:, :1, :3])
  )
  weights = dataclasses.replace(only("target_camera"), camera_posterior=0.5)

  def loss(prediction, weights=weights):
    return objective(prediction, weights=weights, target_camera=target_cameras)[0]

  selected = jnp.array([2, 1])
  gap = 1.0 - jnp.square(jnp.sum(prediction.cameras[:, 0, 3:] * turned, axis=-1))
  np.testing.assert_allclose(loss(prediction, only("target_camera")), gap.mean(), rtol=1e-4)
  log_probs = jax.nn.log_softmax(prediction.camera_logits, axis=-1)
  surprise = -log_probs[jnp.arange(B), selected].mean()
  np.testing.assert_allclose(loss(prediction), gap.mean() + 0.5 * surprise, rtol=1e-4)
  grad = jax.grad(loss)(prediction)
  others = np.arange(K)[None] != np.asarray(selected)[:, None]
  assert (grad.cameras[jnp.arange(B), selected] != 0.0).any() and (
    grad.cameras[others] == 0.0
  ).all()
  assert (grad.half_offsets == 0.0).all()
  assert (grad.camera_logits[jnp.arange(B), selected] < 0.0).all()


def test_images_are_explained_under_their_target_cameras_alone(objective, prediction):
  """Shapes and textures must not bend to what the network's cameras still get wrong."""
  weights = plain_loss(target_camera=0.0)

  def of(cameras, target):
    def loss(p):
      return objective(p, weights=weights, target_camera=target)[0]

    return jax.value_and_grad(loss)(prediction.replace(cameras=cameras))

  value, grad = of(prediction.cameras, TARGETS)
  elsewhere, grad_elsewhere = of(prediction.cameras[:, ::-1] * 0.9, TARGETS)
  np.testing.assert_allclose(value, elsewhere, rtol=1e-6)
  np.testing.assert_allclose(grad.half_offsets, grad_elsewhere.half_offsets, atol=1e-6)
  assert (grad.half_offsets != 0.0).any() and (grad.cameras == 0.0).all()
  # As if the network predicted them.
  alone, grad_alone = of(TARGETS[:, None] + jnp.zeros((B, K, 1)), None)
  np.testing.assert_allclose(value, alone, rtol=1e-5)
  np.testing.assert_allclose(grad.half_offsets, grad_alone.half_offsets, rtol=1e-3, atol=1e-6)


def test_with_target_cameras_one_hypothesis_is_rendered(objective, prediction):
  def loops(prediction, target_cameras):
    text = str(jax.make_jaxpr(lambda p: objective(p, target_camera=target_cameras)[0])(prediction))
    return text.count("while[")

  alone = prediction.replace(
    cameras=prediction.cameras[:, :1], camera_logits=prediction.camera_logits[:, :1]
  )
  assert loops(prediction, TARGETS) == loops(alone, None)


def test_the_outline_pulls_shapes_under_the_target_camera(objective, prediction, batch, only):
  weights = only("outline")

  def loss(p):
    return objective(p, weights=weights, target_camera=TARGETS)[0]

  value, grad = jax.value_and_grad(loss)(prediction)
  # Far from the outline it grows with the square of the distance.
  far = TARGETS.at[:, 1].add(3.0)
  moved = objective(prediction, weights=weights, target_camera=far)[0]
  assert 0.0 < value < 0.1 and 4.0 < moved < 12.0
  assert (grad.half_offsets != 0.0).any() and (grad.cameras == 0.0).all()
  # A step against the gradient brings vertices nearer.
  nearer = prediction.replace(half_offsets=prediction.half_offsets - 0.5 * grad.half_offsets)
  assert loss(nearer) < value
