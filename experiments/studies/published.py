"""What was published about the method and its peers, for tables that show it beside our own.

Fractions. Figures of peers are cited, never run again here.

Source: Li et al. 2020, section 4 and the supplementary's Table 2; Kanazawa et al. 2018 (CMR);
Kulkarni et al. 2019 (CSM).
"""

from typing import NamedTuple

from umr_jax.config.presets import CATEGORIES

# Seconds for one image, on a V100.
SECONDS_PER_IMAGE = 0.022
# What can be reproduced, and the preset that does it.
DATASETS = {
  **{name: f"paper:{name}" for name in CATEGORIES},
  "planes": "planes",
  "synthetic": "quickstart",
}
METRICS = ("mask_iou", "kt_camera_pck", "kt_flow_pck", "apk", "iou_3d")


class Row(NamedTuple):
  """One line of a published table."""

  name: str
  values: dict[str, float]
  note: str = ""


# The row that a run is compared with is the first of its data set.
TABLES: dict[str, tuple[Row, ...]] = {
  "cub": (
    Row(
      "UMR (paper)",
      {"mask_iou": 0.734, "kt_camera_pck": 0.512, "kt_flow_pck": 0.582, "apk": 0.25},
    ),
    Row(
      "UMR (paper), (e) original part segmentation",
      {"kt_camera_pck": 0.487, "kt_flow_pck": 0.529},
      "derived from the gains that the supplementary states",
    ),
    Row(
      "UMR (paper), without L_sv",
      {"mask_iou": 0.6069, "kt_camera_pck": 0.307, "kt_flow_pck": 0.295},
    ),
    Row(
      "UMR (paper), without L_sp",
      {"mask_iou": 0.6418, "kt_camera_pck": 0.51, "kt_flow_pck": 0.533},
    ),
    Row(
      "CMR (cited)",
      {"mask_iou": 0.706, "kt_camera_pck": 0.473, "kt_flow_pck": 0.285},
      "uses keypoints; recalled, verify before quoting",
    ),
    Row(
      "CSM (cited)",
      {"kt_camera_pck": 0.48, "apk": 0.224},
      "uses a given template; its radius is a tenth larger; recalled, verify before quoting",
    ),
  ),
}

# Rows of the supplementary's tables that a run by itself does not stand for, and the row of
# `ablate.ROWS` that does; for the last, the one of `improve.improve`, which has runs of both.
ABLATED = {
  "(a) no template, no semantics, no adversary": "nothing",
  "(b) with template": "template",
  "(c) with semantics": "semantics",
  "without L_sv": "no_vertex_term",
  "without L_sp": "no_probability_term",
  "(e) original part segmentation": "before",
}
