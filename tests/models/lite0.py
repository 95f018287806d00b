"""A weight file's tensors, drawn at random."""

import numpy as np

SIZES = (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3)
WIDTHS = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320)


def random_lite0() -> dict[str, np.ndarray]:
  """The tensors of an EfficientNet-Lite0 with ten classes."""
  rng = np.random.default_rng(0)
  state = {}

  def add(conv, norm, features, channels, size):
    deviation = np.sqrt(2.0 / (channels * size * size))
    state[f"{conv}.weight"] = rng.normal(0.0, deviation, (features, channels, size, size))
    state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, features)
    state[f"{norm}.bias"] = rng.normal(0.0, 0.1, features)
    state[f"{norm}.running_mean"] = rng.normal(0.0, 0.1, features)
    state[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, features)

  add("_conv_stem", "_bn0", 32, 3, 3)
  channels = 32
  for i, (size, width) in enumerate(zip(SIZES, WIDTHS, strict=True)):
    name, hidden = f"_blocks.{i}", channels * (6 if i else 1)
    if i:
      add(f"{name}._expand_conv", f"{name}._bn0", hidden, channels, 1)
    add(f"{name}._depthwise_conv", f"{name}._bn1", hidden, 1, size)
    add(f"{name}._project_conv", f"{name}._bn2", width, hidden, 1)
    channels = width
  add("_conv_head", "_bn1", 1280, 320, 1)
  state["_fc.weight"] = rng.normal(0.0, 0.03, (10, 1280))
  state["_fc.bias"] = rng.normal(size=10)
  return {key: value.astype(np.float32) for key, value in state.items()}
