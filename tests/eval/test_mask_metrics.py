"""Mask IoU, soft and hard, against a loop over pixels; thin parts; folds of known surfaces."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.eval.mask_metrics import backface_ratio, hard_mask_iou, thin_parts, thin_scores
from umr_jax.geometry.topology import build_topology
from umr_jax.losses.mask import soft_iou


def test_both_match_a_loop_over_pixels(rng):
  alpha, mask = rng.uniform(size=(2, 3, 5, 7)).astype(np.float32)
  soft, hard = np.zeros(3), np.zeros(3)
  for b in range(3):
    above = both = inside = union = 0.0
    for a, m in zip(alpha[b].ravel(), mask[b].ravel(), strict=True):
      above += a * m
      both += a + m - a * m
      inside += (a > 0.5) and (m > 0.5)
      union += (a > 0.5) or (m > 0.5)
    soft[b], hard[b] = above / both, inside / union
  arrays = {"alpha": jnp.asarray(alpha), "mask": jnp.asarray(mask)}
  np.testing.assert_allclose(soft_iou(**arrays), soft, rtol=1e-5)
  np.testing.assert_allclose(hard_mask_iou(**arrays), hard, rtol=1e-5)


def test_equal_binary_masks_score_one_and_disjoint_or_empty_ones_nothing():
  a = jnp.zeros((3, 4, 4)).at[0, :2].set(1.0).at[1, :2].set(1.0)
  b = jnp.zeros((3, 4, 4)).at[0, :2].set(1.0).at[1, 2:].set(1.0)
  for measure in (soft_iou, hard_mask_iou):
    np.testing.assert_allclose(measure(alpha=a, mask=b), [1.0, 0.0, 0.0], atol=1e-6)


FRAME = 96


def thing(*, legs=True):
  """A trunk of 40 x 24 pixels on two legs of 2 x 20."""
  mask = np.zeros((FRAME, FRAME), bool)
  mask[30:54, 28:68] = True
  if legs:
    mask[54:74, 32:34] = mask[54:74, 60:62] = True
  return mask


def test_legs_are_thin_and_the_trunk_is_not():
  thin = thin_parts(thing())
  legs = thing() & ~thing(legs=False)
  assert thin[legs].mean() > 0.9
  assert thin[thing(legs=False)].mean() < 0.05


def test_a_trunk_that_the_frame_cuts_off_is_not_thin():
  mask = np.zeros((FRAME, FRAME), bool)
  mask[95:, 20:70] = True
  assert thin_parts(mask).sum() < 0.1 * mask.sum()  # its corners
  assert not thin_parts(np.zeros((FRAME, FRAME), bool)).any()


@pytest.mark.parametrize("scale", [1, 2])
def test_recall_is_what_is_covered_and_precision_what_is_right(scale):
  whole, trunk = (
    np.kron(thing(legs=legs), np.ones((scale, scale), bool)) for legs in (True, False)
  )
  shifted = np.roll(whole, 6 * scale, axis=1)
  scores = thin_scores(np.stack([whole, trunk, shifted]), np.stack([whole, whole, whole]))
  np.testing.assert_allclose(scores["thin_recall"][:1], 1.0)
  assert scores["thin_recall"][1:].max() < 0.2
  assert scores["thin_precision"][0] == 1.0 and scores["thin_precision"][-1] < 0.2


def test_images_without_thin_parts_do_not_count():
  smooth = thin_scores(np.stack([thing()] * 2), np.zeros((2, FRAME, FRAME), bool))
  assert smooth["thin_recall"].size == 0 and smooth["thin_precision"].tolist() == [0.0, 0.0]


SIZE = 64
CAMERA = jnp.array([[0.7, 0.0, 0.0, 0.7071068, 0.7071068, 0.0, 0.0]])  # upright, along object y


@pytest.fixture(scope="module")
def topology():
  return build_topology(3, texels_per_side=2, symmetric_texture=True)


def share(vertices, topology, camera=CAMERA):
  found = backface_ratio(
    jnp.asarray(vertices, jnp.float32)[None], camera, topology, image_size=SIZE
  )
  return float(found[0])


def test_a_sphere_shows_only_its_outside(topology):
  assert share(topology.sphere, topology) == 0.0


def test_a_sphere_turned_inside_out_shows_only_its_inside(topology):
  turned = dataclasses.replace(topology, outward_faces=topology.outward_faces[:, ::-1].copy())
  assert share(topology.sphere, turned) == 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_a_sphere_with_one_half_turned_a_half_of_both_views_is_inside(topology, axis):
  faces = topology.outward_faces.copy()
  half = np.asarray(topology.sphere)[faces].mean(axis=1)[:, axis] > 0.0
  faces[half] = faces[half][:, ::-1]
  turned = dataclasses.replace(topology, outward_faces=faces)
  # Faces are on one side or the other by their middle: the seam is jagged.
  assert share(topology.sphere, turned) == pytest.approx(0.5, abs=0.03)


def test_a_mesh_out_of_sight_has_no_folds(topology):
  away = CAMERA.at[:, 1].set(5.0)
  assert share(topology.sphere, topology, away) == 0.0
