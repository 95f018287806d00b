"""The rows of an ablation: the settings in which each differs from a preset."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from umr_jax.config.build import with_settings
from umr_jax.config.settings import Config


class Row(NamedTuple):
  """One line of the table: its title, and the settings in which it differs from the preset."""

  title: str
  changes: Mapping[str, Any]
  steps: float = 1.0  # the share of the preset's steps
  improves: str = ""  # the row whose run gives the pseudo labels of this one's parts


# What is made of keypoints bounds what parts without labels can be worth, and is quoted as that.
_KEYPOINTS = "keypoint-supervised parts: "
# Without target cameras all hypotheses are rendered, and count by responsibility.
_NO_BANK = {"loss.target_camera": 0.0, "loss.camera_temperature": 0.01}
_NO_PARTS = {
  **_NO_BANK,
  "loss.part_vertices": 0.0,
  "loss.part_probability": 0.0,
}
_FREE_POSE = {**_NO_BANK, "model.camera_pose": "free"}
_FREE_SHAPES = {
  "loss.shape_variance": 0.0,
  "loss.deformation_start": 0,
}
_ONE_M_STEP = {"em.template_every": 0, "em.parts_every": 0}
# The template moves when training has ended, and no instance's shape with it.
_STILL = {**_ONE_M_STEP, "em.rounds": 1}
_TWO_ROUNDS = {"em.rounds": 2}
# The first four are the supplementary's Table 1, the next ones its Table 2, to which the rows of
# discovered and of improved parts belong, too. What is taken away is taken from the preset, the row
# "semantics".
ROWS: dict[str, Row] = {
  "nothing": Row(
    "(a) no template, no semantics, no adversary",
    {**_NO_PARTS, **_STILL, "geometry.init": "sphere"},
  ),
  "template": Row("(b) with template", _NO_PARTS),
  "semantics": Row("(c) with template and semantics", {}),
  "adversary": Row("(c) and adversary", {"loss.adversary": 1.0, "loss.adversary_domain": "mask"}),
  "no_vertex_term": Row("(c) without L_sv", {"loss.part_vertices": 0.0}),
  "no_probability_term": Row("(c) without L_sp", {"loss.part_probability": 0.0}),
  "no_bank": Row("(c) without target cameras", _NO_BANK),
  "no_bank_no_vertex_term": Row(
    "(c) without target cameras and L_sv", {**_NO_BANK, "loss.part_vertices": 0.0}
  ),
  "no_bank_no_probability_term": Row(
    "(c) without target cameras and L_sp", {**_NO_BANK, "loss.part_probability": 0.0}
  ),
  "wide": Row("(c) without target cameras, 16 cameras", {**_NO_BANK, "em.hypotheses": (16,)}),
  "undecided": Row(
    "(c) without target cameras, entropy kept up", {**_NO_BANK, "loss.camera_entropy": -0.05}
  ),
  "decided": Row(
    "(c) without target cameras, entropy pushed down", {**_NO_BANK, "loss.camera_entropy": 0.05}
  ),
  "free_pose": Row("(c) without target cameras, elevation unbounded", _FREE_POSE),
  "together": Row(
    "(c) without target cameras, elevation unbounded, cameras start together",
    {**_FREE_POSE, "model.camera_spread": False},
  ),
  "no_volume": Row(
    "(c) from the silhouettes' mean, without a volume",
    {"geometry.init": "silhouettes"},
  ),
  "symmetric_texture": Row("(c) with a symmetric texture", {"geometry.symmetric_texture": True}),
  "free_flow": Row(
    "(c) with a free flow, symmetric",
    {
      "model.flow": "free",
      "geometry.symmetric_texture": True,
      "loss.flow_correction": 0.0,
    },
  ),
  # How the network learns: one switch at a time.
  "resnet": Row("(c) with a ResNet from nothing", {"model.encoder": "resnet18"}),
  "no_freeze": Row("(c) with free shapes from the first step", _FREE_SHAPES),
  "no_clipping": Row("(c) without gradient clipping", {"train.clip_norm": 0.0}),
  "no_warmup": Row("(c) without warm-up", {"train.warmup_steps": 0}),
  "constant_rate": Row("(c) with a constant rate", {"train.schedule": "constant"}),
  "rare_m_steps": Row("(c) with one M-step, at the end", _ONE_M_STEP),
  "plain": Row(
    "(c) without clipping, without warm-up, with free shapes and one M-step",
    {**_FREE_SHAPES, "train.clip_norm": 0.0, "train.warmup_steps": 0, **_ONE_M_STEP},
  ),
  "selected": Row("(c), M-steps from the better half of the images", {"em.top_fraction": 0.5}),
  # A round of a network of its own is what a shorter run is: round 1 against round 2.
  "one_round_half": Row("(c), the first of two rounds alone: half the steps", {}, steps=0.5),
  "two_rounds_restart": Row(
    "(c) in two rounds, the second with a new network", {**_TWO_ROUNDS, "em.restart": True}
  ),
  "two_rounds": Row("(c) in two rounds, the second goes on with the network", _TWO_ROUNDS),
  "no_texture_cycle": Row("(c) without texture cycle", {"loss.texture_cycle": 0.0}),
  "one_camera": Row("(c) with one camera", {"em.hypotheses": (1,)}),
  # Where parts come from; the others have the preset's, true or made of keypoints.
  "discovered_parts": Row("(c) with discovered parts", {"data.parts": "discovered"}),
  "improved_parts": Row(
    "(c) with improved parts", {"data.parts": "discovered"}, improves="discovered_parts"
  ),
  "position_parts": Row(
    "(c) with parts by position", {"data.parts": "discovered", "parts.method": "position"}
  ),
}


def config_of_row(base: Config, row: Row, *, seed: int) -> Config:
  """The configuration of a row.

  Raises:
    ValueError: if the row changes a setting that does not exist, or the result cannot run.
  """
  steps = round(base.train.steps * row.steps)
  return with_settings(base, {"train.steps": steps, **row.changes, "train.seed": seed})


def title_of(row: Row, config: Config) -> str:
  """The title of a line of the table, for a run with this configuration."""
  made_of_keypoints = config.semantic and config.data.parts == "keypoints"
  return (_KEYPOINTS if made_of_keypoints else "") + row.title
