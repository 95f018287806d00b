"""`best` with photographs of 256 px, drawn at 64 px in training.

What: the settings of `best`; only `best` itself, at 96 px, was trained to its end. The embedded
  birds have 160 px, of which this makes larger crops: it is for data that have more.
Hardware and time: not measured; a step draws 1.8 times as many pixels as one of `best`.
Expected: not run by this project.
Command: python -m experiments.train --config=best_256
"""

import ml_collections

from experiments.configs import best_128


def get_config() -> ml_collections.ConfigDict:
  config = best_128.get_config()
  config.data.image_size = 256
  return config
