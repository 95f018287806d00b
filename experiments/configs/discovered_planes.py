"""Rendered aeroplanes from photographs and silhouettes alone: parts are discovered, then `best`.

What: `best_planes` without keypoints: parts come from EfficientNet's features.
Hardware and time: one of 2 CPU cores, 25 minutes, parts found before.
Expected: mask IoU 0.68, cameras 14 degrees, 3D IoU 0.45.
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=discovered_planes
"""

import ml_collections

from experiments.configs import best_planes


def get_config() -> ml_collections.ConfigDict:
  config = best_planes.get_config()
  config.data.parts = "discovered"
  return config
