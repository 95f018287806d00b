"""The initial state from searched views: their cameras are the targets, their hull the template."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rotations import degrees_between
from tests.tiny import tiny_config
from umr_jax.config.build import with_settings
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import load_dataset
from umr_jax.init import dense_features, view_search
from umr_jax.init import state as state_module
from umr_jax.init.dense_features import ImageMaps
from umr_jax.init.state import init_em_state
from umr_jax.models.infer import build_topology_from
from umr_jax.parts.features import Features


def pixels(images):
  """The colours of 32 x 32 pixels, in the place of a frozen network."""
  small = jax.image.resize(images, (len(images), 32, 32, 3), "linear")
  cells = small.reshape(-1, 8, 4, 8, 4, 3)
  return jnp.moveaxis(cells, 3, 2).reshape(-1, 8, 8, 48)


def cells(split, file, *, spec):
  """Maps of `pixels`, in the place of the frozen encoder's."""
  crops = [crop for _, some in evaluation_batches(split, spec, batch_size=8) for crop in some]
  images, masks = (np.stack([getattr(crop, name) for crop in crops]) for name in ("image", "mask"))
  return ImageMaps(np.asarray(pixels(jnp.asarray(images))), masks)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_searched_views_are_target_cameras_and_their_hull_is_the_template(tmp_path, monkeypatch):
  monkeypatch.setattr(
    dense_features, "load_features", lambda crops, settings: Features(pixels, "efficientnet")
  )
  for name in ("_COARSE", "_FINE"):
    level = dataclasses.replace(
      getattr(view_search, name), azimuths=8, elevation_step=70.0, rolls=(0.0,)
    )
    monkeypatch.setattr(view_search, name, level)
  found = []
  find_views = state_module.find_views
  monkeypatch.setattr(
    state_module,
    "find_views",
    lambda *args, **kw: found.append(find_views(*args, **kw)) or found[-1],
  )
  config = with_settings(
    tiny_config(tmp_path), {"geometry.init": "view_search", "loss.target_camera": 1.0}
  )
  topology = build_topology_from(config)
  split = load_dataset(config.data).splits["train"]
  with jax.numpy_dtype_promotion("standard"):
    state = init_em_state(config, topology, split)
    again = init_em_state(config, topology, split)
  assert state.target_cameras.shape == (len(split), 7)
  np.testing.assert_allclose(np.linalg.norm(state.target_cameras[:, 3:], axis=1), 1.0, rtol=1e-5)
  assert (state.target_cameras[:, 0] > 0.2).all()
  # The hull's gradients move them.
  moved = degrees_between(state.target_cameras[:, 3:], found[0][:, 3:])
  assert 0.0 < np.median(moved) < 25.0
  assert 0.5 < np.abs(state.template.half_vertices).max() < 1.8
  np.testing.assert_array_equal(state.target_cameras, again.target_cameras)
  # An encoder that is trained leaves no maps that views could be told by; a frozen one does.
  assert state.view_template is None
  monkeypatch.setattr(state_module, "encoder_file", lambda model: "published")
  monkeypatch.setattr(state_module, "encoder_maps", cells)
  frozen = with_settings(config, {"model.encoder": "efficientnet"})
  with jax.numpy_dtype_promotion("standard"):
    views = state_module._view_template(frozen, split, found[0])
  assert views.features.shape == (24, 24, 24, 16)
  assert len(views.voxels) == len(views.rotations) == 8
  assert 0.0 < views.temperature < 100.0 and np.isfinite(views.features).all()
  profile = init_em_state(with_settings(config, {"geometry.init": "silhouettes"}), topology, split)
  assert np.abs(state.template.half_vertices - profile.template.half_vertices).max() > 0.05
