"""A small network and its parameters, drawn once for all the tests of this folder."""

import jax.numpy as jnp
import pytest

from tests.models.run_head import D
from umr_jax.models.initialize import initialize
from umr_jax.models.umr_net import UMRNet


@pytest.fixture(scope="session")
def make_net():
  """Builds width-8 networks; options replace the defaults."""

  def make(**options):
    defaults = dict(
      num_half=25,
      hypotheses=1,
      uv_height=16,
      encoder_width=8,
      feature_size=20,
      code_size=12,
      texture_stem="conv",
      sample_code=True,
      camera_pose="free",
      camera_elevation=(-20.0, 50.0),
      camera_roll=20.0,
      camera_spread=True,
      norm="batch",
      encoder="resnet18",
      mask_head=False,
    )
    return UMRNet(**{**defaults, **options})

  return make


@pytest.fixture(scope="session")
def small(make_net):
  """A network with four cameras, its parameters and BatchNorm statistics."""
  net = make_net(hypotheses=4)
  return net, *initialize(net, image_size=64, seed=0)


@pytest.fixture
def feature(rng):
  return jnp.asarray(rng.normal(size=(6, D)), jnp.float32)
