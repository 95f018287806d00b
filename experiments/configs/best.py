"""What measured best here: cameras found by search, semantic parts, texture tied to geometry.

What: the embedded synthetic birds with their true part maps, the quickstart's network. Parts are
  what the method needs; the paper's come from another network. A folder with part maps (or with
  keypoints and --config.data.parts=keypoints) is read by --config.data.source=folder.
Hardware and time: 2 CPU cores, 17 minutes beside other jobs.
Expected: see BUILD_NOTES.md.
Command: python -m experiments.train --config=best
"""

import ml_collections

from experiments.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
  return with_semantics(quickstart.get_config())


def with_semantics(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A silhouette-only preset's settings with everything that parts allow."""
  config.geometry.first_parts = True
  config.loss.segmentation = 1.0
  config.loss.texture_cycle = 50.0
  config.loss.texture_dt = 1.0
  config.loss.part_probability = 20.0
  config.loss.part_cameras = True
  config.loss.part_vertices = 10.0
  config.loss.camera_bank = 5.0
  config.loss.camera_posterior = 2.0
  config.em.rounds = 1
  config.em.round_fractions = (1.0,)
  # The exemplar's views are all from the side, and say nothing of how wide the object is.
  config.em.top_fraction = 1.0
  config.em.pull_back = "camera"
  config.em.template_every = 500
  config.em.parts_every = 500
  config.em.bank_every = 500
  # One shape alone does not tell the side from which another is seen.
  config.em.bank_shapes = 16
  return config
