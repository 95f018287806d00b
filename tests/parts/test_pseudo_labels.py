"""Pseudo labels: rendered parts cover the silhouette; those that agree best count."""

import numpy as np
import pytest

from umr_jax.parts.pseudo_labels import confident, inside_mask


def test_rendered_parts_continue_to_the_edge_of_the_silhouette_and_end_there():
  maps = np.zeros((8, 8, 2), np.float32)
  maps[2:6, 2:4, 0] = 1.0
  maps[2:6, 4:8, 1] = 1.0  # reaches beyond the silhouette on the right
  mask = np.zeros((8, 8), np.float32)
  mask[1:7, 0:6] = 1.0
  mask[1, 0] = 0.5
  parts = inside_mask(maps, mask)
  np.testing.assert_allclose(parts.sum(-1), 1.0)
  np.testing.assert_allclose(parts[..., 0], 1.0 - mask)
  assert (parts[2:6, 0:4].argmax(-1) == 1).all()  # continued to the left
  assert (parts[2:6, 4:6].argmax(-1) == 2).all()
  assert (parts[:, 6:].argmax(-1) == 0).all()


def test_a_mesh_outside_of_the_image_gives_no_label():
  parts = inside_mask(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32))
  assert parts.shape == (4, 4, 4) and not parts.any()


def test_low_ranks_in_both_losses_are_confident():
  probability = np.array([0.1, 0.2, 0.3, 0.4, np.inf], np.float32)
  vertices = np.array([20.0, 10.0, 50.0, 30.0, np.inf], np.float32)
  chosen = confident(probability, vertices, share=0.4)
  np.testing.assert_array_equal(chosen, [True, True, False, False, False])
  assert confident(probability, vertices, share=0.0).sum() == 1
  assert confident(probability, vertices, share=1.0).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_a_loss_do_not_matter(rng, scale):
  first, second = rng.random((2, 30)).astype(np.float32)
  np.testing.assert_array_equal(
    confident(first, second, share=0.5), confident(first * np.float32(scale), second, share=0.5)
  )
