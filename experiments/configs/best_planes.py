"""Rendered aeroplanes with `best`, with part maps made of the training split's keypoints.

What: an upper reference for parts that are found without keypoints: "keypoint-supervised parts",
  never to be quoted as the method.
Hardware and time: 2 CPU cores, 15 minutes.
Expected: mask IoU 0.68, cameras 13 degrees, 3D IoU 0.41.
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=best_planes
"""

import ml_collections

from experiments.configs import best, planes


def get_config() -> ml_collections.ConfigDict:
  config = best.with_semantics(planes.get_config())
  config.data.parts = "keypoints"
  config.geometry.init_width = 0.8
  config.loss.laplacian = 0.03
  config.loss.deformation = 0.02
  config.train.steps = 2500
  return config
