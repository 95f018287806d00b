"""Swept surfaces, closed tubes of elliptic rings: what synthetic birds are made of."""

from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
  """One closed tube with its surface coordinates."""

  vertices: np.ndarray  # [V, 3]
  faces: np.ndarray  # [F, 3] wound outward
  along: np.ndarray  # [V] position along the tube
  across: np.ndarray  # [V] position across it, -1 to 1
  tip: np.ndarray  # [3] the tube's end


def sweep_rings(
  center: np.ndarray, first: np.ndarray, second: np.ndarray, *, sides: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """A closed tube of elliptic rings, with a vertex at both ends.

  Args:
    center: [S, 3] ring centres.
    first: [S, 3] half axis at angle 0.
    second: [S, 3] half axis at a quarter turn; `first x second` points along the tube.
    sides: vertices per ring; even, so that a ring is symmetric about both axes.

  Returns:
    vertices [S * sides + 2, 3] (rings, start, end), outward faces, and each vertex's angle.
  """
  stations = center.shape[0]
  angle = 2.0 * np.pi * np.arange(sides) / sides
  rings = (
    center[:, None]
    + np.cos(angle)[None, :, None] * first[:, None]
    + np.sin(angle)[None, :, None] * second[:, None]
  )
  vertices = np.concatenate([rings.reshape(-1, 3), center[:1], center[-1:]])
  s, k = np.meshgrid(np.arange(stations - 1), np.arange(sides), indexing="ij")
  a, b = (s * sides + k).ravel(), (s * sides + (k + 1) % sides).ravel()
  c, d = a + sides, b + sides
  ring = np.arange(sides)
  following = (ring + 1) % sides
  last, start, end = (stations - 1) * sides, stations * sides, stations * sides + 1
  faces = np.concatenate(
    [
      np.stack([a, b, d], axis=-1),
      np.stack([a, d, c], axis=-1),
      np.stack([np.full(sides, start), following, ring], axis=-1),
      np.stack([np.full(sides, end), last + ring, last + following], axis=-1),
    ]
  )
  return vertices, faces, np.concatenate([np.tile(angle, stations), [0.0, 0.0]])


def spread_to_ends(values: np.ndarray, sides: int) -> np.ndarray:
  """Repeats a value per ring for the ring's vertices and for the two end vertices.

  Args:
    values: [S] of the rings.
    sides: vertices per ring.
  """
  return np.concatenate([np.repeat(values, sides), values[[0, -1]]])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """Unit normals, the area-weighted mean of the faces around a vertex.

  Args:
    vertices: [V, 3].
    faces: [F, 3] wound outward.

  Returns:
    [V, 3].
  """
  a, b, c = (vertices[faces[:, i]] for i in range(3))
  face_normals = np.cross(b - a, c - a)
  normals = np.zeros_like(vertices)
  for corner in range(3):
    for axis in range(3):
      normals[:, axis] += np.bincount(
        faces[:, corner], weights=face_normals[:, axis], minlength=vertices.shape[0]
      )
  return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
