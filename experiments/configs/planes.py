"""Rendered aeroplanes with 3D truth: the project's yardstick, `planes`.

What: 600 pictures of 60 models, silhouettes and pictures only; the 150 test pictures show 16 models
  that were never seen. The settings of `horses`, with as many cameras as the paper's second round.
Hardware and time: 2 CPU cores, about 20 minutes.
Expected: mask IoU 0.46 after 3000 steps, cameras at chance: a fuselage without wings. The best
  constant mask has 0.40, the medoid training shape under the true camera 0.61 (BUILD_NOTES.md).
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=planes
"""

import ml_collections

from experiments.configs import horses


def get_config() -> ml_collections.ConfigDict:
  config = horses.get_config()
  config.data.folder = "$UMR_JAX_DATA/planes"
  config.em.hypotheses = (8,)
  config.model.camera_elevation = (-20.0, 50.0)
  config.model.camera_roll = 20.0
  config.train.steps = 6000
  return config
