"""Meshes fitted to the silhouettes that a network sees: towards them, and each by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.predict.spheres import (
  FITTING,
  HALF,
  MODEL,
  TOPOLOGY,
  drawn,
  prediction,
  sphere,
)
from tests.rotations import degrees_between
from umr_jax.geometry import camera
from umr_jax.geometry.camera import Camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.mask import soft_iou
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.flow import camera_flow, clamp_to_mask
from umr_jax.predict.fit_mesh import fit_cameras, optimize
from umr_jax.render import soft_rasterize
from umr_jax.types import CanonicalFeatures, Projection

# Descent magnifies rounding, and more of it without optimizations.
pytestmark = pytest.mark.usefixtures("optimized")


@pytest.fixture(scope="module")
def fit():
  return jax.jit(lambda found: optimize(found, MODEL, fitting=FITTING))


def test_a_mesh_goes_where_the_network_sees_the_object(fit):
  truth = [(0.5, 0.1, -0.05), (0.42, -0.12, 0.1)]
  mask = drawn(*sphere(stretch=1.3, cameras=truth))
  before = prediction(mask=mask, cameras=[(0.45, 0.0, 0.0), (0.5, -0.05, 0.05)])
  after = fit(before)
  ious = [soft_iou(alpha=drawn(x.vertices, x.camera), mask=mask) for x in (before, after)]
  assert (ious[0] < 0.8).all() and (ious[1] > 0.9).all()
  np.testing.assert_allclose(after.camera[:, 1:3], [c[1:] for c in truth], atol=0.05)
  np.testing.assert_allclose(jnp.linalg.norm(after.camera[:, 3:], axis=-1), 1.0, atol=1e-6)
  mirrored = symmetrize(after.vertices[:, : TOPOLOGY.num_half], num_center=TOPOLOGY.num_center)
  np.testing.assert_allclose(after.vertices, mirrored, atol=1e-6)


def test_only_the_best_camera_is_another_one(fit):
  mask = drawn(*sphere(stretch=1.3, cameras=[(0.5, 0.1, 0.0)]))
  before = prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)])
  after = fit(before)
  np.testing.assert_array_equal(after.cameras[:, 0], before.cameras[:, 0])
  np.testing.assert_array_equal(after.cameras[:, 1], after.camera)
  np.testing.assert_array_equal(after.camera_probs, before.camera_probs)
  np.testing.assert_array_equal(after.shape_code, before.shape_code)


def test_each_image_is_fitted_by_itself(fit):
  masks = drawn(*sphere(stretch=1.2, cameras=[(0.5, 0.1, -0.05), (0.3, -0.12, 0.1)]))
  start = prediction(mask=masks, cameras=[(0.45, 0.0, 0.0)] * 2)
  both = fit(start)
  alone = fit(prediction(mask=masks[1:], cameras=[(0.45, 0.0, 0.0)]))
  assert jnp.abs(both.vertices - start.vertices)[1].max() > 0.1
  # Descent magnifies rounding, but not to anything that could be seen.
  np.testing.assert_allclose(both.vertices[1:], alone.vertices, atol=5e-3)
  np.testing.assert_allclose(both.camera[1:], alone.camera, atol=5e-3)


def test_the_flow_is_what_the_new_camera_sees_of_the_object_and_a_free_one_stays(fit):
  mask = drawn(*sphere(stretch=1.3, cameras=[(0.5, 0.1, 0.0)]))
  correction = jnp.full((1, 16, 32, 2), 0.1)
  tied = fit(prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)], flow_correction=correction))
  seen = camera_flow(tied.vertices, tied.camera, TOPOLOGY, uv_height=16)
  np.testing.assert_allclose(tied.flow_map, clamp_to_mask(seen, mask), atol=1e-6)
  # The mesh lies on the silhouette: all but its rim looks where it is.
  away = np.linalg.norm(tied.flow_map - seen, axis=-1)
  assert np.median(away) < 1e-6 and 0.01 < away.max() < 0.1
  free = fit(prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)]))
  np.testing.assert_array_equal(free.flow_map, 0.0)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_silhouette_of_nothing_or_of_everything_is_survived(fit, level):
  after = fit(prediction(mask=jnp.full((1, 32, 32), level), cameras=[(0.45, 0.0, 0.0)]))
  assert np.isfinite(after.vertices).all() and np.isfinite(after.camera).all()


def test_vertices_go_where_the_image_looks_as_the_category_does_there():
  """A sphere's silhouette does not tell its turn; stripes along it do."""
  true = upright_rotation(jnp.array([20.0, 340.0]), jnp.zeros(2), jnp.zeros(2))
  cameras = Camera(jnp.full(2, 0.6), jnp.zeros((2, 2)), true).pack()
  whole = symmetrize(HALF, num_center=TOPOLOGY.num_center)
  vertices = jnp.broadcast_to(whole[None], (2, *whole.shape))
  # The direction of what is seen turns with the place along the object.
  values = jnp.stack([jnp.cos(2.0 * whole[:, 0]), jnp.sin(2.0 * whole[:, 0])], axis=-1)
  corners = camera.project_faces(vertices, cameras, TOPOLOGY.faces)
  texels = jnp.broadcast_to(values[TOPOLOGY.faces][None], (*corners.shape[:3], 2))
  encoded = soft_rasterize(corners, texels, image_size=16, texture_type="vertex")[..., :2]
  begun = Camera(jnp.full(2, 0.6), jnp.zeros((2, 2)), upright_rotation(*jnp.zeros((3, 2)))).pack()
  before = dataclasses.replace(
    prediction(mask=drawn(vertices, cameras), cameras=[(0.6, 0.0, 0.0)] * 2),
    vertices=vertices,
    camera=begun,
    encoded=encoded,
  )
  canonical = CanonicalFeatures(
    projection=Projection(jnp.zeros(2), jnp.eye(2)),
    values=values,
    known=jnp.ones(len(whole), bool),
    variance=jnp.float32(0.1),
  )
  stiff = dataclasses.replace(FITTING, laplacian=2.0, deformation=1.0, features=1.0)

  def turned(features):
    model = MODEL.replace(canonical_features=features)
    found = jax.jit(lambda found: optimize(found, model, fitting=stiff))(before)
    return degrees_between(found.camera[:, 3:], true)

  blind, seeing = turned(None), turned(canonical)
  assert (blind > 15.0).all() and (seeing < 8.0).all(), (blind, seeing)
  # A vertex that no image has shown is compared with nothing.
  unknown = canonical.replace(values=-values, known=jnp.zeros(len(whole), bool))
  np.testing.assert_allclose(turned(unknown), blind, atol=0.5)


def test_cameras_go_where_silhouettes_show_the_mesh_each_by_itself():
  """A long, bent solid: silhouettes tell its turn, scale and place."""
  half = HALF * jnp.array([[1.0, 0.5, 0.3]])
  solid = symmetrize(half.at[:, 2].add(0.5 * half[:, 0] ** 2), num_center=TOPOLOGY.num_center)
  vertices = jnp.stack([solid, 0.9 * solid])
  upright = upright_rotation(jnp.array([30.0, 75.0]), jnp.array([20.0, 40.0]), jnp.zeros(2))
  true = Camera(jnp.array([0.7, 0.6]), jnp.array([[0.1, 0.0], [-0.1, 0.1]]), upright)
  wrong = upright_rotation(jnp.array([40.0, 68.0]), jnp.array([12.0, 46.0]), jnp.full(2, 4.0))
  begun = Camera(1.1 * true.scale, true.translation + 0.05, wrong).pack()
  # As large as the silhouettes are: resized ones are blurred.
  render = dataclasses.replace(FITTING.render, image_size=32)
  fitting = dataclasses.replace(FITTING, steps=80, learning_rate=0.01, render=render)
  fit = jax.jit(
    lambda cameras, vertices, masks: fit_cameras(
      cameras, vertices, masks, TOPOLOGY, fitting=fitting
    )
  )
  masks = drawn(vertices, true.pack())
  found = fit(begun, vertices, masks)
  before, after = (degrees_between(c[:, 3:], upright) for c in (begun, found))
  assert (after < 0.5 * before).all(), (before, after)
  np.testing.assert_allclose(found[:, 0], true.scale, rtol=0.02)
  np.testing.assert_allclose(found[:, 1:3], true.translation, atol=0.01)
  alone = fit(begun[1:], vertices[1:], masks[1:])
  np.testing.assert_allclose(alone[0], found[1], atol=2e-3)


def test_a_network_that_sees_no_silhouette_is_refused():
  with pytest.raises(ValueError, match="predicts no silhouettes"):
    optimize(prediction(mask=None, cameras=[(0.45, 0.0, 0.0)]), MODEL, fitting=FITTING)
