"""OpenImages penguins, with the settings of `paper`.

What: the data of the paper's experiments; files as umr_jax/data/openimages.py says.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: the environment variable UMR_JAX_DATA names a folder that holds openimages/, or in which it is
  made: what is missing is fetched (annotation files and masks of several GB, photographs of
  penguins alone). Weights as for `paper`.
Expected: not run by this project.
Command: python -m experiments.train --config=penguin; beside the published figures,
  python -m experiments.reproduce --dataset=penguin
"""

import ml_collections

from experiments.configs import paper


def get_config() -> ml_collections.ConfigDict:
  config = paper.get_config()
  config.data.source = "openimages"
  config.data.folder = "$UMR_JAX_DATA/openimages"
  config.data.download = True
  config.data.category = "Penguin"
  return config
