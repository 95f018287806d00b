"""A folder of your own photographs with silhouettes.

What: the settings of `horses`, for things of any shape that stand upright in their photographs.
Hardware and time: 2 CPU cores; `horses`, with two cameras instead of four, took 30 minutes.
Expected: that depends on the photographs; `horses` is such a folder.
Command: python -m experiments.train --config=folder --config.data.folder=DIR --workdir=runs/NAME
"""

import ml_collections

from experiments.configs import horses


def get_config() -> ml_collections.ConfigDict:
  config = horses.get_config()
  config.data.folder = ""
  config.em.hypotheses = (4,)
  config.model.camera_elevation = (-5.0, 40.0)
  return config
