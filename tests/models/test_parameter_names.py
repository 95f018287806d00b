"""Parameters keep their names and shapes.

A checkpoint finds its arrays by these paths, and a parameter's first value is drawn from its path:
whoever renames a module, or moves from one neural network library to another, breaks every saved
run and changes every result that was measured from a seed. A change that is meant is made by hand
in `parameter_names/`, together with the migration of older checkpoints.
"""

import pathlib

import jax
import pytest
from flax import traverse_util

from umr_jax.models.discriminator import Discriminator

FROZEN = pathlib.Path(__file__).parent / "parameter_names"

# What the presets of these names ask for, at the smallest size.
NETWORKS = {
  "paper": dict(hypotheses=8, texture_stem="dense"),
  "best": dict(hypotheses=8, encoder="efficientnet", mask_head=True),
}


def listed(module, *inputs, **options) -> list[str]:
  """Every variable of a module as one line: collection, path, shape."""
  shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **options), *inputs)
  flat = traverse_util.flatten_dict(shapes, sep="/")
  assert {leaf.dtype.name for leaf in flat.values()} == {"float32"}
  return [f"{path} {'x'.join(map(str, leaf.shape))}" for path, leaf in sorted(flat.items())]


def frozen(name: str) -> list[str]:
  return (FROZEN / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_of_a_preset_keeps_its_parameters(name, make_net):
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
  assert listed(make_net(**NETWORKS[name]), image, train=False) == frozen(name)


def test_the_discriminator_keeps_its_parameters():
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
  assert listed(Discriminator(), image) == frozen("discriminator")
