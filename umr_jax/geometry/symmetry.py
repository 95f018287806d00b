"""Left-right symmetry about the plane y = 0: only one half of the mesh is ever learned."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.checking import checked


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SymmetricMesh:
  """A mesh whose order shows its symmetry; see `order_symmetrically`."""

  vertices: np.ndarray  # [V, 3] float64: [centre | right | left]
  faces: np.ndarray  # [F, 3] int32: [self-mirrored | right | left]
  outward_faces: np.ndarray  # [F, 3] int32: the same faces, all wound outward
  num_center: int  # vertices on the plane
  num_self_faces: int  # faces that are their own mirror image


def order_symmetrically(vertices: np.ndarray, faces: np.ndarray) -> SymmetricMesh:
  """Reorders a symmetric mesh so that its mirror image is plain indexing.

  Left vertex i is the mirror image of right vertex i. A left face lists the mirror images of its
  right partner's corners in the same order, so that both can share one row of texels; it winds
  inward therefore, and `outward_faces` is there for whoever needs the winding.

  Args:
    vertices: [V, 3], equal to the last bit to their own mirror image in y = 0; "right" is y > 0.
    faces: [F, 3] vertex indices, wound outward.

  Returns:
    The reordered mesh. Within each group the given order is kept.

  Raises:
    ValueError: where a vertex or a face has no mirror image.

  Source: Kanazawa et al. 2018, section 3.1 (symmetric shapes), which Li et al. 2020 adopt.
  """
  vertices = np.asarray(vertices, np.float64) + 0.0  # -0.0 becomes 0.0
  faces = np.asarray(faces)
  partner = _mirror_partners(vertices)
  center = np.flatnonzero(vertices[:, 1] == 0.0)
  right = np.flatnonzero(vertices[:, 1] > 0.0)
  order = np.concatenate([center, right, partner[right]])
  new_index = np.empty(len(vertices), np.int32)
  new_index[order] = np.arange(len(vertices), dtype=np.int32)

  known = {frozenset(face) for face in faces.tolist()}
  if not all(frozenset(face) in known for face in partner[faces].tolist()):
    raise ValueError("the faces are not mirror symmetric in y = 0: some face has no mirror image")
  is_self = (np.sort(partner[faces], axis=-1) == np.sort(faces, axis=-1)).all(axis=-1)
  # A face of neither kind has all its corners on one side of the plane or on it.
  is_right = ~is_self & (vertices[faces, 1] > 0.0).any(axis=-1)
  own, right_faces = new_index[faces[is_self]], new_index[faces[is_right]]
  left_faces = new_index[partner[faces[is_right]]]
  return SymmetricMesh(
    vertices=vertices[order],
    faces=np.concatenate([own, right_faces, left_faces]),
    outward_faces=np.concatenate([own, right_faces, left_faces[:, [0, 2, 1]]]),
    num_center=len(center),
    num_self_faces=len(own),
  )


@checked
def symmetrize(
  half: Float[Array | np.ndarray, "*B Vh 3"], *, num_center: int
) -> Float[Array, "*B V 3"]:
  """The whole mesh from its learned half: appends the mirror images of the right vertices.

  Args:
    half: [centre | right] vertices, or offsets of such vertices.
    num_center: how many of them are centre vertices.

  Returns:
    [centre | right | left] vertices, exactly symmetric in y = 0.

  Source: Kanazawa et al. 2018, section 3.1, which Li et al. 2020 adopt.
    Departs: the y of centre vertices is forced to 0. Left free, as in the released code, the seam
    can leave the mirror plane and the surface can open or cross itself there.
  """
  half = jnp.asarray(half)
  flat = _constant((1.0, 0.0, 1.0), half)
  flip = _constant((1.0, -1.0, 1.0), half)
  right = half[..., num_center:, :]
  return jnp.concatenate([half[..., :num_center, :] * flat, right, right * flip], axis=-2)


@checked
def halve(
  vertices: Float[Array | np.ndarray, "*B V 3"], *, num_center: int
) -> Float[Array | np.ndarray, "*B Vh 3"]:
  """The learned half of a whole mesh: drops the left vertices.

  Args:
    vertices: [centre | right | left] vertices.
    num_center: how many of them are centre vertices.

  Returns:
    [centre | right] vertices, NumPy's where `vertices` are; `symmetrize` restores a symmetric mesh
    from them.
  """
  return vertices[..., : (vertices.shape[-2] + num_center) // 2, :]


def mirrored_order(num_vertices: int, num_center: int) -> Int[np.ndarray, "V"]:
  """The index of every vertex's mirror image in a mesh that is ordered symmetrically.

  Args:
    num_vertices: V.
    num_center: how many of them are centre vertices.
  """
  order = np.arange(num_vertices)
  center, right, left = np.split(order, [num_center, (num_vertices + num_center) // 2])
  return np.concatenate([center, left, right])


def _mirror_partners(vertices: np.ndarray) -> np.ndarray:
  """The index of every vertex's mirror image."""
  index = {tuple(vertex): i for i, vertex in enumerate(vertices.tolist())}
  partners = []
  for x, y, z in vertices.tolist():
    if (x, -y, z) not in index:
      raise ValueError(f"vertex ({x}, {y}, {z}) has no mirror image in y = 0; the order needs one")
    partners.append(index[x, -y, z])
  return np.array(partners, np.int32)


def _constant(values: tuple[float, ...], like: Array) -> Array:
  """The vector `values`, with as many dimensions as `like`."""
  return jnp.asarray(values, like.dtype).reshape((1,) * (like.ndim - 1) + (len(values),))
