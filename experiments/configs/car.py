"""PASCAL3D+ cars, with the settings of `paper`.

What: the data of the paper's experiments; files as umr_jax/data/pascal3d.py says.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: the environment variable UMR_JAX_DATA names a folder that holds PASCAL3D+_release1.1/,
  or set data.folder; weights as for `paper`.
Expected: not run by this project.
Command: python -m experiments.train --config=car; beside the published figures,
  python -m experiments.reproduce --dataset=car
"""

import ml_collections

from experiments.configs import paper


def get_config() -> ml_collections.ConfigDict:
  config = paper.get_config()
  config.data.source = "pascal3d"
  config.data.folder = "$UMR_JAX_DATA/PASCAL3D+_release1.1"
  config.data.category = "car"
  config.data.part_count = 6  # the other data sets of the paper have 4
  return config
