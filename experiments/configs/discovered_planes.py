"""Rendered aeroplanes from photographs and silhouettes alone: parts are discovered, then `best`.

What: `best_planes` without keypoints: parts come from EfficientNet's features.
Hardware and time: 2 CPU cores, 22 minutes beside other jobs, parts found before.
Expected: mask IoU 0.58, cameras 16 degrees, 3D IoU 0.44.
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=discovered_planes
"""

import ml_collections

from experiments.configs import best_planes


def get_config() -> ml_collections.ConfigDict:
  config = best_planes.get_config()
  config.data.parts = "discovered"
  return config
