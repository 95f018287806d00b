"""What a configuration must satisfy before a run begins."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from umr_jax.config.fields import declarations

if TYPE_CHECKING:
  from umr_jax.config.settings import Config

# Weights that bring more than a term: data, heads, another way of counting.
_BUILT = (
  "segmentation",
  "adversary",
  "target_camera",
  "camera_temperature",
  "part_probability",
  "part_vertices",
)


def problems(config: "Config") -> Iterator[str]:
  """Every reason why a run with this configuration is impossible.

  Args:
    config: a `settings.Config`.
  """
  for group in dataclasses.fields(config):
    yield from _outside(group.name, getattr(config, group.name))
  if config.geometry.uv_height & (config.geometry.uv_height - 1):
    yield f"geometry.uv_height is {config.geometry.uv_height}; it must be a power of two."
  if config.render.image_size and config.data.image_size % config.render.image_size:
    yield (
      f"render.image_size is {config.render.image_size}; it must divide data.image_size, "
      f"{config.data.image_size}."
    )
  if config.refine.steps and not config.loss.segmentation:
    yield (
      "refine.steps fits meshes to silhouettes that the network predicts: set loss.segmentation, "
      "which trains that prediction, or refine.steps to 0."
    )
  if config.model.flow == "projected" and config.loss.texture_cameras == "all":
    yield (
      "model.flow=projected looks through one camera: it does not go with loss.texture_cameras=all."
    )
  if config.model.flow != "projected" and config.loss.flow_correction:
    yield "loss.flow_correction needs model.flow=projected: set it to 0, or that."
  published_resnet = config.model.encoder == "resnet18" and config.model.encoder_weights != "none"
  if published_resnet and config.model.norm != "batch":
    yield "model.encoder_weights were trained with BatchNorm: set model.norm=batch."
  elevation = config.model.camera_elevation
  if len(elevation) != 2 or not -90 <= elevation[0] < elevation[1] <= 90:
    yield f"model.camera_elevation is {elevation}; it must be two rising angles in [-90, 90]."
  if not config.model.camera_spread and (
    config.model.camera_pose == "upright" or config.loss.target_camera
  ):
    yield (
      "model.camera_spread=False needs model.camera_pose=free and no loss.target_camera: these "
      "give each hypothesis its share of the circle."
    )
  if config.loss.camera_posterior and not (
    config.loss.camera_temperature or config.loss.target_camera
  ):
    yield (
      "loss.camera_posterior is set, but loss.camera_temperature and loss.target_camera are 0: "
      "nothing would use it."
    )
  if config.data.parts == "none" and config.semantic:
    yield (
      "data.parts is 'none', but loss.part_probability or loss.part_vertices is set: set these to "
      "0, or data.parts=given."
    )
  if (config.data.parts == "file") != bool(config.data.part_file):
    yield "data.parts=file and data.part_file need each other: set both, or neither."
  yield from _part_problems(config.parts)
  yield from _data_problems(config.data)
  yield from _em_problems(config.em)
  yield from _later_problems(config)
  if config.loss.perceptual_weights != "none" and not config.loss.texture:
    yield "loss.perceptual_weights is given, but loss.texture is 0: nothing would use them."


def check_trainable(config: "Config") -> None:
  """Refuses what can be read from an earlier run, but should not be trained.

  Raises:
    ValueError: with the reason.
  """
  loss = config.loss
  for name in ("camera_temperature", "target_camera"):
    if getattr(loss, name) and max(config.em.hypotheses) > 1 and not loss.camera_posterior:
      raise ValueError(
        f"loss.{name} is set, so the probabilities of the hypotheses learn from "
        "loss.camera_posterior alone: it must not be 0."
      )
  if loss.camera_temperature and max(config.em.hypotheses) > 1 and loss.texture_cameras == "all":
    raise ValueError(
      "loss.camera_temperature textures the responsible hypothesis alone: set "
      "loss.texture_cameras=one."
    )


def _outside(group: str, settings: Any) -> Iterator[str]:
  """The settings of a group that are not among their choices, or beyond their range."""
  for name, (_, low, high, choices) in declarations(settings).items():
    value = getattr(settings, name)
    if choices and value not in choices:
      yield f"{group}.{name} is {value!r}; it must be one of {', '.join(choices)}."
    if low is not None and high is not None and not low <= value <= high:
      yield f"{group}.{name} is {value}; it must lie in [{low}, {high}]."
    elif low is not None and value < low:
      yield f"{group}.{name} is {value}; it must not be negative."


# Which sources read a setting that not all of them do, and whether they need it.
_FILES = ("folder", "cub", "pascal3d", "imagenet", "openimages")
_CLASSES = ("pascal3d", "imagenet", "openimages")
_READ_BY = {
  "folder": ((*_FILES, "tfds"), _FILES),
  "category": ((*_CLASSES, "tfds"), _CLASSES),
  "tfds_name": (("tfds",), ("tfds",)),
  "cub_annotations": (("cub",), ()),
  "download": (("cub", "pascal3d", "openimages"), ()),
}


def _data_problems(data: Any) -> Iterator[str]:
  for name, (readers, needers) in _READ_BY.items():
    value = getattr(data, name)
    if value and data.source not in readers:
      yield (
        f"data.{name} is {value!r}, but data.source is {data.source!r}: nothing would read it. "
        f"It belongs to --config.data.source={'|'.join(readers)}."
      )
    if not value and data.source in needers:
      yield f"data.source is {data.source!r}, but data.{name} is empty: set --config.data.{name}."


def _part_problems(parts: Any) -> Iterator[str]:
  if parts.method == "scops" and not parts.steps:
    yield "parts.method=scops needs parts.steps: its parts are a network's."
  if parts.net_weights != "none" and parts.net == "small":
    yield "parts.net=small has no published weights: set parts.net_weights=none, or another net."


def later_weights(settings: tuple[str, ...]) -> dict[str, float]:
  """("loss.mask=2.5",) as {"mask": 2.5}.

  Raises:
    ValueError: for anything else.
  """
  found = {}
  for setting in settings:
    name, _, value = setting.partition("=")
    if not name.startswith("loss."):
      raise ValueError(f"em.later has {setting!r}; expected a weight such as 'loss.mask=2.5'")
    found[name.removeprefix("loss.")] = float(value)
  return found


def _later_problems(config: "Config") -> Iterator[str]:
  try:
    later = later_weights(config.em.later)
  except ValueError as error:
    yield f"em.later cannot be read: {error}."
    return
  for name, value in later.items():
    declared = declarations(config.loss).get(name)
    known = declared is not None and isinstance(getattr(config.loss, name), float)
    if (
      not known or not math.isfinite(value) or (value < 0 and declared and declared.low is not None)
    ):
      yield f"em.later sets loss.{name} to {value}; it must name a loss weight, not negative."
    elif name in _BUILT and bool(value) != bool(getattr(config.loss, name)):
      yield f"em.later sets loss.{name} to {value}: what it needs must be there in all rounds."
  if later and config.em.rounds == 1:
    yield "em.later is set, but em.rounds is 1: there is no later round."


def _em_problems(em: Any) -> Iterator[str]:
  if not em.hypotheses or min(em.hypotheses) < 1:
    yield f"em.hypotheses is {em.hypotheses}; it needs at least one number, all positive."
  if len(em.hypotheses) > em.rounds:
    yield f"em.hypotheses has {len(em.hypotheses)} values for em.rounds={em.rounds}."
  if not em.restart and len(set(em.hypotheses)) > 1:
    yield "em.restart is False, but em.hypotheses changes: a new camera head needs a restart."
