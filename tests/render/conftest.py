"""Pixels beside faces, for what is computed of one (pixel, face) pair."""

import numpy as np
import pytest

from tests.render import render_scenes as scenes


@pytest.fixture
def pairs(rng):
  """Triangles, a pixel beside each, and the rows of these pairs."""
  faces = scenes.triangles(rng, 200)
  pixels = rng.uniform(-1.0, 1.0, (200, 2)).astype(np.float32)
  return faces, pixels, scenes.rows_of(faces, pixels)
