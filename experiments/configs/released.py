"""`paper` with what the released code does otherwise and a comparison may hang on.

What: the rate falls as 1 / (1 + 5e-4 i) rather than by halves; the entropy of the hypotheses'
  probabilities is pushed down; the eight hypotheses start together, where the code stores turns
  that would spread them and never applies them. Not repeated are errors that depend on its files
  (weights of two parts of its own segmentation), that only add noise (a drawn camera and code in
  evaluation) or that are plain (texel layout, face statistics, a template that moves twice).
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
  config.model.camera_spread = False
  config.em.align_to_vertical = False
  return config
