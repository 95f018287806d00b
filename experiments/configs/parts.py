"""A folder of your own photographs with silhouettes, cut into parts that they share.

What: `folder` with everything that `best` has but the volume. The parts are the folder's own
  (parts/NAME.npz) where it has any, and discovered otherwise.
Hardware and time: 2 CPU cores; see BUILD_NOTES.md.
Expected: that depends on the photographs.
Command: python -m experiments.train --config=parts --config.data.folder=DIR --workdir=runs/NAME
"""

import ml_collections

from experiments.configs import best, folder


def get_config() -> ml_collections.ConfigDict:
  config = best.with_semantics(folder.get_config())
  config.em.hypotheses = (8,)
  config.em.template_every = 1000
  config.em.parts_every = 1000
  # Photographs from one side alone do not tell a volume how wide the object is. For photographs
  # from all around: geometry.first=volume, loss.smooth_offsets=True, em.bank_every=0.
  config.geometry.first = "silhouettes"
  config.loss.smooth_offsets = False
  config.em.bank_every = 1000
  config.em.bank_shapes = 16
  return config
