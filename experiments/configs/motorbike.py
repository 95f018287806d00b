"""PASCAL3D+ motorbikes, with the settings of `paper`.

What: the data of the paper's experiments; files as umr_jax/data/pascal3d.py says.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: the environment variable UMR_JAX_DATA names a folder that holds PASCAL3D+_release1.1/, or in
  which it is made: from the archives in there, or fetched (7.5 GB, with VOC 2012 up to 9.5). The
  silhouettes of ImageNet's pictures, Masks/ in it, are the user's. Weights as for `paper`.
Expected: not run by this project.
Command: python -m experiments.train --config=motorbike; beside the published figures,
  python -m experiments.reproduce --dataset=motorbike
"""

import ml_collections

from experiments.configs import paper


def get_config() -> ml_collections.ConfigDict:
  config = paper.get_config()
  config.data.source = "pascal3d"
  config.data.folder = "$UMR_JAX_DATA/PASCAL3D+_release1.1"
  config.data.download = True
  config.data.category = "motorbike"
  return config
