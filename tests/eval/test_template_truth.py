"""The template against true shapes: turned, moved and scaled as the cameras say, and no further."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.eval.template_truth import TemplateTruth
from umr_jax.geometry import quaternion
from umr_jax.geometry.camera import Camera
from umr_jax.geometry.topology import build_topology
from umr_jax.models.camera_heads import upright_rotation

TOPOLOGY = build_topology(2, texels_per_side=1, symmetric_texture=True)
FACES = np.asarray(TOPOLOGY.faces)
SOLID = np.asarray(TOPOLOGY.sphere) * [1.0, 0.5, 0.3]


def cameras(count=12, turn=0.0):
  """Cameras from all around, of an object that is turned about its vertical."""
  around = jnp.linspace(0.0, 360.0, count, endpoint=False)
  rotations = upright_rotation(around + turn, jnp.full(count, 25.0), jnp.zeros(count))
  return np.asarray(Camera(jnp.full(count, 0.7), jnp.zeros((count, 2)), rotations).pack())


def dataset(shapes, known=True, meshes=True):
  examples = [
    types.SimpleNamespace(camera=view if known else None, shape=shape)
    for view, shape in zip(cameras(), shapes, strict=True)
  ]
  names = sorted({shape for shape in shapes if shape}) if meshes else []
  return types.SimpleNamespace(
    splits={"train": examples}, meshes={name: (SOLID * int(name), FACES) for name in names}
  )


def test_frame_place_and_size_are_free_and_the_shape_is_not():
  truth = TemplateTruth.from_dataset(dataset(["1"] * 12))
  assert truth.iou(SOLID, FACES, cameras()) > 0.99
  # Cameras that turn an object by 40 degrees more than the true ones, of one that is turned back.
  about_z = quaternion.from_axis_angle(jnp.array([0.0, 0.0, 1.0]), jnp.deg2rad(40.0))
  elsewhere = 0.4 * SOLID @ np.asarray(quaternion.to_matrix(about_z)) + [0.1, 0.0, 0.2]
  assert truth.iou(elsewhere, FACES, cameras(turn=40.0)) > 0.97
  assert truth.iou(elsewhere, FACES, cameras()) < 0.7
  assert truth.iou(SOLID * [1.0, 1.0, 2.0], FACES, cameras()) < 0.7


def test_many_shapes_count_alike():
  """One similarity for all: of solids that differ in size alone none is met."""
  truth = TemplateTruth.from_dataset(dataset(["1", "2"] * 6))
  assert len(truth.shapes) == 2
  assert truth.iou(SOLID, FACES, cameras()) == pytest.approx(
    0.5 * ((1.0 / 1.5) ** 3 + (1.5 / 2.0) ** 3), abs=0.05
  )


def test_what_is_not_known_is_not_compared():
  assert TemplateTruth.from_dataset(dataset(["1"] * 12, known=False)) is None
  assert TemplateTruth.from_dataset(dataset(["1"] * 12, meshes=False)) is None
  some = TemplateTruth.from_dataset(dataset(["1"] * 11 + [None]))
  assert len(some.rows) == 12 and len(some.shapes) == 1
