"""What a run writes about its template."""

import dataclasses
import types

import numpy as np
import pytest

from tests.tiny import tiny_config
from umr_jax.em.monitor import Monitor, read_template_sizes
from umr_jax.geometry.topology import build_topology
from umr_jax.init.silhouettes import unit_sphere
from umr_jax.init.state import bare_em_state

TOPOLOGY = build_topology(3, texels_per_side=1, symmetric_texture=False)


@pytest.mark.parametrize("found", [True, False])
def test_a_template_is_measured(tmp_path, found):
  half = unit_sphere(TOPOLOGY) * np.array([1.0, 0.5, 0.25], np.float32)
  em_state = bare_em_state(half)
  cameras = np.ones((5, 7), np.float32)
  if found:
    em_state = dataclasses.replace(em_state, target_cameras=cameras)
  asked = []
  truth = types.SimpleNamespace(iou=lambda *given: asked.append(given) or 0.625)
  with Monitor(tiny_config(tmp_path), tmp_path, None, truth) as monitor:
    moved = np.tile(np.array([[0.3, 0.0, 0.4]], np.float32), (len(half), 1))
    monitor.template_updated(7, em_state, TOPOLOGY, mean_offset=moved)
  (line,) = read_template_sizes(tmp_path)
  sides = [line[f"template/{name}"] for name in ("length", "width", "height")]
  np.testing.assert_allclose(sides, [2.0, 1.0, 0.5], rtol=1e-3)
  # A polyhedron in an ellipsoid is a little smaller.
  np.testing.assert_allclose(line["template/volume"], np.pi / 6.0, rtol=0.03)
  assert line["step"] == 7 and line["template/moved"] == pytest.approx(0.5)
  assert line.get("template/iou_3d") == (0.625 if found else None)
  if found:  # without target cameras nothing tells the template's frame
    vertices, faces, given = asked[0]
    assert vertices.shape == (TOPOLOGY.num_vertices, 3) and faces.shape == TOPOLOGY.faces.shape
    np.testing.assert_array_equal(given, cameras)
