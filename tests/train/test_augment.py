"""The same image in other colours, rotated and stretched; each image under its own key."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from umr_jax.geometry import camera
from umr_jax.train.augment import (
  Strengths,
  augmented,
  color_jitter,
  rotate_and_stretch,
  swap_backgrounds,
)
from umr_jax.types import Batch


def test_strength_zero_changes_nothing(rng):
  images = jnp.asarray(rng.random((3, 4, 4, 3)), jnp.float32)
  same = color_jitter(images, jnp.arange(3), jax.random.key(0), 0.0)
  np.testing.assert_allclose(same, images, atol=1e-6)


def test_a_draw_belongs_to_the_image_and_the_key(rng):
  images = jnp.asarray(np.repeat(rng.random((1, 4, 4, 3)), 4, axis=0), jnp.float32)
  key = jax.random.key(1)
  drawn = color_jitter(images, jnp.arange(4), key, 0.4)
  picked = color_jitter(images[:2], jnp.array([3, 1]), key, 0.4)
  np.testing.assert_allclose(picked, drawn[jnp.array([3, 1])], atol=1e-6)
  assert len(np.unique(np.asarray(drawn).sum(axis=(1, 2, 3)))) == 4
  assert np.abs(color_jitter(images, jnp.arange(4), jax.random.key(2), 0.4) - drawn).max() > 0.05


def test_values_stay_colours_and_a_grey_image_keeps_its_layout(rng):
  images = jnp.asarray(rng.random((16, 8, 8, 3)), jnp.float32)
  drawn = np.asarray(color_jitter(images, jnp.arange(16), jax.random.key(0), 2.0))
  assert drawn.min() >= 0.0 and drawn.max() <= 1.0
  flat = jnp.full((4, 8, 8, 3), 0.5, jnp.float32)
  drawn = np.asarray(color_jitter(flat, jnp.arange(4), jax.random.key(0), 0.3))
  # Nothing to see before, nothing afterwards; each channel within exp(+-0.3) of the half.
  assert np.ptp(drawn, axis=(1, 2)).max() < 1e-6
  assert (np.abs(np.log(drawn / 0.5)) <= 0.3 + 1e-5).all()
  assert np.ptp(drawn[:, 0, 0], axis=-1).min() > 1e-3


def make_batch(rng, count=4, size=32):
  """Smooth images of a rectangle left of the centre, so that every turn shows."""
  row, column = np.mgrid[:size, :size]
  mask = ((np.abs(row - 14) < 6) & (np.abs(column - 12) < 4)).astype(np.float32)
  image = ndimage.gaussian_filter(rng.random((size, size, 3)), (2, 2, 0)).astype(np.float32)
  return Batch(
    image=jnp.tile(image, (count, 1, 1, 1)),
    mask=jnp.tile(mask, (count, 1, 1)),
    barrier=jnp.tile(1.0 - mask, (count, 1, 1)),
    index=jnp.arange(count),
    valid=jnp.ones(count, bool),
  )


def moments(mask):
  """Area, centre and second moments of one mask, in units of the crop."""
  size = mask.shape[-1]
  x = (2 * np.arange(size) + 1 - size) / size
  area = mask.sum()
  center = np.array([(mask.sum(0) * x).sum(), (mask.sum(1) * x).sum()]) / area
  spread = np.array([(mask.sum(0) * (x - center[0]) ** 2), (mask.sum(1) * (x - center[1]) ** 2)])
  return area, center, spread.sum(-1) / area


def test_a_slant_of_nothing_changes_nothing(rng):
  batch = make_batch(rng)
  for old, new in zip(
    jax.tree.leaves(batch),
    jax.tree.leaves(rotate_and_stretch(batch, jax.random.key(0), rotation=0.0, stretch=0.0)),
    strict=True,
  ):
    np.testing.assert_allclose(new, old, atol=1e-5)


def test_a_turn_keeps_area_and_distance_and_turns_the_centre(rng):
  batch = make_batch(rng, count=8)
  turned = rotate_and_stretch(batch, jax.random.key(0), rotation=30.0, stretch=0.0)
  area, center, _ = moments(np.asarray(batch.mask[0]))
  angles = []
  for mask in np.asarray(turned.mask):
    new_area, new_center, _ = moments(mask)
    assert new_area == pytest.approx(area, rel=0.02)
    assert np.linalg.norm(new_center) == pytest.approx(np.linalg.norm(center), rel=0.05)
    angles.append(np.degrees(np.arctan2(*new_center[::-1]) - np.arctan2(*center[::-1])))
  angles = (np.array(angles) + 180) % 360 - 180
  assert np.abs(angles).max() < 31.0
  assert np.ptp(angles) > 20.0


def test_a_stretch_makes_wider_what_it_makes_lower(rng):
  batch = make_batch(rng, count=8)
  stretched = rotate_and_stretch(batch, jax.random.key(0), rotation=0.0, stretch=0.3)
  area, _, spread = moments(np.asarray(batch.mask[0]))
  for mask in np.asarray(stretched.mask):
    new_area, _, new_spread = moments(mask)
    assert new_area == pytest.approx(area, rel=0.05)
    wider, taller = np.sqrt(new_spread / spread)
    assert wider * taller == pytest.approx(1.0, abs=0.05)
    assert 0.72 < wider < 1.37


def test_photograph_silhouette_and_barrier_move_together(rng):
  batch = make_batch(rng)
  batch = dataclasses.replace(batch, image=jnp.repeat(batch.mask[..., None], 3, axis=-1))
  # An image that is its own silhouette, and a barrier that is its opposite, stay so.
  moved = rotate_and_stretch(batch, jax.random.key(5), rotation=40.0, stretch=0.2)
  far = np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 10  # where nothing came in from outside
  np.testing.assert_allclose(moved.image[..., 0][:, far], moved.mask[:, far], atol=1e-5)
  np.testing.assert_allclose(moved.barrier, 1.0 - moved.mask, atol=1e-5)
  assert np.abs(np.asarray(moved.mask) - np.asarray(batch.mask)).max() > 0.5


def test_what_comes_in_from_outside_is_white_and_background(rng):
  black = make_batch(rng)
  black = dataclasses.replace(
    black,
    image=jnp.zeros_like(black.image),
    mask=jnp.ones_like(black.mask),
    barrier=jnp.zeros_like(black.barrier),
  )
  moved = rotate_and_stretch(black, jax.random.key(0), rotation=80.0, stretch=0.0)
  corner = np.asarray(moved.mask[:, 0, 0])
  assert corner.min() < 0.01  # some image turned far enough for its corner to be new
  fresh = int(np.argmin(corner))
  np.testing.assert_allclose(moved.image[fresh, 0, 0], 1.0, atol=1e-5)
  np.testing.assert_allclose(moved.barrier[fresh, 0, 0], 1.0, atol=1e-5)


def test_a_slant_belongs_to_the_image_and_the_key(rng):
  batch, key = make_batch(rng), jax.random.key(1)
  drawn = rotate_and_stretch(batch, key, rotation=20.0, stretch=0.1)
  picked = jax.tree.map(lambda rows: rows[jnp.array([3, 1])], batch)
  again = rotate_and_stretch(picked, key, rotation=20.0, stretch=0.1)
  np.testing.assert_allclose(again.image, drawn.image[jnp.array([3, 1])], atol=1e-5)
  other = rotate_and_stretch(batch, jax.random.key(2), rotation=20.0, stretch=0.1)
  assert np.abs(np.asarray(other.mask) - np.asarray(drawn.mask)).max() > 0.1


def test_part_maps_move_with_the_silhouette(rng):
  batch = make_batch(rng)
  mask = batch.mask[..., None]
  parts = jnp.concatenate([1.0 - mask, 0.25 * mask, 0.75 * mask], axis=-1)
  parts = parts.at[2].set(0.0)  # an image without a part map
  batch = dataclasses.replace(batch, parts=parts)
  moved = rotate_and_stretch(batch, jax.random.key(5), rotation=40.0, stretch=0.2)
  known = np.array([0, 1, 3])
  np.testing.assert_allclose(moved.parts[known].sum(-1), 1.0, atol=1e-5)
  np.testing.assert_allclose(moved.parts[known, ..., 2], 0.75 * moved.mask[known], atol=1e-5)
  assert (moved.parts[2] == 0.0).all()


def test_found_cameras_turn_with_the_image(rng):
  """A point of the object stays where the image shows it."""
  batch = make_batch(rng, count=8)
  place = np.array([0.4, -0.25])
  y, x = (np.mgrid[:32, :32] + 0.5) / 16 - 1
  spot = ((x - place[0]) ** 2 + (y - place[1]) ** 2 < 0.15**2).astype(np.float32)
  found = jnp.tile(jnp.array([[0.5, 0.1, -0.05, 0.6, 0.0, 0.8, 0.0]]), (8, 1))
  batch = dataclasses.replace(
    batch, mask=jnp.tile(jnp.asarray(spot)[None], (8, 1, 1)), target_camera=found
  )
  # The point that the camera puts there, at its origin's depth.
  rotation = np.asarray(camera.rotation(found[:1]))[0]
  point = rotation.T @ np.append((place - np.array([0.1, -0.05])) / 0.5, 0.0)
  moved = rotate_and_stretch(batch, jax.random.key(3), rotation=35.0, stretch=0.0)
  points = jnp.tile(jnp.asarray(point, jnp.float32)[None, None], (8, 1, 1))
  seen = np.asarray(camera.project(points, moved.target_camera))[:, 0, :2]
  for mask, there in zip(np.asarray(moved.mask), seen, strict=True):
    np.testing.assert_allclose(moments(mask)[1], there, atol=0.02)
  assert np.ptp(seen[:, 0]) > 0.1


def scenes_of(rng, count=4, size=32):
  """Objects of one colour each, on backgrounds of another, in the middle."""
  row, column = np.mgrid[:size, :size]
  mask = ((np.abs(row - 16) < 5) & (np.abs(column - 16) < 7)).astype(np.float32)
  masks = np.tile(mask, (count, 1, 1))
  front, back = rng.random((2, count, 1, 1, 3)).astype(np.float32)
  return jnp.asarray(np.where(masks[..., None] > 0, front, back)), jnp.asarray(masks), front, back


def test_objects_stand_before_the_next_images_background(rng):
  images, masks, front, back = scenes_of(rng)
  moved = swap_backgrounds(images, masks, jnp.arange(4), jax.random.key(0), share=1.0)
  expected = np.where(masks[..., None] > 0, front, np.roll(back, 1, axis=0))
  # The other object left nothing behind, not even its outline.
  np.testing.assert_allclose(moved, expected, atol=0.1)


def test_the_share_of_images_that_change_is_kept(rng):
  images, masks, _, _ = scenes_of(rng, count=8)
  changed = 0
  for seed in range(40):
    moved = swap_backgrounds(images, masks, jnp.arange(8), jax.random.key(seed), share=0.3)
    changed += int((np.abs(moved - images).max(axis=(1, 2, 3)) > 0.01).sum())
  assert 0.2 < changed / 320 < 0.4
  same = swap_backgrounds(images, masks, jnp.arange(8), jax.random.key(0), share=0.0)
  np.testing.assert_array_equal(same, images)


def test_a_full_mask_leaves_no_background_and_no_nan(rng):
  images, masks, _, _ = scenes_of(rng)
  masks = masks.at[1].set(1.0)
  moved = swap_backgrounds(images, masks, jnp.arange(4), jax.random.key(0), share=1.0)
  assert np.isfinite(moved).all()
  np.testing.assert_allclose(moved[1], images[1], atol=1e-6)


def test_only_what_the_network_sees_changes_its_background(rng):
  images, masks, _, _ = scenes_of(rng)
  batch = dataclasses.replace(make_batch(rng), image=images, mask=masks)
  kept, seen = augmented(batch, jax.random.key(0), Strengths(background=1.0))
  np.testing.assert_array_equal(kept.image, images)
  assert np.abs(np.asarray(seen) - np.asarray(images)).max() > 0.05


@pytest.mark.parametrize("name", Strengths._fields)
def test_every_strength_alone_changes_the_images(rng, name):
  images, masks, _, _ = scenes_of(rng)
  batch = dataclasses.replace(make_batch(rng), image=images, mask=masks)
  strength = {"rotation": 20.0}.get(name, 0.9)
  seen = augmented(batch, jax.random.key(0), Strengths(**{name: strength}))[1]
  assert np.abs(np.asarray(seen) - np.asarray(images)).max() > 0.05
