"""inside_out: none of a convex surface, all of a reversed one, half of a half reversed one."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.eval.inside_out import inside_out
from umr_jax.geometry.topology import build_topology

SIZE = 64
CAMERA = jnp.array([[0.7, 0.0, 0.0, 0.7071068, 0.7071068, 0.0, 0.0]])  # upright, along object y


@pytest.fixture(scope="module")
def topology():
  return build_topology(3, texels_per_side=2, symmetric_texture=True)


def share(vertices, topology, camera=CAMERA):
  found = inside_out(jnp.asarray(vertices, jnp.float32)[None], camera, topology, image_size=SIZE)
  return float(found[0])


def test_a_sphere_shows_only_its_outside(topology):
  assert share(topology.sphere, topology) == 0.0


def test_a_sphere_turned_inside_out_shows_only_its_inside(topology):
  turned = dataclasses.replace(topology, outward_faces=topology.outward_faces[:, ::-1].copy())
  assert share(topology.sphere, turned) == 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_a_sphere_with_one_half_turned_a_half_of_both_views_is_inside(topology, axis):
  faces = topology.outward_faces.copy()
  half = np.asarray(topology.sphere)[faces].mean(axis=1)[:, axis] > 0.0
  faces[half] = faces[half][:, ::-1]
  turned = dataclasses.replace(topology, outward_faces=faces)
  # Faces are on one side or the other by their middle: the seam is jagged.
  assert share(topology.sphere, turned) == pytest.approx(0.5, abs=0.03)


def test_a_mesh_out_of_sight_has_no_folds(topology):
  away = CAMERA.at[:, 1].set(5.0)
  assert share(topology.sphere, topology, away) == 0.0
