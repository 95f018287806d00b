"""Pose search over a training set: one camera an image, as the config asks for it."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from umr_jax.config.settings import EMConfig
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import load_dataset
from umr_jax.data.transforms import CropSpec
from umr_jax.em.monitor import Monitor
from umr_jax.em.run import panel_images
from umr_jax.em.target_cameras import (
  framed_objects,
  untold_dimensions,
  with_fitted_cameras,
  with_target_cameras,
)
from umr_jax.geometry.camera import Camera
from umr_jax.init.pose_search import PoseSearch
from umr_jax.init.state import bare_em_state, init_em_state
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.infer import build_topology_from
from umr_jax.train import parallel


def searched(folder):
  """The training set and its state after a search."""
  config = tiny_config(folder)
  split = load_dataset(config.data).splits["train"]
  topology = build_topology_from(config)
  em_state = init_em_state(config, topology, split)
  return split, with_target_cameras(
    em_state,
    split,
    topology,
    search=PoseSearch.from_config(config),
    padding=config.data.padding,
    batch_size=4 * config.train.batch_size,
    parts=config.semantic,
  )


def test_every_training_image_gets_one_camera(tmp_path):
  split, state = searched(tmp_path)
  assert state.target_cameras.shape == (len(split), 7)
  np.testing.assert_allclose(np.linalg.norm(state.target_cameras[:, 3:], axis=-1), 1.0, rtol=1e-5)
  assert (state.target_cameras[:, 0] > 0.0).all()


def test_evenness_comes_from_the_config(tmp_path, monkeypatch):
  cameras = []
  for evenness in (0.0, 1.0):
    monkeypatch.setattr(EMConfig, "view_evenness", evenness)
    cameras.append(searched(tmp_path)[1].target_cameras)
  assert np.abs(cameras[0] - cameras[1]).max() > 1e-3


def test_objects_fill_their_frames_alike_and_stand_on_nothing(tmp_path):
  config = tiny_config(tmp_path)
  split = load_dataset(config.data).splits["train"]
  objects = framed_objects(split, padding=config.data.padding)
  assert objects.shape[0] == len(split) and objects.shape[-1] == 4
  colors, silhouettes = objects[..., :3], objects[..., 3]
  assert not colors[silhouettes == 0.0].any() and colors[silhouettes == 1.0].any()
  areas = silhouettes.sum(axis=(1, 2))
  np.testing.assert_allclose(areas, areas.mean(), rtol=0.15)


@pytest.mark.parametrize(
  ("azimuths", "untold"),
  [((0, 8, 178, 352), ["width"]), ((90, 84, 270, 268), ["length"]), (range(0, 360, 30), [])],
)
def test_what_no_image_shows_is_named(azimuths, untold):
  count = len(azimuths)
  angles = (jnp.asarray(azimuths, jnp.float32), jnp.full(count, 10.0), jnp.zeros(count))
  rotations = upright_rotation(*angles)
  cameras = Camera(jnp.ones(count), jnp.zeros((count, 2)), rotations).pack()
  sentences = untold_dimensions(np.asarray(cameras))
  assert [name for name in ("length", "width") if f"its {name}" in " ".join(sentences)] == untold


def test_a_picture_tells_where_the_images_are_seen_from(tmp_path):
  config = tiny_config(tmp_path)
  dataset = load_dataset(config.data)
  split, state = searched(tmp_path)
  with Monitor(config, tmp_path / "run", panel_images(dataset, config)) as monitor:
    monitor.cameras_found(state.replace(target_cameras=None), split, build_topology_from(config))
    assert not (tmp_path / "run" / "cameras.png").exists()
    monitor.cameras_found(state, split, build_topology_from(config))
  assert isinstance(json.loads((tmp_path / "run" / "cameras.json").read_text())["untold"], list)
  assert (tmp_path / "run" / "cameras.png").read_bytes().startswith(b"\x89PNG")


def test_every_image_s_own_camera_is_fitted_to_its_own_silhouette(tmp_path):
  config = tiny_config(tmp_path)
  split = load_dataset(config.data).splits["train"]
  spec = CropSpec.from_config(config.data)
  (batch, _), *_ = evaluation_batches(split, spec, batch_size=len(split), parts=False)
  cameras = np.tile(np.eye(7, dtype=np.float32)[:1] + np.eye(7, dtype=np.float32)[3], (12, 1))
  cameras[:, 1] = np.arange(12)
  begun = dataclasses.replace(bare_em_state(np.zeros((4, 3))), target_cameras=cameras)

  def fit(model, batch, cameras):
    """Tells whose camera and silhouette were given together."""
    area = jnp.mean(batch.mask, axis=(1, 2))
    return cameras.at[:, 2].set(area).at[:, 0].add(model)

  fitted = with_fitted_cameras(
    begun, split, jnp.float32(1.0), fit=parallel.pmap_map(fit), spec=spec, batch_size=8
  ).target_cameras
  np.testing.assert_allclose(fitted[:, 1], np.arange(12))
  np.testing.assert_allclose(fitted[:, 2], batch.mask.mean(axis=(1, 2)), rtol=1e-5)
  np.testing.assert_allclose(fitted[:, 0], 2.0)
  assert (begun.target_cameras[:, 0] == 1.0).all()
