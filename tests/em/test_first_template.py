"""The first template: a sphere unless asked otherwise, and symmetric whatever is asked."""

import numpy as np

from umr_jax.em.loop import first_em_state
from umr_jax.geometry.topology import build_topology


def half(**options):
  topology = build_topology(2, texels_per_side=2, symmetric_texture=True)
  return topology, first_em_state(topology, **options).template.half_vertices


def test_it_is_the_unit_sphere_by_default():
  topology, vertices = half()
  np.testing.assert_allclose(np.linalg.norm(vertices, axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(vertices[: topology.num_center, 1], 0.0, atol=1e-6)


def test_radii_are_its_half_axes():
  _, vertices = half(radii=(0.9, 0.4, 0.5))
  np.testing.assert_allclose(np.sum((vertices / [0.9, 0.4, 0.5]) ** 2, axis=-1), 1.0, rtol=1e-5)


def test_a_taper_thickens_the_end_of_positive_x():
  topology, vertices = half(radii=(0.9, 0.4, 0.5), taper=0.5)
  _, plain = half(radii=(0.9, 0.4, 0.5))
  factor = 1.0 + 0.5 * topology.sphere[: topology.num_half, 0]
  np.testing.assert_allclose(vertices[:, 0], plain[:, 0], rtol=1e-6)
  np.testing.assert_allclose(vertices[:, 2], plain[:, 2] * factor, atol=1e-6)
  np.testing.assert_allclose(vertices[:, 1], plain[:, 1] * factor, atol=1e-6)
