"""A prediction applied to the template: offsets and flow become a textured mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from umr_jax.geometry.sampling import axis_centers, bilinear_sample
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.types import EMState, Template, Topology, checked


@checked
def assemble_vertices(
  half_offsets: Float[Array, "B Vh 3"], template: Template, topology: Topology
) -> Float[Array, "B V 3"]:
  """Adds an instance's offsets to the category's mean shape and mirrors the sum.

  Args:
    half_offsets: of the learned half of the vertices, in object units.
    template: the mean shape.
    topology: the mesh.

  Returns:
    All vertices, symmetric in y = 0, in object space.

  Source: Li et al. 2020, section 3.1: V = V_template + Delta V.
  """
  half = template.half_vertices[None] + half_offsets
  return symmetrize(half, num_center=topology.num_center)


@checked
def face_flow(flow_map: Float[Array, "B Hu Wu 2"], topology: Topology) -> Float[Array, "B F T 2"]:
  """Where on the image each texel of each face takes its colour.

  Args:
    flow_map: the network's flow.
    topology: the mesh and its UV layout.

  Returns:
    Image positions (x, y). With a symmetric texture, left faces repeat their right partners'.
  """
  return expand_rows(row_flow(flow_map, topology), topology)


@checked
def row_flow(flow_map: Float[Array, "B Hu Wu 2"], topology: Topology) -> Float[Array, "B U T 2"]:
  """`face_flow` for the U rows of texels that differ.

  What is the same for a left face and its right partner (a texel's colour, for example) is
  computed at half the cost for the rows alone, and spread over the faces with `expand_rows`
  afterwards.

  Args:
    flow_map: the network's flow.
    topology: the mesh and its UV layout.
  """
  flow = look_up(flow_map, topology.texel_uv.reshape(-1, 2))
  return flow.reshape(flow.shape[0], *topology.texel_uv.shape)


@checked
def expand_rows(rows: Float[Array, "B U T C"], topology: Topology) -> Float[Array, "B F T C"]:
  """Gives every face its row of texels; with a symmetric texture, left faces their partners'.

  Args:
    rows: the texels of faces that differ.
    topology: the mesh and its UV layout.
  """
  if not topology.symmetric_texture:
    return rows
  # Equal to rows[:, face_texels], whose derivative would be a scatter.
  return jnp.concatenate([rows, rows[:, topology.num_self_faces :]], axis=1)


@checked
def sample_texels(
  image: Float[Array, "B H W C"], flow: Float[Array, "B F T 2"]
) -> Float[Array, "B F T C"]:
  """The colours that a flow picks from an image.

  Args:
    image: RGB in [0, 1], or any other map of it.
    flow: image positions of every texel.

  Returns:
    Texel values; black where the flow leaves the image.

  Source: Li et al. 2020, section 3.1 (texture flow, after Kanazawa et al. 2018).
  """
  batch, faces, texels, _ = flow.shape
  values = bilinear_sample(image, flow.reshape(batch, faces * texels, 2))
  return values.reshape(batch, faces, texels, image.shape[-1])


@checked
def uv_texture(
  image: Float[Array, "B H W C"], flow_map: Float[Array, "B Hu Wu 2"]
) -> Float[Array, "B Hu Wu C"]:
  """The texture as a UV map: each pixel's colour, sampled from the image by the flow.

  Args:
    image: RGB in [0, 1], or any other map of it, such as part probabilities.
    flow_map: the network's flow.

  Returns:
    The UV map.
  """
  batch, height, width, _ = flow_map.shape
  values = bilinear_sample(image, flow_map.reshape(batch, height * width, 2))
  return values.reshape(batch, height, width, image.shape[-1])


@checked
def upsample_flow(flow_map: Float[Array, "B Hu Wu 2"], height: int) -> Float[Array, "B hu wu 2"]:
  """The flow read bilinearly at the pixels of a UV map with `height` rows and twice the columns.

  A flow is smoother than the image that it samples: its texture deserves more pixels than the flow
  has. A map that already has as many is returned as it is.

  Args:
    flow_map: the network's flow.
    height: rows of the result, at least.
  """
  if flow_map.shape[1] >= height:
    return flow_map
  uv = np.stack(np.meshgrid(axis_centers(2 * height), axis_centers(height)), axis=-1)
  return look_up(flow_map, uv.reshape(-1, 2)).reshape(flow_map.shape[0], height, 2 * height, 2)


@checked
def uv_parts_to_texels(
  canonical_uv: Float[Array, "Hu Wu P1"], topology: Topology
) -> Float[Array, "F T P1"]:
  """The part probabilities of each texel of each face, from the category's canonical UV map.

  Args:
    canonical_uv: part probabilities, background first.
    topology: the mesh and its UV layout.

  Returns:
    Texel values that the rasterizer takes as a texture.

  Source: Li et al. 2020, section 3.2 (the canonical semantic UV map rendered onto an instance).
  """
  rows = look_up(canonical_uv[None], topology.texel_uv.reshape(-1, 2))
  rows = rows.reshape(1, *topology.texel_uv.shape[:2], canonical_uv.shape[-1])
  return expand_rows(rows, topology)[0]


@checked
def part_texels(
  canonical_uv: Float[Array, "Hu Wu P1"], topology: Topology
) -> Float[Array, "F T P"]:
  """The canonical part of each texel, as a texture of one channel a part; all 0 for background.

  An average over images is blurred; what is rendered is the most probable part.

  Args:
    canonical_uv: part probabilities, background first.
    topology: the mesh and its UV layout.
  """
  probs = uv_parts_to_texels(canonical_uv, topology)
  one_hot = jnp.argmax(probs, axis=-1)[..., None] == jnp.arange(probs.shape[-1]).reshape(1, 1, -1)
  return one_hot[..., 1:].astype(probs.dtype)


def read_uv_pixels(topology: Topology, *, uv_height: int) -> Bool[np.ndarray, "Hu Wu"]:
  """The pixels of a UV map that a texel or a vertex of the mesh reads.

  With a symmetric texture, that is little more than the half of the map in its middle: no value of
  any other pixel ever reaches a mesh.

  Args:
    topology: the mesh and its UV layout.
    uv_height: rows of the map.
  """

  def sum_of_reads(canonical_uv: Float[Array, "Hu Wu 1"]) -> Float[Array, ""]:
    texels = uv_parts_to_texels(canonical_uv, topology)
    vertices = bilinear_sample(canonical_uv[None], jnp.asarray(topology.vertex_uv)[None])
    return jnp.sum(texels) + jnp.sum(vertices)

  # What is read is what a derivative reaches: both look-ups are sums with weights above zero.
  weights = jax.grad(sum_of_reads)(jnp.zeros((uv_height, 2 * uv_height, 1)))
  return np.asarray(weights[..., 0]) > 0.0


def with_canonical_uv(
  em_state: EMState, canonical_uv: Float[np.ndarray, "Hu Wu P1"], *, topology: Topology
) -> EMState:
  """The state with another canonical UV map, and the part of each vertex that follows from it.

  Args:
    em_state: whose other fields stay.
    canonical_uv: part probabilities, background first.
    topology: the mesh and its UV layout.
  """
  labels = part_vertices(jnp.asarray(canonical_uv), topology)
  return dataclasses.replace(
    em_state, canonical_uv=canonical_uv, part_vertices=np.asarray(jax.device_get(labels))
  )


def part_vertices(canonical_uv: Float[Array, "Hu Wu P1"], topology: Topology) -> Int[Array, "V"]:
  """The most probable part at each vertex of the mesh, 0 for background.

  Args:
    canonical_uv: part probabilities, background first.
    topology: the mesh and its UV layout.
  """
  probs = bilinear_sample(canonical_uv[None], jnp.asarray(topology.vertex_uv)[None])[0]
  return jnp.argmax(probs, axis=-1).astype(jnp.int32)


@checked
def look_up(maps: Float[Array, "B Hu Wu C"], uv: Float[np.ndarray, "N 2"]) -> Float[Array, "B N C"]:
  """Reads UV maps bilinearly at fixed positions.

  Args:
    maps: one UV map per image.
    uv: positions in [-1, 1], the same for the whole batch and known before tracing.

  Returns:
    The values.

  Departs: the map wraps around in u and continues beyond its first and last row, as the sphere
    does; the released code aligns the map's corners with -1 and 1 instead, which does neither.
  """
  batch, height, width, channels = maps.shape
  column, right = _split(uv[:, 0], width)
  row, down = _split(uv[:, 1], height)
  # The batch sits in the last axis: one gather, and in the derivative one scatter, moves a whole
  # row of floats instead of a pair. That is several times faster on a CPU.
  table = maps.transpose(1, 2, 0, 3).reshape(height * width, batch * channels)
  total = jnp.zeros((len(uv), batch * channels), maps.dtype)
  for y, weight_y in ((row, 1.0 - down), (row + 1, down)):
    for x, weight_x in ((column, 1.0 - right), (column + 1, right)):
      index = (np.clip(y, 0, height - 1) * width + x % width).astype(np.int32)
      weight = (weight_y * weight_x).astype(np.float32)[:, None]
      total += weight * jnp.take(table, index, axis=0, mode="clip")
  return total.reshape(len(uv), batch, channels).transpose(1, 0, 2)


def _split(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Positions in [-1, 1] as the index of the pixel before them, and the rest."""
  pixel = (position.astype(np.float64) + 1.0) * (0.5 * size) - 0.5
  before = np.floor(pixel)
  return before.astype(np.int64), pixel - before
