"""What a run's network starts from: random draws, and published weights where a config asks."""

import pathlib
from typing import Any

from umr_jax.config.settings import Config, ModelConfig
from umr_jax.models.frozen import frozen_efficientnet, published_file
from umr_jax.models.initialize import initialize
from umr_jax.models.pretrained import read_torch_file, resnet18_variables, weight_file
from umr_jax.models.umr_net import UMRNet


def encoder_file(model: ModelConfig) -> pathlib.Path | None:
  """The weight file that an encoder starts from, found before anything expensive happens.

  Returns:
    None where it starts from random draws.

  Raises:
    FileNotFoundError: where the config needs a file and there is none.
  """
  if model.encoder == "resnet18":
    return None if model.encoder_weights == "none" else weight_file(model.encoder_weights)
  return published_file(
    model.encoder_weights,
    asked="model.encoder=efficientnet",
    setting="model.encoder_weights",
    otherwise="set model.encoder=resnet18, which needs none",
  )


def first_variables(net: UMRNet, config: Config, *, seed: int) -> tuple[Any, Any, Any]:
  """A network's first parameters, batch statistics, and weights that stay as published.

  Args:
    net: the network.
    config: the size of its images, and its weight file.
    seed: of the random draws.

  Raises:
    FileNotFoundError: as `encoder_file`.
    ValueError: for a weight file of another network.
  """
  params, batch_stats = initialize(net, image_size=config.data.image_size, seed=seed)
  file = encoder_file(config.model)
  if file is None:
    return params, batch_stats, {}
  if config.model.encoder == "efficientnet":
    return params, batch_stats, frozen_efficientnet(file, path=("encoder", "frozen"))
  return *resnet18_variables(read_torch_file(file), params, batch_stats), {}
