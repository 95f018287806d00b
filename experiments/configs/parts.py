"""A folder of your own photographs with silhouettes, cut into parts that they share.

What: `folder` with everything that `best` has. The parts are the folder's own
  (parts/NAME.npz) where it has any, and discovered otherwise.
Hardware and time: one of 2 CPU cores; for 263 horses 35 minutes beside another training, from a
  bare folder to meshes.
Expected: that depends on the photographs; 53 unseen horses of 263: mask IoU 0.77, with
  --config.model.camera_elevation=(-10,20), which is what is known of these photographs.
Command: python -m experiments.train --config=parts --config.data.folder=DIR --workdir=runs/NAME
"""

import ml_collections

from experiments.configs import best, folder


def get_config() -> ml_collections.ConfigDict:
  config = best.with_semantics(folder.get_config())
  config.em.hypotheses = (8,)
  config.em.template_every = 1000
  config.em.parts_every = 1000
  # Longer training follows outlines further and made worse shapes.
  config.train.steps = 3000
  # Photographs from one side alone do not tell how wide the object is.
  config.geometry.hull_cost = 0.4
  # Nor do they see a back that folds over its flank.
  config.loss.flatten = 4e-3
  return config
