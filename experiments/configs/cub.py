"""CUB-200-2011, 200 kinds of birds, with the settings of `paper`.

What: the data of the paper's experiments; files as umr_jax/data/cub.py says.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: the environment variable UMR_JAX_DATA names a folder that holds CUB_200_2011/, or in which it
  is made: from the archives in there, or fetched (1.2 GB). Weights as for `paper`.
Expected: not run by this project; the paper reports mask IoU 0.734, keypoint transfer 0.512 by
  camera and 0.582 by flow, with its own part segmentation. Here parts are discovered first.
Command: python -m experiments.train --config=cub; beside the published figures,
  python -m experiments.reproduce --dataset=cub
"""

import ml_collections

from experiments.configs import paper


def get_config() -> ml_collections.ConfigDict:
  config = paper.get_config()
  config.data.source = "cub"
  config.data.folder = "$UMR_JAX_DATA/CUB_200_2011"
  config.data.download = True
  # The lists of CMR: 6 visible keypoints in training, 7 in testing.
  config.data.cub_keypoints = (6, 7)
  return config
