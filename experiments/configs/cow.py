"""ImageNet cows, with the settings of `paper`.

What: the data of the paper's experiments; files as umr_jax/data/imagenet.py says.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: the environment variable UMR_JAX_DATA names a folder that holds imagenet/,
  or set data.folder; weights as for `paper`.
Expected: not run by this project.
Command: python -m experiments.train --config=cow; beside the published figures,
  python -m experiments.reproduce --dataset=cow
"""

import ml_collections

from experiments.configs import paper


def get_config() -> ml_collections.ConfigDict:
  config = paper.get_config()
  config.data.source = "imagenet"
  config.data.folder = "$UMR_JAX_DATA/imagenet"
  config.data.category = "cow"
  return config
