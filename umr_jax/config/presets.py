"""The presets: the paper, the released code, and the paper with named extensions.

`--config=NAME`, or `--config=NAME:CATEGORY` for the data of the paper.
"""

import ast
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from umr_jax.config.build import from_dict
from umr_jax.config.extensions import EXTENSIONS
from umr_jax.config.fields import NewSettings, Settings
from umr_jax.config.preset_docs import DOCS
from umr_jax.config.settings import Config, to_dict
from umr_jax.errors import UsageError

DEFAULT_PRESET = "quickstart"

_LAPTOP = (
  "small_renders",
  "small_network",
  "fewer_terms",
  "quick_optimizer",
  "upright_cameras",
  "settled_shapes",
  "one_network",
)
_PARTS = (
  "strong_parts",
  "visual_hull",
  "pose_search",
  "projected_flow",
  "frozen_encoder",
  "test_time_optimisation",
  "one_round",
)
_BIRDS: dict[str, Any] = {
  "geometry.texels_per_side": 4,
  "data.train_images": 2000,
  "model.camera_elevation": (0.0, 40.0),
  "checkpoint.every": 500,
  "log.panel_every": 500,
}
_PHOTOGRAPHS: dict[str, Any] = {
  "geometry.texels_per_side": 3,
  "data.source": "folder",
  "checkpoint.every": 500,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
  """The paper, some extensions in their order, and at last what the data and the budget ask for."""

  extensions: tuple[str, ...] = ()
  settings: Settings = dataclasses.field(default_factory=dict)


PRESETS: dict[str, Preset] = {
  "default": Preset(
    extensions=(*_LAPTOP, "photographs", *_PARTS, "view_search", "outline"),
    settings={
      **_PHOTOGRAPHS,
      "geometry.init_width": 0.4,
      "model.camera_roll": 15.0,
      # Images from one side alone do not determine how wide the object is, ...
      "geometry.hull_cost": 0.4,
      # ... nor do they constrain a back that folds over its flank.
      "loss.flatten": 4e-3,
      # Longer training follows outlines further and made worse shapes.
      "train.steps": 1500,
    },
  ),
  "quickstart": Preset(
    # In the place of the other presets' visual hull and pose search, which need parts.
    extensions=(*_LAPTOP, "silhouette_template", "responsibilities"),
    settings={
      **_BIRDS,
      "geometry.level": 2,
      "loss.texture_cycle": 5.0,
      # Silhouettes alone.
      "loss.part_probability": 0.0,
      "loss.part_vertices": 0.0,
      "train.steps": 6000,
      "em.template_every": 1000,
    },
  ),
  "best": Preset(
    extensions=(*_LAPTOP, *_PARTS),
    # Shapes that may bend anywhere bend to cameras that are a little wrong.
    settings={**_BIRDS, "loss.laplacian": 2.8, "train.steps": 2500},
  ),
  "planes": Preset(
    extensions=(*_LAPTOP, "photographs", *_PARTS),
    settings={
      **_PHOTOGRAPHS,
      "data.folder": "$UMR_JAX_DATA/planes",
      "data.parts": "discovered",
      "geometry.init_width": 0.8,
      "loss.laplacian": 0.03,
      "loss.deformation": 0.02,
      "train.steps": 2500,
    },
  ),
  "paper": Preset(settings={"data.source": "folder", "data.part_count": 4}),
  "released": Preset(
    settings={
      "data.source": "folder",
      "data.part_count": 4,
      # Here L_sp is 1.80 and L_sv 1.86 times the release's, whose sums run otherwise.
      "loss.part_probability": 2.8,
      "loss.part_vertices": 5.4,
      "loss.edge": 0.0,
      "loss.camera_entropy": 0.05,
      "model.camera_spread": False,
      # Every five epochs of the first round.
      "em.template_every": 2000,
    },
  ),
}

_PASCAL3D = {
  "data.source": "pascal3d",
  "data.folder": "$UMR_JAX_DATA/PASCAL3D+_release1.1",
  "data.download": True,
}
_IMAGENET = {"data.source": "imagenet", "data.folder": "$UMR_JAX_DATA/imagenet"}
# The data of the paper's experiments, for `paper` and `released`.
CATEGORIES: dict[str, dict[str, object]] = {
  "cub": {
    "data.source": "cub",
    "data.folder": "$UMR_JAX_DATA/CUB_200_2011",
    "data.download": True,
  },
  "car": {**_PASCAL3D, "data.category": "car", "data.part_count": 6},
  "motorbike": {**_PASCAL3D, "data.category": "motorbike"},
  "horse": {**_IMAGENET, "data.category": "horse"},
  "cow": {**_IMAGENET, "data.category": "cow"},
  "zebra": {**_IMAGENET, "data.category": "zebra"},
  "penguin": {
    "data.source": "openimages",
    "data.folder": "$UMR_JAX_DATA/openimages",
    "data.download": True,
    "data.category": "Penguin",
  },
}
_OF_CATEGORIES = ("paper", "released")

# The present names of presets of earlier versions.
_FORMER = {
  "parts": "default",
  "folder": "default",
  "horses": "default --config.data.folder=DIR",
  "scops": "default --config.parts.method=scops --config.parts.steps=400",
  "best_128": "best --config.data.image_size=128 --config.render.image_size=64",
  "best_256": "best --config.data.image_size=256 --config.render.image_size=64",
  "best_planes": "planes --config.data.parts=keypoints",
  "discovered_planes": "planes",
  **{name: f"paper:{name}" for name in CATEGORIES},
}


def preset_names() -> list[str]:
  """The names that `--config` takes besides a file."""
  return [*PRESETS, *(f"{name}:{category}" for name in _OF_CATEGORIES for category in CATEGORIES)]


def preset_settings(name: str) -> NewSettings:
  """A preset's settings, nested, as a config file's `get_config()` may take and change them.

  They are validated where they are used: some, such as the folder, only the user knows.

  Raises:
    UsageError: if there is no such preset.
  """
  family, _, category = name.partition(":")
  if name not in preset_names():
    if family in _FORMER:
      raise UsageError(
        f"--config={name} has another name since; use --config={_FORMER[family]} in its place"
      )
    raise UsageError(
      f"--config={name} is neither a file nor a preset; the presets are {', '.join(preset_names())}"
    )
  nested = to_dict(Config())
  for settings in (
    *(EXTENSIONS[extension].settings for extension in PRESETS[family].extensions),
    PRESETS[family].settings,
    CATEGORIES.get(category, {}),
  ):
    for setting, value in settings.items():
      group, last = setting.split(".")
      if last not in nested[group]:
        raise KeyError(f"{name} changes {setting}, which is not a setting")
      nested[group][last] = value
  return nested


def preset_doc(name: str) -> str:
  """What a preset is for, what it needs, and what to expect of it."""
  return DOCS[name.partition(":")[0]]


def config_of(preset: str, changes: Sequence[str]) -> Config:
  """A preset's configuration, with changes of the form GROUP.NAME=VALUE.

  Args:
    preset: its name.
    changes: settings and their values, as Python writes these; words need no quotes.

  Raises:
    UsageError: for an unknown preset, or a change that names no setting.
    ValueError: for one that does not fit.
  """
  settings = preset_settings(preset)
  for change in changes:
    name, equals, text = change.partition("=")
    group, _, last = name.partition(".")
    if not equals or last not in settings.get(group, {}):
      raise UsageError(f"--set={change}: expected GROUP.NAME=VALUE of a known setting")
    try:
      settings[group][last] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      settings[group][last] = text  # a word or a path
  return from_dict(settings)


def config_file(name: str) -> str:
  """What `ml_collections.config_flags` reads for a preset's name or a file: PATH or PATH:NAME.

  Raises:
    UsageError: if it is neither a preset nor a file.
  """
  if name not in preset_names() and pathlib.Path(name.partition(":")[0]).is_file():
    return name
  preset_settings(name)
  return f"{pathlib.Path(__file__).with_name('preset_file.py')}:{name}"
