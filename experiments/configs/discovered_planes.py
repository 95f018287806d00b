"""Rendered aeroplanes from photographs and silhouettes alone: parts are discovered, then `best`.

What: `best_planes` without keypoints. Parts come from EfficientNet's features where the extra
  `features` is installed, and from an encoder trained on the photographs themselves otherwise.
Hardware and time: 2 CPU cores, see BUILD_NOTES.md.
Expected: see BUILD_NOTES.md.
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=discovered_planes
"""

import ml_collections

from experiments.configs import best_planes


def get_config() -> ml_collections.ConfigDict:
  config = best_planes.get_config()
  config.data.parts = "discovered"
  return config
