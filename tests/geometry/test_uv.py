"""The UV map: positions, texel order as the renderer reads it, and the exported layout."""

import numpy as np
import pytest

from umr_jax.geometry.sampling import texel_barycentrics
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import export_layout, sphere_to_uv, texel_uv, uv_directions

LEVELS = range(5)
SIDES = [1, 2, 3, 6, 7]
BOTH = pytest.mark.parametrize("symmetric_texture", [True, False])


def _gap(a, b):
  """The distance of UV positions in each coordinate; u is a circle of circumference 2."""
  gap = np.asarray(a, np.float64) - b
  gap[..., 0] = np.mod(gap[..., 0] + 1.0, 2.0) - 1.0
  return np.abs(gap)


def _texel_read(w0, w1, side):
  """The texel that the renderer's surface look-up reads at barycentric weights w0, w1."""
  i, j = int(np.floor(w0 * side)), int(np.floor(w1 * side))
  if (w0 + w1) * side - i - j <= 1.0:
    return j * side + i
  return (side - 1 - j) * side + (side - 1 - i)


def _inside_weights(rng, count):
  weights = rng.dirichlet(np.ones(3), size=count)
  return np.clip(weights, 1e-5, 1.0 - 1e-5)


def test_directions_of_the_frame():
  points = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 2.0, 2.0]]
  expected = [[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0], [-1.0, 0.0], [0.0, -0.5]]
  np.testing.assert_allclose(sphere_to_uv(np.array(points)), expected, atol=1e-15)


def test_matches_the_spherical_angles(rng):
  points = rng.normal(size=(3, 50, 3))
  uv = sphere_to_uv(points)
  for index in np.ndindex(3, 50):
    x, y, z = points[index]
    theta, phi = np.arccos(z / np.linalg.norm(points[index])), np.arctan2(y, x)
    # A quarter turn from 2 (phi + pi) / (2 pi) - 1.
    assert _gap(uv[index], [phi / np.pi - 0.5, 2.0 * theta / np.pi - 1.0]).max() < 1e-12


def test_the_right_half_is_the_middle_of_the_map(rng):
  points = rng.normal(size=(200, 3))
  uv = sphere_to_uv(points)
  np.testing.assert_array_equal(np.abs(uv[:, 0]) < 0.5, points[:, 1] > 0.0)
  assert (uv >= -1.0).all()
  assert (uv[:, 0] < 1.0).all()
  assert (uv[:, 1] <= 1.0).all()


def test_poles_and_negative_zeros_are_finite_and_the_origin_is_refused():
  poles = np.array([[0.0, 0.0, 1.0], [0.0, -0.0, -1.0]])
  uv = sphere_to_uv(poles)
  assert np.isfinite(uv).all()
  np.testing.assert_array_equal(uv[:, 1], [-1.0, 1.0])
  back = sphere_to_uv(np.array([[-1.0, 0.0, 0.0], [-1.0, -0.0, 0.0]]))
  np.testing.assert_allclose(back, [[0.5, 0.0]] * 2, atol=1e-15)
  with pytest.raises(ValueError, match="origin"):
    sphere_to_uv(np.zeros(3))


@pytest.mark.parametrize("side", SIDES)
def test_every_texel_is_sampled_in_the_middle_of_where_the_renderer_reads_it(side):
  # The sub-triangles of the lattice, straight from their corners.
  weights = texel_barycentrics(side)
  seen = set()
  for i, j in np.ndindex(side, side):
    if i + j >= side:
      continue
    triangles = [[(i, j), (i + 1, j), (i, j + 1)]]
    if i + j + 2 <= side:
      triangles.append([(i + 1, j + 1), (i + 1, j), (i, j + 1)])
    for corners in triangles:
      w0, w1 = np.mean(corners, axis=0) / side
      texel = _texel_read(w0, w1, side)
      np.testing.assert_allclose(weights[texel], [w0, w1, 1.0 - w0 - w1], atol=1e-12)
      seen.add(texel)
  assert seen == set(range(side * side))


@pytest.mark.parametrize("side", SIDES)
def test_every_reading_lies_within_the_texel(rng, side):
  weights = texel_barycentrics(side)
  assert (weights > 0.0).all()
  for w in _inside_weights(rng, 300):
    # No point of a triangle is further from its centroid, in any weight, than 2/3 of its size.
    gap = np.abs(weights[_texel_read(w[0], w[1], side)] - w)
    assert gap.max() <= 2.0 / 3.0 / side + 1e-4


@pytest.mark.parametrize("side", [1, 2, 6])
def test_a_colour_painted_on_the_map_is_read_back_where_it_was_painted(side):
  """Paint in UV, fill texels, look up as the renderer does at every texel's own centre."""
  topology = build_topology(2, texels_per_side=side, symmetric_texture=True)

  def paint(uv):
    u, v = np.moveaxis(uv.astype(np.float64), -1, 0)
    return np.stack([np.cos(np.pi * u), np.sin(np.pi * u), v], axis=-1)

  textures = paint(topology.texel_uv)[topology.face_texels]  # [F, T, 3]
  sphere = topology.sphere.astype(np.float64)
  for face in range(0, topology.num_faces, 7):
    corners = sphere[topology.faces[face]]
    if topology.face_texels[face] != face:
      corners = corners * [1.0, -1.0, 1.0]  # a left face shows the right one's colours
    for w in texel_barycentrics(side):
      read = textures[face, _texel_read(w[0], w[1], side)]
      np.testing.assert_allclose(read, paint(sphere_to_uv(w @ corners)), atol=1e-6)


@BOTH
def test_a_smooth_colour_is_read_back_everywhere_to_within_a_texel(rng, symmetric_texture):
  topology = build_topology(3, texels_per_side=6, symmetric_texture=symmetric_texture)
  sphere = topology.sphere.astype(np.float64)
  # The direction itself as the colour: a texel is 0.16 / 6 wide, and its centre nearer than that.
  u, v = np.moveaxis(topology.texel_uv.astype(np.float64), -1, 0)
  phi, theta = np.pi * (u + 0.5), np.pi * (v + 1.0) / 2.0
  direction = np.stack(
    [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
  )
  textures = direction[topology.face_texels]
  for face, w in zip(rng.integers(0, 1280, size=400), _inside_weights(rng, 400), strict=True):
    point = w @ sphere[topology.faces[face]]
    if topology.face_texels[face] != face:
      point[1] *= -1.0
    read = textures[face, _texel_read(w[0], w[1], 6)]
    assert np.linalg.norm(read - point / np.linalg.norm(point)) < 0.165 / 6


def test_texels_of_a_degenerate_face_are_finite():
  sphere = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
  uv = texel_uv(sphere, np.array([[0, 0, 0], [0, 1, 1]]), texels_per_side=3)
  assert uv.shape == (2, 9, 2)
  assert np.isfinite(uv).all()


def _layout(level, symmetric_texture):
  topology = build_topology(level, texels_per_side=6, symmetric_texture=symmetric_texture)
  return topology, export_layout(topology)


@BOTH
@pytest.mark.parametrize("level", LEVELS)
def test_the_layout_is_the_mesh_wound_outward(level, symmetric_texture):
  topology, layout = _layout(level, symmetric_texture)
  np.testing.assert_array_equal(layout.vertex_source[layout.faces], topology.outward_faces)
  assert layout.faces.dtype == layout.vertex_source.dtype == np.int32
  assert layout.uv.dtype == np.float32
  np.testing.assert_array_equal(np.unique(layout.faces), np.arange(len(layout.uv)))
  # Few are duplicated: around the plane, along the seam and at the poles only.
  assert len(layout.uv) <= topology.num_vertices + 2 * topology.num_self_faces + 12


@BOTH
@pytest.mark.parametrize("level", LEVELS)
def test_no_exported_face_is_torn(level, symmetric_texture):
  _, layout = _layout(level, symmetric_texture)
  spread = np.ptp(layout.uv[layout.faces], axis=1)
  # Two of the map's 2; at level 0 two faces touch both the plane's ends.
  assert spread.max() <= 1.0
  if level > 0:
    assert spread[:, 0].max() < 0.4
  assert (np.abs(layout.uv[:, 1]) <= 1.0).all()


@BOTH
@pytest.mark.parametrize("level", LEVELS)
def test_u_leaves_the_map_by_less_than_a_face(level, symmetric_texture):
  _, layout = _layout(level, symmetric_texture)
  width = np.ptp(layout.uv[layout.faces, 0], axis=1)
  beyond = np.abs(layout.uv[layout.faces, 0]).max(axis=1) - 1.0
  assert (beyond < np.maximum(width, 1e-6)).all()
  if symmetric_texture:
    assert beyond.max() <= 0.0


def _shown(topology, faces, points):
  """The UV position that the renderer shows at points of faces: mirrored on left faces."""
  mirrored = topology.face_texels[faces] != faces
  points = points * np.where(mirrored[:, None], [1.0, -1.0, 1.0], 1.0)
  return sphere_to_uv(points)


@BOTH
@pytest.mark.parametrize(("level", "tolerance"), [(1, 0.06), (2, 0.015), (3, 0.004), (4, 0.001)])
def test_every_point_of_a_face_exports_the_position_it_shows(
  rng, level, symmetric_texture, tolerance
):
  # uv is linear over an exported face and angles are not: the tolerance falls by 4 a level.
  topology, layout = _layout(level, symmetric_texture)
  faces = np.repeat(np.arange(topology.num_faces), 10)
  weights = _inside_weights(rng, len(faces))[:, :, None]
  corners = topology.sphere.astype(np.float64)[topology.outward_faces]
  points = (weights * corners[faces]).sum(axis=1)
  exported = (weights * layout.uv[layout.faces][faces]).sum(axis=1)
  gap = _gap(exported, _shown(topology, faces, points))
  # Near the poles u turns arbitrarily fast: only faces that stay away from them are held to it.
  away = (np.abs(corners[faces, :, 2]) < 0.85).all(axis=1)
  assert away.mean() > 0.5
  assert gap[away].max() < tolerance


@BOTH
def test_exported_corners_are_exact_but_at_the_poles(symmetric_texture):
  topology, layout = _layout(3, symmetric_texture)
  faces = np.repeat(np.arange(topology.num_faces), 3)
  corners = topology.sphere.astype(np.float64)[topology.outward_faces].reshape(-1, 3)
  exported = layout.uv[layout.faces].reshape(-1, 2)
  at_pole = np.abs(corners[:, 2]) > 1.0 - 1e-6
  gap = _gap(exported, _shown(topology, faces, corners))
  assert gap[~at_pole].max() < 1e-6
  assert gap[at_pole, 1].max() < 1e-6
  assert at_pole.sum() == 12


@BOTH
@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_export_agrees_with_the_texels_the_renderer_reads(level, symmetric_texture):
  topology, layout = _layout(level, symmetric_texture)
  # The export's corners, in the order of the faces that are rendered.
  exported = np.empty((topology.num_faces, 3, 2))
  for face in range(topology.num_faces):
    for corner in range(3):
      place = list(topology.outward_faces[face]).index(topology.faces[face, corner])
      exported[face, corner] = layout.uv[layout.faces[face, place]]
  at_texels = np.einsum("tc,fcd->ftd", texel_barycentrics(6), exported)
  gap = _gap(at_texels, topology.texel_uv[topology.face_texels])
  away = (np.abs(topology.sphere[topology.faces][..., 2]) < 0.85).all(axis=1)
  assert gap[away].max() < 0.06 / 4 ** (level - 1)


@pytest.mark.parametrize("level", LEVELS)
def test_with_a_symmetric_texture_left_faces_export_their_partners_positions(level):
  topology, layout = _layout(level, True)
  first_left = len(topology.texel_uv)
  for left in range(first_left, topology.num_faces):
    right = topology.face_texels[left]
    # Outward winding swaps the last two corners of the left face.
    np.testing.assert_array_equal(
      layout.uv[layout.faces[left, [0, 2, 1]]], layout.uv[layout.faces[right]]
    )
  assert (np.abs(layout.uv[layout.faces[topology.num_self_faces :], 0]) <= 0.5 + 1e-6).all()


def test_directions_are_the_inverse_of_the_map():
  directions = uv_directions(16)
  row, column = np.mgrid[0:16, 0:32] + 0.5
  expected = np.stack([column / 16 - 1, row / 8 - 1], axis=-1)
  np.testing.assert_allclose(sphere_to_uv(directions), expected, atol=1e-9)
  np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1.0)
