"""`paper` with what the released code does otherwise and a comparison may hang on.

What: the rate falls as 1 / (1 + 5e-4 i) rather than by halves; the entropy of the hypotheses'
  probabilities is pushed down; the texture cycle counts twice as much. The released code's plain
  errors (its texel layout, face statistics and part weights among them) are not repeated.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: as for `paper`.
Expected: not run by this project.
Command: python -m experiments.train --config=released --config.data.folder=DIR
"""

import ml_collections

from experiments.configs import paper


def get_config() -> ml_collections.ConfigDict:
  config = paper.get_config()
  config.train.schedule = "inverse"
  config.loss.camera_entropy = 0.05
  config.loss.texture_cycle = 1.0
  return config
