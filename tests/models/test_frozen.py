"""The frozen backbone: whose features it gives, and that nothing moves it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.models.lite0 import random_lite0
from tests.models.torch_file import write_old_torch_file
from tests.tiny import SmallParts
from umr_jax.config.build import from_saved
from umr_jax.em import run as pipeline
from umr_jax.models import frozen
from umr_jax.models import initialize as start
from umr_jax.models.efficientnet import efficientnet_pyramid, load_efficientnet
from umr_jax.models.encoder import Encoder
from umr_jax.models.infer import build_net
from umr_jax.models.initialize import initialize
from umr_jax.parts.fit import fit_parts
from umr_jax.parts.segmenter import segment

ENCODER = Encoder(
  width=8, feature_size=20, code_size=12, sample_code=False, norm="group", backbone="efficientnet"
)


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("frozen") / "lite0.pth"
  write_old_torch_file(path, random_lite0())
  return path


@pytest.fixture(scope="module")
def filled(weight_file):
  """Parameters and the other collections."""
  params, stats = initialize(ENCODER, image_size=64, seed=0)
  weights = frozen.frozen_efficientnet(weight_file, path=("frozen",))
  return params, {"batch_stats": stats, "frozen": weights}


def leaves(tree):
  return {"/".join(path): np.asarray(x) for path, x in traverse_util.flatten_dict(tree).items()}


def test_its_features_are_the_published_network_s_at_192_pixels(filled, weight_file, rng):
  _, collections = filled
  images = jnp.asarray(rng.random((2, 64, 64, 3)), jnp.float32)
  net = frozen.FrozenEfficientNet()
  *finer, found = jax.jit(net.apply)({"frozen": collections["frozen"]["frozen"]}, images)
  larger = jax.image.resize(images, (2, 192, 192, 3), "linear", antialias=False)
  expected = efficientnet_pyramid(load_efficientnet(weight_file), larger)[-1]
  assert found.shape == (2, 12, 12, 112)
  assert [x.shape for x in finer] == [(2, 48, 48, 24), (2, 24, 24, 40)]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
  assert np.std(found) > 0.0


def test_it_has_no_parameters_and_training_leaves_its_weights(filled, rng):
  params, collections = filled
  assert not any("frozen/" in name for name in leaves(params))
  images = jnp.asarray(rng.random((4, 64, 64, 3)), jnp.float32)

  @jax.jit
  def loss(params, images):
    variables = {"params": params, **collections}
    encoding, updates = ENCODER.apply(variables, images, train=True, mutable=["batch_stats"])
    return jnp.sum(jnp.square(encoding.mu)), updates["batch_stats"]

  (grads, by_image), after = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, images)
  assert not np.any(by_image)
  assert all(np.any(value) for name, value in leaves(grads).items() if "conv/kernel" in name)
  before, after = leaves(collections["batch_stats"]), leaves(after)
  # They are no statistics, which every step updates and averages over the devices.
  assert before.keys() == after.keys()
  assert not any("frozen/" in name for name in after)
  assert len(leaves(collections["frozen"])) == 2 * (1 + 3 * 11 - 1)
  assert np.any(after["frozen_bn/mean"] != before["frozen_bn/mean"])


def test_a_run_s_network_starts_with_the_file_s_weights(filled, weight_file):
  config = from_saved({"model": {"encoder": "efficientnet", "encoder_weights": str(weight_file)}})
  net = build_net(config, hypotheses=8)
  _, stats, weights = start.init_variables(net, config, seed=0)
  found, expected = leaves(weights["encoder"]), leaves(filled[1]["frozen"])
  assert not any("efficientnet" in name for name in leaves(stats))
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value)


def test_a_network_of_another_width_is_refused(tmp_path):
  state = random_lite0()
  state["_conv_stem.weight"] = np.ascontiguousarray(state["_conv_stem.weight"][:, :1])
  path = tmp_path / "gray.pth"
  write_old_torch_file(path, state)
  with pytest.raises(ValueError, match=r"stem/kernel has shape.*expected \(3, 3, 3, 32\)"):
    frozen.frozen_efficientnet(path, path=("frozen",))


@pytest.mark.parametrize(
  ("model", "message"),
  [
    ({"encoder": "efficientnet"}, r"extra `features`.*model\.encoder=resnet18"),
    (
      {"encoder": "efficientnet", "encoder_weights": "$NO_FOLDER/lite0.pth"},
      r"no weight file at .*absent/lite0\.pth.*pip install.*model\.encoder=resnet18",
    ),
    ({"encoder_weights": "$NO_FOLDER/resnet18.pth"}, r"no weight file at .*absent/resnet18\.pth"),
  ],
)
def test_a_run_without_its_weights_ends_before_its_data_are_read(
  model, message, monkeypatch, tmp_path
):
  monkeypatch.setenv("NO_FOLDER", str(tmp_path / "absent"))
  monkeypatch.setattr(frozen, "efficientnet_file", lambda: None)
  config = from_saved({"model": model})
  with pytest.raises(FileNotFoundError, match=message):
    pipeline.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_part_network_reads_its_features_and_leaves_its_weights(weight_file, rng):
  images = rng.random((6, 32, 32, 3), np.float32)
  masks = np.ones((6, 32, 32), np.float32)
  halves = np.zeros((6, 8, 8, 3), np.float32)
  halves[:, :, :4, 1], halves[:, :, 4:, 2] = 1.0, 1.0
  settings = SmallParts(
    net="efficientnet", net_weights=str(weight_file), net_width=4, steps=2, batch_size=4
  )
  with jax.numpy_dtype_promotion("standard"):  # optax promotes its counts
    result = fit_parts(images, masks, targets=halves, features=None, num_parts=2, settings=settings)
  assert segment(result, images, batch_size=4).shape == (6, 32, 32, 3)
  kept = leaves(result.variables["frozen"]["frozen"])
  expected = load_efficientnet(weight_file)["stem"]["kernel"]
  np.testing.assert_array_equal(kept["efficientnet/stem/kernel"], expected)
  assert not any("frozen/" in name for name in leaves(result.variables["params"]))
  with pytest.raises(FileNotFoundError, match=r"absent\.pth.*parts\.net=small"):
    absent = dataclasses.replace(settings, net_weights="absent.pth")
    fit_parts(images, masks, targets=halves, features=None, num_parts=2, settings=absent)
