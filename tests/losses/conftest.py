"""The meshes on which the losses are measured, and a small case of the whole objective."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.config.settings import LossConfig
from umr_jax.geometry.symmetry import halve
from umr_jax.geometry.topology import build_topology
from umr_jax.losses.objective import total_loss
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models import assemble
from umr_jax.render import RenderSettings
from umr_jax.types import Batch, EMState, Prediction, Template, host

B, K, S, HU = 2, 3, 32, 16


@pytest.fixture(scope="session")
def topology():
  return build_topology(1, texels_per_side=3, symmetric_texture=True)


@pytest.fixture(scope="session")
def fine_topology():
  return build_topology(3, texels_per_side=1, symmetric_texture=False)


@pytest.fixture(scope="session")
def golden_topology(topology, golden_geometry):
  """The connectivity of the golden mesh, whose faces are ordered differently, found by loops."""
  faces = golden_geometry["mesh/faces"]
  opposite: dict[tuple[int, int], list[int]] = {}
  for face in faces:
    for i in range(3):
      a, b, c = (int(face[(i + j) % 3]) for j in range(3))
      opposite.setdefault((min(a, b), max(a, b)), []).append(c)
  edges = np.array(list(opposite), np.int32)
  num_vertices = int(faces.max()) + 1
  around: list[list[int]] = [[] for _ in range(num_vertices)]
  for a, b in edges:
    around[a].append(b)
    around[b].append(a)
  return topology.replace(
    faces=faces,
    edges=edges,
    neighbors=np.array([n + [i] * (6 - len(n)) for i, n in enumerate(around)], np.int32),
    degrees=np.array([len(n) for n in around], np.int32),
    face_pairs=np.array([[*edge, *two] for edge, two in opposite.items()], np.int32),
  )


@pytest.fixture
def vertices(topology, rng):
  """Two bumpy meshes [2, V, 3]."""
  noise = rng.normal(scale=0.1, size=(2, *topology.sphere.shape))
  return (topology.sphere + noise).astype(np.float32)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def mapped_state(topology, em_state):
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
    discriminator=None,
    target_camera=None,
    flow="free",
    on_host=False,
  ):
    rows = dataclasses.replace(batch, target_camera=target_camera)
    return total_loss(
      prediction,
      em_state,
      host(rows) if on_host else rows,
      jax.random.key(0),
      round_step=jnp.int32(step),
      spec=ObjectiveSpec(
        topology=topology,
        weights=weights or LossConfig(),
        render=RenderSettings(image_size=size, sigma=1e-3),
        flow=flow,
      ),
      discriminator=discriminator,
    )

  return call


@pytest.fixture(scope="session")
def only():
  """Makes the weights with which one term is the objective."""

  def call(name):
    zeros = {f.name: 0.0 for f in dataclasses.fields(LossConfig) if f.type is float}
    return LossConfig(**{**zeros, name: 1.0}, shape_variance_stop=2000)

  return call
