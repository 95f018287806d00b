"""Exported files: what other programs read from them is the mesh that was predicted."""

import json
import struct

import numpy as np
import pytest
import trimesh

from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import export_layout, sphere_to_uv
from umr_jax.predict import export

HEIGHT, WIDTH = 32, 64


@pytest.fixture(params=[True, False], ids=["symmetric", "free"])
def topology(request):
  return build_topology(2, texels_per_side=2, symmetric_texture=request.param)


@pytest.fixture
def vertices(topology):
  """A sphere pulled and bent into something without symmetry front to back or top to bottom."""
  x, y, z = topology.sphere.T
  return np.stack([1.5 * x + 0.3 * z * z, 0.5 * y, 0.7 * z + 0.2 * x * x], -1).astype(np.float32)


@pytest.fixture
def texture():
  """Red falls with rows, green with columns: smooth, so that a look-up can be predicted."""
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  red, green = 255 * rows / (HEIGHT - 1), 255 * columns / (WIDTH - 1)
  return np.stack([red, green, 0 * red + 40], -1).astype(np.uint8)


def loaded(path):
  return trimesh.load_mesh(path, process=False)


def lookup(mesh, faces_uv):
  """What a viewer shows at texture coordinates: bilinear, repeating in u, v upwards."""
  material = mesh.visual.material
  image = getattr(material, "baseColorTexture", None) or material.image
  pixels = np.asarray(image.convert("RGB"), np.float64)
  height, width = pixels.shape[:2]
  x = faces_uv[:, 0] * width - 0.5
  y = (1 - faces_uv[:, 1]) * height - 0.5
  column, row = np.floor(x).astype(int), np.floor(y).astype(int)
  total = np.zeros((len(faces_uv), 3))
  for down in (0, 1):
    for right in (0, 1):
      weight = np.abs(1 - down - (y - row)) * np.abs(1 - right - (x - column))
      values = pixels[np.clip(row + down, 0, height - 1), (column + right) % width]
      total += weight[:, None] * values
  return total


def test_glb_comes_back_turned_y_up_with_everything_it_left_with(
  tmp_path, vertices, texture, topology
):
  path = export.export_mesh(tmp_path / "a bird.glb", vertices, texture, topology)
  mesh = loaded(path)
  source, faces, uv = export_layout(topology)
  x, y, z = vertices[source].T
  np.testing.assert_array_equal(mesh.vertices, np.stack([x, z, -y], -1))
  np.testing.assert_array_equal(mesh.faces, faces)
  np.testing.assert_allclose(mesh.visual.uv[:, 0], (uv[:, 0] + 1) / 2, atol=1e-6)
  np.testing.assert_allclose(mesh.visual.uv[:, 1], 1 - (uv[:, 1] + 1) / 2, atol=1e-6)
  material = mesh.visual.material
  assert (material.metallicFactor, material.roughnessFactor, material.doubleSided) == (0, 0.9, True)
  used = np.asarray(material.baseColorTexture)
  np.testing.assert_array_equal(used, export.fill_unused(texture, topology))


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_faces_wind_outward_in_every_format(tmp_path, vertices, texture, topology, suffix):
  mesh = loaded(export.export_mesh(tmp_path / f"mesh.{suffix}", vertices, texture, topology))
  whole = trimesh.Trimesh(vertices, topology.outward_faces, process=False)
  assert mesh.volume == pytest.approx(whole.volume, rel=1e-4)
  assert mesh.volume > 0.5
  np.testing.assert_allclose(
    np.sum(mesh.vertex_normals * (mesh.vertices - mesh.center_mass), -1) > -0.2, True
  )


def test_copies_along_the_seam_share_a_normal(vertices, texture, topology):
  mesh = export.textured_mesh(vertices, texture, topology)
  source = export_layout(topology).vertex_source
  assert len(source) > topology.num_vertices
  expected = export.vertex_normals(vertices, topology)
  np.testing.assert_allclose(mesh.vertex_normals, expected[source], atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(expected, axis=-1), 1.0, rtol=1e-6)


def test_normals_match_a_loop_and_survive_a_collapsed_mesh(vertices, topology):
  sums = np.zeros((topology.num_vertices, 3))
  for a, b, c in topology.outward_faces:
    normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    for vertex in (a, b, c):
      sums[vertex] += normal
  expected = sums / np.linalg.norm(sums, axis=-1, keepdims=True)
  np.testing.assert_allclose(export.vertex_normals(vertices, topology), expected, atol=1e-5)
  np.testing.assert_array_equal(
    export.vertex_normals(np.zeros_like(vertices), topology), topology.sphere
  )


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_a_viewer_finds_the_texel_that_the_face_reads(
  tmp_path, vertices, texture, topology, suffix
):
  # One texel a face: its position is the face's centroid, where the viewer looks too.
  one = build_topology(2, texels_per_side=1, symmetric_texture=topology.symmetric_texture)
  expected_uv = one.texel_uv[one.face_texels][:, 0]
  expected = np.stack([(expected_uv[:, 1] + 1) / 2, (expected_uv[:, 0] + 1) / 2], -1) * 255
  mesh = loaded(export.export_mesh(tmp_path / f"mesh.{suffix}", vertices, texture, topology))
  centroid_uv = mesh.visual.uv[mesh.faces].mean(axis=1)
  # Interpolating u and v over a face is not the projection of the sphere, and at the poles u turns
  # within a face: compared only away from them, to the size of a face's curvature.
  away = np.abs(expected_uv[:, 1]) < 0.6
  # Pixels of the map that wrap around are dark on one side and bright on the other.
  away &= np.abs(np.abs(expected_uv[:, 0]) - 1.0) > 0.1
  found = lookup(mesh, centroid_uv)[:, :2]
  assert away.sum() > 150
  np.testing.assert_allclose(found[away], expected[away], atol=6)
  # An error in the flip of v, or in u, would be of the order of the map.
  assert np.abs(found[away] - (255 - expected[away])).max() > 100


def test_nothing_that_no_face_reads_survives_in_the_exported_map(texture):
  topology = build_topology(2, texels_per_side=2, symmetric_texture=True)
  filled = export.fill_unused(texture, topology)
  columns = (2 * np.arange(WIDTH) + 1 - WIDTH) / WIDTH
  inside = np.abs(columns) < 0.5
  # At the poles the faces taper to points, and leave slivers of the outermost rows unread.
  rows = slice(2, -2)
  np.testing.assert_array_equal(filled[rows, inside], texture[rows, inside])
  # The far left half would have green near 0 or 255; it now repeats the border of the used half.
  assert filled[..., 1].min() > 15
  assert filled[..., 1].max() < 240
  free = build_topology(2, texels_per_side=2, symmetric_texture=False)
  np.testing.assert_array_equal(export.fill_unused(texture, free)[rows], texture[rows])


def test_obj_files_of_one_folder_do_not_share_names(tmp_path, vertices, texture, topology):
  for name in ("one", "two", "a bird", "a_bird"):
    export.export_mesh(tmp_path / f"{name}.obj", vertices, texture // (len(name) + 1), topology)
  assert {p.name for p in tmp_path.iterdir() if " " not in p.stem} >= {
    f"{name}.{end}" for name in ("one", "two", "a_bird") for end in ("obj", "mtl", "png")
  }
  assert len(list(tmp_path.iterdir())) == 12
  for name in ("one", "two", "a bird", "a_bird"):
    image = loaded(tmp_path / f"{name}.obj").visual.material.image
    expected = export.fill_unused(texture // (len(name) + 1), topology)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)
  assert "Kd 1.0" in (tmp_path / "one.mtl").read_text()


def test_ply_holds_each_vertex_once_with_its_colour(tmp_path, vertices, texture, topology):
  mesh = loaded(export.export_mesh(tmp_path / "mesh.ply", vertices, texture, topology))
  np.testing.assert_allclose(mesh.vertices, vertices, rtol=1e-6)
  right = (topology.sphere[:, 1] > 1e-6) & (np.abs(topology.sphere[:, 2]) < 0.9)
  v = sphere_to_uv(topology.sphere[right])[:, 1]
  np.testing.assert_allclose(mesh.visual.vertex_colors[right, 0], 255 * (v + 1) / 2, atol=9)


def test_html_refers_to_nothing_outside_itself(tmp_path, vertices, texture, topology):
  page = export.export_mesh(tmp_path / "mesh.html", vertices, texture, topology).read_text()
  assert "<html" in page.lower()
  for reference in ('src="http', "src='http", 'href="http', "@import"):
    assert reference not in page


def test_template_without_a_texture_is_grey(tmp_path, topology):
  mesh = loaded(export.export_template(tmp_path / "t.glb", topology.sphere, topology))
  assert np.unique(np.asarray(mesh.visual.material.baseColorTexture)).tolist() == [190]


def test_glb_declares_what_it_holds(tmp_path, vertices, texture, topology):
  data = export.export_mesh(tmp_path / "m.glb", vertices, texture, topology).read_bytes()
  magic, version, length = struct.unpack("<4sII", data[:12])
  assert (magic, version, length) == (b"glTF", 2, len(data))
  (size,) = struct.unpack("<I", data[12:16])
  tree = json.loads(data[20 : 20 + size])
  primitive = tree["meshes"][0]["primitives"][0]
  assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(primitive["attributes"])
  assert tree["images"][0]["mimeType"] == "image/png"
  # Seam faces reach beyond the map's border, so that the texture must repeat (the default).
  assert all(sampler.get("wrapS", 10497) == 10497 for sampler in tree.get("samplers", []))


@pytest.mark.parametrize("broken", ["nan", "shape", "dtype", "suffix"])
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
  tmp_path, vertices, texture, topology, broken
):
  name = "mesh.glb"
  if broken == "nan":
    vertices[3, 1] = np.nan
  elif broken == "shape":
    vertices = vertices[:-1]
  elif broken == "dtype":
    texture = texture.astype(np.float32)
  else:
    name = "mesh.usdz"
  pattern = {"nan": "1 of", "shape": "topology needs", "dtype": "uint8", "suffix": ".glb, .obj"}
  with pytest.raises(ValueError, match=pattern[broken]):
    export.export_mesh(tmp_path / name, vertices, texture, topology)
  assert not list(tmp_path.iterdir())
