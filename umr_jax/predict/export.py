"""Meshes as files that other programs open: GLB, OBJ, PLY and a self-contained HTML viewer.

Here, and nowhere else, image rows become texture coordinates that point up, and object space (z up)
becomes the y-up space of GLB: (x, y, z) goes to (x, z, -y), a rotation, so that faces stay wound
outward. OBJ and PLY keep object space, which is what Blender and most scan tools call "z up".
"""

import functools
import io
import os
import pathlib
import re
import zlib
from collections.abc import Callable

import numpy as np
import scipy.ndimage
import trimesh
from PIL import Image
from trimesh.viewer import notebook
from trimesh.visual.material import PBRMaterial, SimpleMaterial
from trimesh.visual.texture import TextureVisuals

from umr_jax.files import write_bytes
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import export_layout
from umr_jax.types import Topology

SUFFIXES = (".glb", ".obj", ".ply", ".html")
_Y_UP = np.array(
  [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0, 0, 0, 1.0]]
)
_GREY = np.full((8, 16, 3), 190, np.uint8)


def textured_mesh(vertices: np.ndarray, texture: np.ndarray, topology: Topology) -> trimesh.Trimesh:
  """The mesh in object space, with its texture map and smooth normals.

  Vertices are repeated along the seams of the UV layout, and the copies share one normal, so that
  shading does not show the seam. What no face uses of the map is filled with the nearest used
  colour, so that neither bilinear filtering nor a viewer's smaller copies of the map bleed.

  Args:
    vertices: [V, 3] in object space.
    texture: uint8 [Hu, Wu, 3], rows downwards; v = -1 is the upper edge of the first row.
    topology: whose UV layout and faces to use.

  Raises:
    ValueError: for shapes that do not fit, NaN or infinite vertices, or a texture not of uint8.
  """
  return _with_material(_matte, vertices, texture, topology)


def _matte(image: Image.Image) -> PBRMaterial:
  return PBRMaterial(
    name="texture",
    baseColorTexture=image,
    metallicFactor=0.0,
    roughnessFactor=0.9,
    doubleSided=True,
  )


def _with_material(
  material: Callable[[Image.Image], PBRMaterial | SimpleMaterial],
  vertices: np.ndarray,
  texture: np.ndarray,
  topology: Topology,
) -> trimesh.Trimesh:
  vertices, texture = _validated(vertices, texture, topology)
  source, faces, uv = export_layout(topology)
  upwards = np.stack([(uv[:, 0] + 1) / 2, (1 - uv[:, 1]) / 2], axis=-1)
  image = Image.fromarray(fill_unused(texture, topology))
  return trimesh.Trimesh(
    vertices=vertices[source],
    faces=faces,
    vertex_normals=vertex_normals(vertices, topology)[source],
    visual=TextureVisuals(uv=upwards, material=material(image)),
    process=False,  # True would merge the copies along the seam
  )


def export_mesh(
  path: str | os.PathLike[str], vertices: np.ndarray, texture: np.ndarray, topology: Topology
) -> pathlib.Path:
  """Writes one mesh; the suffix chooses GLB, OBJ (with .mtl and .png beside it), PLY or HTML.

  Files appear whole or not at all. The names of an OBJ's companions derive from its own, so that
  many fit in one folder.

  Args:
    path: of the file.
    vertices: as for `textured_mesh`.
    texture: likewise.
    topology: likewise.

  Returns:
    The path written.

  Raises:
    ValueError: for an unknown suffix, and as `textured_mesh` does.
  """
  target = pathlib.Path(path).expanduser()
  suffix = target.suffix.lower()
  if suffix not in SUFFIXES:
    raise ValueError(
      f"cannot export to {target.name!r}: the name must end in one of {', '.join(SUFFIXES)}"
    )
  if suffix == ".obj":
    _write_obj(target, vertices, texture, topology)
  elif suffix == ".ply":
    write_bytes(target, _ply(vertices, texture, topology))
  else:
    mesh = textured_mesh(vertices, texture, topology)
    data = _glb(mesh, name=target.stem) if suffix == ".glb" else scene_html(mesh).encode()
    write_bytes(target, data)
  return target


def export_template(
  path: str | os.PathLike[str], vertices: np.ndarray, topology: Topology
) -> pathlib.Path:
  """Writes the category's template in grey; otherwise as `export_mesh`.

  Args:
    path: of the file.
    vertices: [V, 3] in object space.
    topology: of the template.
  """
  return export_mesh(path, vertices, _GREY, topology)


def scene_html(mesh: trimesh.Trimesh) -> str:
  """One HTML page that shows the mesh and can be turned; it refers to nothing outside itself.

  Args:
    mesh: in object space, as `textured_mesh` returns it.
  """
  return str(notebook.scene_to_html(_y_up_scene(mesh, name="mesh")))


def vertex_normals(vertices: np.ndarray, topology: Topology) -> np.ndarray:
  """Outward unit normals [V, 3], averaged over the faces around a vertex, weighted by their area.

  A vertex whose faces have no area takes the direction from the centre of the sphere.

  Args:
    vertices: [V, 3] in object space.
    topology: of the mesh.
  """
  faces = topology.outward_faces
  corners = np.asarray(vertices, np.float64)[faces]
  area_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  sums = np.zeros((topology.num_vertices, 3))
  np.add.at(sums, faces, area_normals[:, None])
  lengths = np.linalg.norm(sums, axis=-1, keepdims=True)
  flat = lengths < 1e-12
  return np.where(flat, topology.sphere, sums / np.where(flat, 1.0, lengths))


def fill_unused(texture: np.ndarray, topology: Topology) -> np.ndarray:
  """The texture map with every pixel that no face can read replaced by the nearest one that can.

  Args:
    texture: [Hu, Wu, 3].
    topology: whose UV layout to use.
  """
  rows, columns = _nearest_used(
    topology.level,
    topology.texels_per_side,
    topology.symmetric_texture,
    texture.shape[0],
    texture.shape[1],
  )
  return texture[rows, columns]


@functools.lru_cache(maxsize=8)
def _nearest_used(
  level: int, texels_per_side: int, symmetric_texture: bool, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Row and column, for each pixel of a UV map, of the nearest pixel that some face reads."""
  topology = build_topology(
    level, texels_per_side=texels_per_side, symmetric_texture=symmetric_texture
  )
  _, faces, uv = export_layout(topology)
  size = np.array([width, height])
  pixels = (uv.astype(np.float64) + 1) / 2 * size - 0.5  # pixel centres at whole numbers
  triangles = pixels[faces]  # [F, 3, 2]
  longest = np.abs(triangles - np.roll(triangles, 1, axis=1)).max()
  steps = max(int(np.ceil(longest)), 1)
  i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
  inside = i + j <= steps
  weights = np.stack([i[inside], j[inside], (steps - i - j)[inside]], axis=-1) / steps
  used = np.zeros((height, width), bool)
  for chunk in np.array_split(triangles, max(len(triangles) // 64, 1)):
    low = np.floor(np.einsum("nc,fcd->fnd", weights, chunk)).astype(int).reshape(-1, 2)
    for offset in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the four pixels of a bilinear read
      column, row = (low + offset).T
      used[np.clip(row, 0, height - 1), column % width] = True
  rows, columns = scipy.ndimage.distance_transform_edt(
    ~used, return_distances=False, return_indices=True
  )
  return rows, columns


def _validated(
  vertices: np.ndarray, texture: np.ndarray, topology: Topology
) -> tuple[np.ndarray, np.ndarray]:
  # trimesh would export NaN vertices without a word, into a file that nothing opens.
  vertices, texture = np.asarray(vertices), np.asarray(texture)
  if vertices.shape != (topology.num_vertices, 3):
    raise ValueError(
      f"vertices have shape {vertices.shape}; the topology needs {(topology.num_vertices, 3)}"
    )
  broken = int((~np.isfinite(vertices)).any(axis=-1).sum())
  if broken:
    raise ValueError(f"{broken} of {len(vertices)} vertices are NaN or infinite: nothing to export")
  if texture.dtype != np.uint8 or texture.ndim != 3 or texture.shape[-1] != 3 or not texture.size:
    raise ValueError(
      f"the texture is {texture.dtype} of shape {texture.shape}; it must be uint8 [Hu, Wu, 3]"
    )
  return vertices, texture


def _y_up_scene(mesh: trimesh.Trimesh, *, name: str) -> trimesh.Scene:
  turned = mesh.copy(include_cache=True)
  turned.apply_transform(_Y_UP)
  scene = trimesh.Scene()
  scene.add_geometry(turned, node_name=name, geom_name=name)
  return scene


def _glb(mesh: trimesh.Trimesh, *, name: str) -> bytes:
  return bytes(_y_up_scene(mesh, name=name).export(file_type="glb", include_normals=True))


def _write_obj(
  target: pathlib.Path, vertices: np.ndarray, texture: np.ndarray, topology: Topology
) -> None:
  # Readers of MTL files split names at spaces, so that unusual names are replaced.
  name = re.sub(r"[^A-Za-z0-9_.-]", "_", target.stem)
  if name != target.stem:
    name += f"_{zlib.crc32(target.stem.encode()):08x}"
  white = [255] * 4  # the default of 0.4 would darken the texture

  def painted(image: Image.Image) -> SimpleMaterial:
    return SimpleMaterial(
      image=image, diffuse=white, ambient=white, specular=[0, 0, 0, 255], name=name
    )

  mesh = _with_material(painted, vertices, texture, topology)
  text, companions = trimesh.exchange.obj.export_obj(
    mesh, include_normals=True, return_texture=True, mtl_name=f"{name}.mtl", header=None
  )
  for file_name, data in companions.items():
    write_bytes(target.parent / file_name, data)
  write_bytes(target, text.encode())


def _ply(vertices: np.ndarray, texture: np.ndarray, topology: Topology) -> bytes:
  """PLY has no texture that programs agree on: the colours of the vertices, without copies."""
  vertices, texture = _validated(vertices, texture, topology)
  source, _, uv = export_layout(topology)
  _, first = np.unique(source, return_index=True)
  size = np.array([texture.shape[1], texture.shape[0]])
  column, row = np.floor((uv[first] + 1) / 2 * size).astype(int).T
  plain = trimesh.Trimesh(
    vertices=vertices,
    faces=topology.outward_faces,
    vertex_normals=vertex_normals(vertices, topology),
    vertex_colors=texture[np.clip(row, 0, size[1] - 1), column % size[0]],
    process=False,
  )
  buffer = io.BytesIO()
  plain.export(buffer, file_type="ply", vertex_normal=True)
  return buffer.getvalue()
