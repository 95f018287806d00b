"""The objective: its expectation over cameras, its schedule, and who gets which gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import plain_loss, plain_render
from umr_jax.config.settings import LossConfig
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.symmetry import halve
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import uv_directions
from umr_jax.losses.counting import sample_hypothesis, term_weights
from umr_jax.losses.drawing import average_pool
from umr_jax.losses.total import total_loss
from umr_jax.models import assemble
from umr_jax.models.camera_heads import UPRIGHT
from umr_jax.types import Batch, EMState, Prediction, Template

B, K, S, HU = 2, 3, 32, 16
FOUND = jnp.array([[0.6, 0.0, 0.0, 0.7071, 0.0, 0.7071, 0.0], [0.6, 0.0, 0.0, 0.0, 0.8, 0.6, 0.0]])


@pytest.fixture(scope="module")
def topology():
  return build_topology(1, texels_per_side=2, symmetric_texture=True)


@pytest.fixture(scope="module")
def em_state(topology):
  half = halve(jnp.asarray(topology.sphere), num_center=topology.num_center)
  return EMState(
    round=jnp.int32(0), round_start=jnp.int32(0), template=Template(half_vertices=half)
  )


@pytest.fixture
def batch(rng):
  y, x = np.mgrid[:S, :S] * 2 / S - 1 + 1 / S
  mask = np.stack([x**2 + 2 * y**2 < 0.5, 3 * x**2 + y**2 < 0.6]).astype(np.float32)
  return Batch(
    image=jnp.asarray(rng.uniform(size=(B, S, S, 3)), jnp.float32),
    mask=jnp.asarray(mask),
    barrier=jnp.asarray(1 - mask),
    index=jnp.arange(B),
    valid=jnp.ones(B, bool),
    parts=jnp.asarray(np.stack([1 - mask, mask * (x < 0), mask * (x >= 0)], -1), jnp.float32),
  )


@pytest.fixture(scope="module")
def taught(topology, em_state):
  """A state with a canonical map of two parts: the front of the sphere, and the rest."""
  u = np.broadcast_to(np.arange(2 * HU), (HU, 2 * HU))
  front = (np.abs(u + 0.5 - HU) < HU / 2).astype(np.float32)
  canonical_uv = jnp.asarray(np.stack([0 * front, front, 1 - front], axis=-1))
  return em_state.replace(
    round=jnp.int32(1),
    canonical_uv=canonical_uv,
    part_vertices=assemble.part_vertices(canonical_uv, topology),
  )


@pytest.fixture
def prediction(topology, rng):
  cameras = np.tile(np.array([0.6, 0.0, 0.1, 0.7071, 0.7071, 0, 0]), (B, K, 1))
  cameras[..., 0] += 0.1 * np.arange(K)
  return Prediction(
    half_offsets=jnp.asarray(0.02 * rng.normal(size=(B, topology.num_half, 3)), jnp.float32),
    shape_code=jnp.zeros((B, 4)),
    flow_map=jnp.asarray(0.3 * rng.normal(size=(B, HU, 2 * HU, 2)), jnp.float32),
    cameras=jnp.asarray(cameras, jnp.float32),
    camera_logits=jnp.asarray(rng.normal(size=(B, K)), jnp.float32),
    mask_logits=jnp.asarray(rng.normal(size=(B, S // 2, S // 2)), jnp.float32),
  )


@pytest.fixture
def objective(topology, em_state, batch):
  def call(
    prediction,
    *,
    step=1000,
    weights=None,
    em_state=em_state,
    size=S,
    judge=None,
    target_camera=None,
    flow="free",
  ):
    return total_loss(
      prediction,
      em_state,
      dataclasses.replace(batch, target_camera=target_camera),
      jax.random.key(0),
      round_step=jnp.int32(step),
      topology=topology,
      weights=weights or plain_loss(),
      settings=plain_render(sigma=1e-3),
      image_size=size,
      judge=judge,
      flow=flow,
    )

  return call


def judge(images):
  """Takes for real what lies far to the right."""
  return jnp.sum(
    images * jnp.arange(float(images.shape[2])).reshape(1, 1, -1, 1) / 1000, axis=(1, 2, 3)
  )


def only(name):
  zeros = {f.name: 0.0 for f in dataclasses.fields(LossConfig) if f.type is float}
  return plain_loss(**{**zeros, name: 1.0})


def test_the_total_is_the_sum_of_the_weighted_terms(objective, prediction):
  total, metrics = objective(prediction)
  parts = [value for name, value in metrics.items() if name.startswith("weighted/")]
  np.testing.assert_allclose(total, sum(parts), rtol=1e-6)
  np.testing.assert_allclose(metrics["loss/total"], total)


@pytest.mark.parametrize(
  "name",
  [
    f.name
    for f in dataclasses.fields(LossConfig)
    if f.type is float and f.name != "camera_temperature"
  ],
)
def test_every_weight_of_the_config_reaches_its_term(objective, prediction, taught, name):
  state = {
    "part_": {"em_state": taught},
    "adver": {"judge": judge},
    "target_camera": {"target_camera": FOUND},
    "flow_correction": {"flow": "camera"},
  }
  state = state.get(name, state.get(name[:5], {}))
  total, metrics = objective(prediction, step=0, weights=only(name), **state)
  assert total != 0.0
  np.testing.assert_allclose(total, metrics[f"loss/{name}"], rtol=1e-6)
  twice = dataclasses.replace(only(name), **{name: 2.0})
  doubled, _ = objective(prediction, step=0, weights=twice, **state)
  np.testing.assert_allclose(doubled, 2 * total, rtol=1e-6)


def test_the_mask_term_is_the_expectation_over_hypotheses(objective, prediction):
  def with_logits(logits):
    broadcast = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (B, K))
    return objective(prediction.replace(camera_logits=broadcast))[1]["loss/mask"]

  each = [with_logits(np.where(np.arange(K) == k, 40.0, 0.0)) for k in range(K)]
  assert np.ptp(each) > 0.01
  np.testing.assert_allclose(with_logits(np.zeros(K)), np.mean(each), rtol=1e-5)


def test_with_a_prior_the_expected_hypothesis_answers(objective, prediction):
  expected = jnp.broadcast_to(jnp.where(jnp.arange(K) == 1, 40.0, 0.0), (B, K))
  prediction = prediction.replace(camera_logits=expected)

  def mask_term(**weights):
    return objective(prediction, weights=plain_loss(**weights))[1]["loss/mask"]

  alone = mask_term()  # by its probability, which is 1
  with_prior = mask_term(camera_temperature=1.0)
  np.testing.assert_allclose(with_prior, alone, rtol=1e-5)


def test_gradients_go_where_the_method_sends_them(objective, prediction):
  def gradient(name, **kwargs):
    def loss(p):
      return objective(p, weights=only(name), **kwargs)[0]

    return jax.grad(loss)(prediction)

  mask = gradient("mask")
  for leaf in (mask.half_offsets, mask.cameras, mask.camera_logits):
    assert np.isfinite(leaf).all() and (leaf != 0.0).any()
  assert (mask.flow_map == 0.0).all()
  for name in ("texture_dt", "texture_cycle"):
    grad = gradient(name)
    assert (grad.flow_map != 0.0).any()
    for leaf in (grad.half_offsets, grad.cameras, grad.camera_logits):
      assert (leaf == 0.0).all(), name
  texture = gradient("texture")
  assert (texture.flow_map != 0.0).any() and (texture.camera_logits == 0.0).all()
  entropy = gradient("camera_entropy")
  assert (entropy.camera_logits != 0.0).any() and (entropy.half_offsets == 0.0).all()
  for name in ("laplacian", "flatten", "edge", "deformation", "shape_variance"):
    grad = gradient(name)
    assert (grad.half_offsets != 0.0).any() and (grad.cameras == 0.0).all(), name


def test_a_flow_from_the_camera_is_asked_to_stay_there(objective, prediction):
  assert "loss/flow_correction" not in objective(prediction)[1]

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


def test_terms_begin_and_end_when_the_config_says():
  weights = plain_loss(orientation=0.4, deformation=5.0, deformation_start=2000)

  def at(round_index, step):
    now = term_weights(weights, round_index=jnp.int32(round_index), round_step=jnp.int32(step))
    return float(now["orientation"]), float(now["deformation"])

  np.testing.assert_allclose(at(0, 999), (0.4, 0.0))
  np.testing.assert_allclose(at(0, 1000), (0.0, 0.0))
  np.testing.assert_allclose(at(0, 2000), (0.0, 5.0))
  np.testing.assert_allclose(at(1, 5), (0.0, 5.0))


def test_the_deviation_term_ends_with_the_first_round_or_before():
  weights = plain_loss(shape_variance=3.0)

  def at(round_index, step):
    now = term_weights(weights, round_index=jnp.int32(round_index), round_step=jnp.int32(step))
    return float(now["shape_variance"])

  assert (at(0, 299), at(0, 300), at(1, 5)) == (3.0, 0.0, 0.0)


def test_a_render_may_be_smaller_than_the_image(objective, prediction):
  large, small = objective(prediction)[1], objective(prediction, size=S // 2)[1]
  np.testing.assert_allclose(small["loss/mask"], large["loss/mask"], atol=0.05)
  image = jnp.arange(16.0).reshape(1, 4, 4)
  np.testing.assert_allclose(average_pool(image, 2)[0], [[2.5, 4.5], [10.5, 12.5]])


def test_hypotheses_are_drawn_with_their_probabilities_under_each_images_own_key():
  logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  index = jnp.arange(3000)
  drawn = sample_hypothesis(jnp.broadcast_to(logits, (3000, 3)), index, jax.random.key(1))
  share = np.bincount(np.asarray(drawn), minlength=3) / 3000
  np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.03)
  # The draw belongs to the image, not to its place in a batch.
  again = sample_hypothesis(jnp.broadcast_to(logits, (10, 3)), index[500:510], jax.random.key(1))
  np.testing.assert_array_equal(again, drawn[500:510])


def test_predicted_pixels_are_taught_where_the_network_has_them(objective, prediction, batch):
  assert "loss/segmentation" not in objective(prediction.replace(mask_logits=None))[1]
  seeing = prediction.replace(mask_logits=jnp.zeros((B, S // 2, S // 2)))
  total, metrics = objective(seeing, weights=only("segmentation"))
  np.testing.assert_allclose(metrics["loss/segmentation"], np.log(2.0), rtol=1e-5)
  np.testing.assert_allclose(total, np.log(2.0), rtol=1e-5)


def test_semantic_terms_wait_for_a_canonical_map(objective, prediction, taught):
  weights = plain_loss(part_probability=5.0, part_vertices=10.0)
  before = objective(prediction, weights=weights)[1]
  after = objective(prediction, weights=weights, em_state=taught)[1]
  for name in ("part_probability", "part_vertices"):
    assert f"loss/{name}" not in before and after[f"loss/{name}"] > 0.0


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_parts_teach_shape_and_cameras_apart(objective, prediction, taught, temperature):
  def gradient(name):
    weights = dataclasses.replace(only(name), camera_temperature=temperature)
    return jax.grad(lambda p: objective(p, weights=weights, em_state=taught)[0])(prediction)

  shape, cameras = gradient("part_probability"), gradient("part_vertices")
  assert np.isfinite(shape.half_offsets).all() and (shape.half_offsets != 0.0).any()
  assert np.isfinite(cameras.cameras).all() and (cameras.cameras != 0.0).any()
  assert (shape.cameras == 0.0).all() and (cameras.half_offsets == 0.0).all()
  for grad in (shape, cameras):
    assert (grad.camera_logits == 0.0).all() and (grad.flow_map == 0.0).all()


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_drawn_parts_teach_cameras_where_that_is_asked_for(
  objective, prediction, taught, temperature
):
  weights = dataclasses.replace(
    only("part_probability"), part_cameras=True, camera_temperature=temperature
  )
  grad = jax.grad(lambda p: objective(p, weights=weights, em_state=taught)[0])(prediction)
  assert np.isfinite(grad.cameras).all() and (grad.cameras != 0.0).any()
  assert (grad.half_offsets != 0.0).any()


def test_a_hypothesis_answers_for_its_parts_too(objective, prediction, taught, topology):
  """Two sides of a sphere have one silhouette; parts tell them apart."""
  back = uv_directions(HU)[..., 0] < 0.0  # the part that images show on the left
  canonical_uv = jnp.asarray(np.stack([0 * back, back, ~back], axis=-1), jnp.float32)
  state = taught.replace(
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


@pytest.mark.parametrize("domain", ["mask", "color"])
def test_the_adversary_teaches_the_shape_alone(objective, prediction, domain):
  weights = dataclasses.replace(only("adversary"), adversary_domain=domain)

  def loss(prediction):
    return objective(prediction, weights=weights, judge=judge)[0]

  value, grad = jax.value_and_grad(loss)(prediction)
  assert np.isfinite(value) and "loss/adversary" not in objective(prediction, weights=weights)[1]
  assert np.isfinite(grad.half_offsets).all() and (grad.half_offsets != 0.0).any()
  for leaf in (grad.cameras, grad.camera_logits, grad.flow_map):
    assert (leaf == 0.0).all()


def test_a_found_camera_calls_the_hypothesis_of_its_side(objective, prediction):
  turned = quaternion.multiply(
    jnp.broadcast_to(jnp.array([UPRIGHT]), (B, 4)), camera.azimuth_turns(K)[jnp.array([2, 1])]
  )
  # Scales and places as predicted: the rotation is what differs.
  found = jnp.concatenate([prediction.cameras[:, 0, :3], turned], axis=-1)
  prediction = prediction.replace(
    cameras=prediction.cameras.at[..., :3].set(prediction.cameras[:, :1, :3])
  )
  weights = dataclasses.replace(only("target_camera"), camera_posterior=0.5)

  def loss(prediction, weights=weights):
    return objective(prediction, weights=weights, target_camera=found)[0]

  called = jnp.array([2, 1])
  gap = 1.0 - jnp.square(jnp.sum(prediction.cameras[:, 0, 3:] * turned, axis=-1))
  np.testing.assert_allclose(loss(prediction, only("target_camera")), gap.mean(), rtol=1e-4)
  log_probs = jax.nn.log_softmax(prediction.camera_logits, axis=-1)
  surprise = -log_probs[jnp.arange(B), called].mean()
  np.testing.assert_allclose(loss(prediction), gap.mean() + 0.5 * surprise, rtol=1e-4)
  grad = jax.grad(loss)(prediction)
  others = np.arange(K)[None] != np.asarray(called)[:, None]
  assert (grad.cameras[jnp.arange(B), called] != 0.0).any() and (grad.cameras[others] == 0.0).all()
  assert (grad.half_offsets == 0.0).all()
  assert (grad.camera_logits[jnp.arange(B), called] < 0.0).all()


def test_with_a_bank_one_hypothesis_is_drawn(objective, prediction):
  def loops(prediction, found):
    text = str(jax.make_jaxpr(lambda p: objective(p, target_camera=found)[0])(prediction))
    return text.count("while[")

  alone = prediction.replace(
    cameras=prediction.cameras[:, :1], camera_logits=prediction.camera_logits[:, :1]
  )
  assert loops(prediction, FOUND) == loops(alone, None)


def test_texture_of_all_hypotheses_is_their_expectation(objective, prediction):
  weights = dataclasses.replace(only("texture"), texture_cameras="all")

  def with_logits(logits):
    broadcast = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (B, K))
    return objective(prediction.replace(camera_logits=broadcast), weights=weights)[0]

  each = [with_logits(np.where(np.arange(K) == k, 40.0, 0.0)) for k in range(K)]
  assert np.ptp(each) > 1e-3
  np.testing.assert_allclose(with_logits(np.zeros(K)), np.mean(each), rtol=1e-5)
  sure = prediction.replace(camera_logits=jnp.tile(jnp.array([[40.0, 0.0, 0.0]]), (B, 1)))
  np.testing.assert_allclose(objective(sure, weights=only("texture"))[0], each[0], rtol=1e-5)
  grad = jax.grad(lambda p: objective(p, weights=weights)[0])(prediction)
  assert (grad.flow_map != 0.0).any() and (grad.camera_logits == 0.0).all()
