"""ObjectiveSpec: what it takes from a config."""

from tests.tiny import tiny_config
from umr_jax.geometry.topology import build_topology
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.losses.texture import texture_distance


def test_holds_what_the_config_says(tmp_path):
  config = tiny_config(tmp_path)
  topology = build_topology(1, texels_per_side=1, symmetric_texture=True)
  spec = ObjectiveSpec.from_config(config, topology)
  assert spec.topology is topology and spec.weights is config.loss
  assert spec.image_size == spec.render.image_size == config.render_size == 32
  for name in ("sigma", "gamma", "dist_eps", "antialias"):
    assert getattr(spec.render, name) == getattr(config.render, name)
  assert (spec.distance, spec.flow) == (texture_distance, config.model.flow)
