"""Vision transformers: a NumPy twin, registers, places between those of training, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from tests.models.torch_file import write_torch_file
from umr_jax.models.vit import load_vit, patch_size, vit_features

WIDTH, DEPTH, PATCH = 128, 2, 8


def vit_state(*, second, registers=0, side=4):
  rng = np.random.default_rng(0)

  def draw(*shape, mean=0.0, deviation=0.1):
    return (mean + deviation * rng.normal(size=shape)).astype(np.float32)

  state = {
    "cls_token": draw(1, 1, WIDTH),
    "pos_embed": draw(1, 1 + side * side, WIDTH),
    "patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH),
    "patch_embed.proj.bias": draw(WIDTH),
    "norm.weight": draw(WIDTH, mean=1.0),
    "norm.bias": draw(WIDTH),
  }
  if registers:
    state["register_tokens"] = draw(1, registers, WIDTH)
  for i in range(DEPTH):
    for name, shape in (
      ("attn.qkv", (3 * WIDTH, WIDTH)),
      ("attn.proj", (WIDTH, WIDTH)),
      ("mlp.fc1", (4 * WIDTH, WIDTH)),
      ("mlp.fc2", (WIDTH, 4 * WIDTH)),
    ):
      state[f"blocks.{i}.{name}.weight"] = draw(*shape)
      state[f"blocks.{i}.{name}.bias"] = draw(shape[0])
    for name in ("norm1", "norm2"):
      state[f"blocks.{i}.{name}.weight"] = draw(WIDTH, mean=1.0)
      state[f"blocks.{i}.{name}.bias"] = draw(WIDTH)
    if second:
      for name in ("ls1", "ls2"):
        state[f"blocks.{i}.{name}.gamma"] = draw(WIDTH, mean=0.5)
  return state


def load(tmp_path, state):
  path = tmp_path / "vit.pth"
  write_torch_file(path, state)
  return load_vit(path)


def norm(x, state, name):
  mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
  unit = (x - mean) / np.sqrt(var + 1e-6)
  return unit * state[f"{name}.weight"] + state[f"{name}.bias"]


def twin(state, image):
  """[N, D] of one image [H, W, 3] with as many patches as there are places."""
  state = {key: value.astype(np.float64) for key, value in state.items()}

  def dense(x, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

  x = (image - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
  rows = []
  for i in range(0, image.shape[0], PATCH):
    for j in range(0, image.shape[1], PATCH):
      window = x[i : i + PATCH, j : j + PATCH].transpose(2, 0, 1)
      rows.append(np.einsum("dcij,cij->d", state["patch_embed.proj.weight"], window))
  x = np.concatenate([state["cls_token"][0], np.array(rows) + state["patch_embed.proj.bias"]])
  x = x + state["pos_embed"][0]
  registers = state.get("register_tokens", np.zeros((1, 0, WIDTH)))[0]
  x = np.concatenate([x[:1], registers, x[1:]])
  for i in range(DEPTH):
    name = f"blocks.{i}"
    q, k, v = np.split(dense(norm(x, state, f"{name}.norm1"), f"{name}.attn.qkv"), 3, axis=-1)
    heads = []
    for head in range(WIDTH // 64):
      part = slice(64 * head, 64 * head + 64)
      logits = q[:, part] @ k[:, part].T / math.sqrt(64)
      weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
      heads.append(weights / weights.sum(axis=-1, keepdims=True) @ v[:, part])
    y = dense(np.concatenate(heads, axis=-1), f"{name}.attn.proj")
    x = x + y * state.get(f"{name}.ls1.gamma", 1.0)
    y = dense(norm(x, state, f"{name}.norm2"), f"{name}.mlp.fc1")
    y = dense(0.5 * y * (1.0 + erf(y / math.sqrt(2.0))), f"{name}.mlp.fc2")
    x = x + y * state.get(f"{name}.ls2.gamma", 1.0)
  return norm(x, state, "norm")[1 + len(registers) :]


@pytest.mark.parametrize(
  ("second", "registers"), [(False, 0), (True, 0), (True, 4)], ids=["dino", "dinov2", "registers"]
)
def test_the_patches_match_their_twin(tmp_path, rng, second, registers):
  state = vit_state(second=second, registers=registers)
  params = load(tmp_path, state)
  assert patch_size(params) == PATCH
  images = rng.random((2, 4 * PATCH, 4 * PATCH, 3)).astype(np.float32)
  found = jax.jit(vit_features)(params, jnp.asarray(images))
  assert found.shape == (2, 4, 4, WIDTH)
  for image, maps in zip(images, found, strict=True):
    np.testing.assert_allclose(maps.reshape(16, WIDTH), twin(state, image), rtol=1e-3, atol=1e-3)


def test_places_between_those_of_training_are_interpolated(tmp_path, rng):
  # The same place everywhere is the same place on any grid.
  coarse, fine = (vit_state(second=False, side=side) for side in (4, 7))
  place = rng.normal(size=WIDTH).astype(np.float32)
  for state in (coarse, fine):
    state.update({k: v for k, v in coarse.items() if k != "pos_embed"})
    state["pos_embed"][:] = place
  image = jnp.asarray(rng.random((1, 7 * PATCH, 7 * PATCH, 3)), jnp.float32)
  run = jax.jit(vit_features)
  found, expected = (run(load(tmp_path, state), image) for state in (coarse, fine))
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_pytorchs_cubic_interpolation_is_reproduced():
  from umr_jax.models.vit import _cubic_weights

  # torch.nn.functional.interpolate(mode="bicubic") of (0, 1, 4, 9) to 8, worked out by hand from
  # its kernel with a = -0.75: the third value is at 0.75, between 0 and 1.
  weights = _cubic_weights(4, 8)
  np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
  a, t = -0.75, 0.75

  def far(d):
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

  def near(d):
    return (a + 2) * d**3 - (a + 3) * d**2 + 1

  expected = far(1 + t) * 0 + near(t) * 0 + near(1 - t) * 1 + far(2 - t) * 4
  np.testing.assert_allclose(weights[2] @ np.array([0.0, 1.0, 4.0, 9.0]), expected, rtol=1e-5)
  np.testing.assert_array_equal(_cubic_weights(4, 4), np.eye(4))


def test_an_image_has_the_same_features_alone_and_in_a_batch(tmp_path, rng):
  params = load(tmp_path, vit_state(second=True))
  images = jnp.asarray(rng.random((3, 32, 48, 3)), jnp.float32)
  run = jax.jit(vit_features)
  np.testing.assert_allclose(
    run(params, images)[1:2], run(params, images[1:2]), rtol=1e-3, atol=1e-4
  )


def test_images_of_part_patches_are_refused(tmp_path):
  params = load(tmp_path, vit_state(second=False))
  with pytest.raises(ValueError, match=r"30 x 32.*multiples of 8"):
    vit_features(params, jnp.zeros((1, 30, 32, 3)))


def test_files_without_a_transformer_are_refused_and_missing_ones_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"blocks\.0\.norm1.*dino"):
    load(tmp_path, {"conv1.weight": np.zeros(3, np.float32)})
  state = vit_state(second=False)
  del state["blocks.1.mlp.fc1.weight"]
  with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.fc1\.weight.*dino"):
    load(tmp_path, state)
  with pytest.raises(ValueError, match="one more than a square"):
    load(tmp_path, {**vit_state(second=False), "pos_embed": np.zeros((1, 16, WIDTH), np.float32)})
  with pytest.raises(FileNotFoundError, match="dinov2"):
    load_vit(tmp_path / "none.pth")
