"""Plain NumPy layers in float64, in PyTorch's layout [channel, row, column]: the tests' twins."""

import numpy as np


def convolve(x, weight, stride=1, padding=0):
  """x [C, H, W], weight [D, C, k, k]."""
  size = weight.shape[-1]
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
  return np.einsum("chwij,dcij->dhw", windows[:, ::stride, ::stride], weight)


def batch_norm(x, state, name):
  """Evaluation BatchNorm of x [C, H, W]."""
  weight, bias, mean, var = (
    state[f"{name}.{key}"].astype(np.float64)[:, None, None]
    for key in ("weight", "bias", "running_mean", "running_var")
  )
  return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def max_pool(x, padding):
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf)
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
  return windows[:, ::2, ::2].max(axis=(-2, -1))


def resnet18(state, image):
  """The last maps [C, h, w] of one normalized image [3, H, W], from a torchvision state dict."""
  state = {key: value.astype(np.float64) for key, value in state.items()}
  x = convolve(image, state["conv1.weight"], 2, 3)
  x = max_pool(np.maximum(batch_norm(x, state, "bn1"), 0.0), 1)
  for stage in (1, 2, 3, 4):
    for block in (0, 1):
      name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
      y = convolve(x, state[f"{name}.conv1.weight"], stride, 1)
      y = np.maximum(batch_norm(y, state, f"{name}.bn1"), 0.0)
      y = batch_norm(convolve(y, state[f"{name}.conv2.weight"], 1, 1), state, f"{name}.bn2")
      if f"{name}.downsample.0.weight" in state:
        x = convolve(x, state[f"{name}.downsample.0.weight"], stride)
        x = batch_norm(x, state, f"{name}.downsample.1")
      x = np.maximum(x + y, 0.0)
  return x


def resnet18_state(rng, width=8):
  """A random torchvision state dict, classifier and counters included."""
  state = {}

  def add_conv(name, features, channels, size):
    deviation = np.sqrt(2.0 / (channels * size * size))
    state[f"{name}.weight"] = rng.normal(0, deviation, (features, channels, size, size))

  def add_norm(name, features):
    state[f"{name}.weight"] = rng.uniform(0.5, 1.5, features)
    state[f"{name}.bias"] = rng.normal(0, 0.1, features)
    state[f"{name}.running_mean"] = rng.normal(0, 0.1, features)
    state[f"{name}.running_var"] = rng.uniform(0.5, 1.5, features)
    state[f"{name}.num_batches_tracked"] = np.array(7, np.int64)

  add_conv("conv1", width, 3, 7)
  add_norm("bn1", width)
  channels = width
  for stage in (1, 2, 3, 4):
    features = width * 2 ** (stage - 1)
    for block in (0, 1):
      name = f"layer{stage}.{block}"
      add_conv(f"{name}.conv1", features, channels, 3)
      add_norm(f"{name}.bn1", features)
      add_conv(f"{name}.conv2", features, features, 3)
      add_norm(f"{name}.bn2", features)
      if channels != features:
        add_conv(f"{name}.downsample.0", features, channels, 1)
        add_norm(f"{name}.downsample.1", features)
      channels = features
  state["fc.weight"] = rng.normal(size=(10, channels))
  state["fc.bias"] = rng.normal(size=10)
  return {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in state.items()}
