"""The benchmark of a step: made-up data are what the step takes, and every stage is timed."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.studies.train_benchmark import (
  made_up_batch,
  made_up_state,
  measure_step,
  with_random_weights,
)
from tests.tiny import tiny_config
from umr_jax.config.presets import config_of
from umr_jax.config.settings import flatten, to_dict
from umr_jax.models.infer import build_topology_from
from umr_jax.models.perceptual import load_perceptual


def complete(tmp_path):
  config = tiny_config(tmp_path)
  return dataclasses.replace(
    config,
    loss=dataclasses.replace(
      config.loss, part_vertices=1.0, part_probability=1.0, target_camera=1.0
    ),
  )


def test_made_up_data_look_like_data(tmp_path):
  config = complete(tmp_path)
  batch = made_up_batch(config, image_size=64)
  assert batch.image.shape == (4, 64, 64, 3) and batch.target_camera.shape == (4, 7)
  np.testing.assert_allclose(batch.parts.sum(-1), 1.0)
  assert (batch.parts[..., 1:].sum((1, 2)) > 20).all()
  state = made_up_state(config, build_topology_from(config))
  assert sorted(set(np.asarray(state.part_vertices))) == [1, 2, 3, 4]
  bare = made_up_batch(tiny_config(tmp_path), image_size=64)
  assert bare.parts is None and bare.target_camera is None


def perceptual(tmp_path):
  """As the paper has it: the perceptual distance, under all hypotheses."""
  config = tiny_config(tmp_path)
  loss = dataclasses.replace(
    config.loss, perceptual_weights="alexnet.pth", texture_cameras="all", camera_temperature=0.0
  )
  return with_random_weights(dataclasses.replace(config, loss=loss), tmp_path)


def test_random_weights_stand_where_published_ones_are_named(tmp_path):
  paper = config_of("paper", ["data.folder=none"])
  random = with_random_weights(paper, tmp_path)
  before, after = (flatten(to_dict(config)) for config in (paper, random))
  assert {name for name in before if before[name] != after[name]} == {
    "model.encoder_weights",
    "loss.perceptual_weights",
  }
  assert random.model.encoder_weights == "none"
  kernels = [layer["kernel"] for layer in load_perceptual(random.loss.perceptual_weights).values()]
  assert [kernel.shape[-1] for kernel in kernels] == [64, 192, 384, 256, 256]
  assert all(kernel.std() > 0.0 for kernel in kernels)
  none_named = tiny_config(tmp_path)
  assert with_random_weights(none_named, tmp_path / "none") == none_named


@pytest.mark.slow
def test_every_stage_is_timed(tmp_path):
  with jax.numpy_dtype_promotion("standard"):
    plain = measure_step(perceptual(tmp_path), round_index=1, repeats=1)
    result = measure_step(complete(tmp_path), round_index=0, repeats=1)
  stages = {
    "network",
    "network_gradient",
    "rendering",
    "rendering_gradient",
    "losses_gradient",
    "step",
  }
  for line, names in ((plain, stages), (result, stages | {"search"})):
    assert {key for key in line if key.endswith("_ms")} == {f"{name}_ms" for name in names}
    assert all(line[f"{name}_ms"] > 0.0 for name in names)
  assert plain["perceptual"] and not result["perceptual"]
  assert plain["hypotheses"] == 2 and plain["images_per_s"] > 0.0 and plain["peak_rss_mb"] > 100
