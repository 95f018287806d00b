"""Rendered aeroplanes from photographs and silhouettes alone: parts are discovered, then `best`.

What: `best_planes` without keypoints. Parts come from EfficientNet's features where the extra
  `features` is installed, and from an encoder trained on the photographs themselves otherwise.
Hardware and time: 2 CPU cores, 17 minutes beside other jobs, parts found before.
Expected: with that extra, --config.model.encoder=efficientnet and --config.loss.segmentation=0.0:
  mask IoU 0.563, cameras 16 degrees, 3D IoU 0.443; otherwise not measured.
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=discovered_planes
"""

import ml_collections

from experiments.configs import best_planes


def get_config() -> ml_collections.ConfigDict:
  config = best_planes.get_config()
  config.data.parts = "discovered"
  return config
