"""The meshes on which the losses are measured."""

import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology


@pytest.fixture(scope="session")
def topology():
  return build_topology(1, texels_per_side=3, symmetric_texture=True)


@pytest.fixture(scope="session")
def fine_topology():
  return build_topology(3, texels_per_side=1, symmetric_texture=False)


@pytest.fixture(scope="session")
def golden_topology(topology, golden_geometry):
  """The connectivity of the golden mesh, whose faces are ordered differently, found by loops."""
  faces = golden_geometry["mesh/faces"]
  opposite: dict[tuple[int, int], list[int]] = {}
  for face in faces:
    for i in range(3):
      a, b, c = (int(face[(i + j) % 3]) for j in range(3))
      opposite.setdefault((min(a, b), max(a, b)), []).append(c)
  edges = np.array(list(opposite), np.int32)
  num_vertices = int(faces.max()) + 1
  around: list[list[int]] = [[] for _ in range(num_vertices)]
  for a, b in edges:
    around[a].append(b)
    around[b].append(a)
  return topology.replace(
    faces=faces,
    edges=edges,
    neighbors=np.array([n + [i] * (6 - len(n)) for i, n in enumerate(around)], np.int32),
    degrees=np.array([len(n) for n in around], np.int32),
    face_pairs=np.array([[*edge, *two] for edge, two in opposite.items()], np.int32),
  )


@pytest.fixture
def vertices(topology, rng):
  """Two bumpy meshes [2, V, 3]."""
  noise = rng.normal(scale=0.1, size=(2, *topology.sphere.shape))
  return (topology.sphere + noise).astype(np.float32)
