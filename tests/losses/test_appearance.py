"""appearance_values: what tells a view from its depth-reversed twin, and what does not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.config import LossConfig, RenderConfig
from umr_jax.em import m_step
from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import halve
from umr_jax.geometry.uv import uv_directions
from umr_jax.losses.appearance import appearance_values
from umr_jax.losses.semantic import semantics
from umr_jax.losses.texture import texture_distance
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.types import Batch, EMState, Template

S, HU = 32, 16


@pytest.fixture(scope="module")
def view():
  """A camera that looks at the side of a sphere where x < 0, and its twin [1, 2, 7]."""
  turned = upright_rotation(jnp.array([90.0, -90.0]), jnp.zeros(2), jnp.zeros(2))
  placed = jnp.concatenate([jnp.tile(jnp.array([[0.6, 0.0, 0.0]]), (2, 1)), turned], axis=-1)
  nose = jnp.array([[[-1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]])
  depth = camera.project(nose, placed)[:, 0, 2]
  front = placed[jnp.argmin(depth)]
  return jnp.stack([front, camera.depth_twin(front)])[None]


@pytest.fixture(scope="module")
def em_state(topology):
  ahead = (uv_directions(HU)[..., 0] < 0.0).astype(np.float32)
  canonical_uv = jnp.asarray(np.stack([0 * ahead, ahead, 1 - ahead], axis=-1))
  half = halve(jnp.asarray(topology.sphere), num_center=topology.num_center)
  return EMState(
    round=jnp.int32(0),
    round_start=jnp.int32(0),
    template=Template(half_vertices=half),
    canonical_uv=canonical_uv,
    part_vertices=m_step.part_vertices(canonical_uv, topology),
  )


@pytest.fixture(scope="module")
def batch():
  """A disc that is one part and one colour: of a sphere with two of each, the one that is seen."""
  y, x = np.mgrid[:S, :S] * 2 / S - 1 + 1 / S
  mask = (x**2 + y**2 < 0.36).astype(np.float32)[None]
  return Batch(
    image=jnp.asarray(mask[..., None] * np.array([1.0, 0.0, 0.0], np.float32)),
    mask=jnp.asarray(mask),
    barrier=jnp.asarray(1 - mask),
    index=jnp.arange(1),
    valid=jnp.ones(1, bool),
    parts=jnp.asarray(np.stack([1 - mask, mask, 0 * mask], axis=-1)),
  )


@pytest.fixture(scope="module")
def values(topology, view, em_state, batch):
  def call(cameras=view, *, weights, flow_map=None):
    parts = semantics(
      em_state, batch, cameras, jax.random.key(0), mask=batch.mask, topology=topology,
      weights=weights,
    )  # fmt: skip
    found = appearance_values(
      jnp.asarray(topology.sphere)[None],
      cameras,
      batch,
      parts,
      flow_map=flow_map,
      mask=batch.mask,
      topology=topology,
      weights=weights,
      settings=RenderConfig(sigma=1e-4),
      distance=texture_distance,
    )
    return found, parts

  return call


PARTS = LossConfig(part_probability=20.0, part_vertices=10.0, camera_temperature=0.1)


def test_parts_that_are_seen_tell_a_view_from_its_twin(values):
  (found, parts) = values(weights=PARTS)
  # Where vertices lie says nothing: both sides of the sphere lie in the same places.
  np.testing.assert_allclose(parts.vertex_values[0, 0], parts.vertex_values[0, 1], rtol=1e-4)
  assert found[0, 1] > 10.0 * found[0, 0]


def test_colours_that_are_seen_do_too(values):
  # The side ahead looks at the disc, the other one at what is black around it.
  ahead = uv_directions(HU)[..., 0] < 0.0
  flow_map = jnp.asarray(np.where(ahead[..., None], 0.0, 0.95), jnp.float32)[None]
  flow_map = jnp.broadcast_to(flow_map, (1, HU, 2 * HU, 2))
  weights = dataclasses.replace(PARTS, part_probability=0.0)
  found, _ = values(weights=weights, flow_map=flow_map)
  assert found[0, 1] > found[0, 0] + 0.3
  assert not np.asarray(values(weights=weights)[0]).any()  # neither parts nor colours


def test_nothing_is_taught(values, view):
  gradient = jax.grad(lambda cameras: values(cameras, weights=PARTS)[0].sum())(view)
  assert not np.asarray(gradient).any()
