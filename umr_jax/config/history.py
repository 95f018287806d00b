"""Settings of earlier versions, which config.json files and checkpoints hold, as those of now."""

from collections.abc import Mapping

from umr_jax.config.fields import NewSettings, Settings
from umr_jax.config.settings import flatten

# Settings that were removed, with the values that are read: those that mean what the code does now,
# or that made no difference to it; the first is what the code does. Any other is refused. An entry
# applies only where no settings class has the name.
REMOVED: dict[str, tuple[object, ...]] = {
  "geometry.first_cameras": ("views",),
  "geometry.radii": ((1.0, 1.0, 1.0),),
  "geometry.taper": (0.0,),
  "geometry.hull_turns": (4,),
  # It follows from geometry.init and the semantic terms.
  "geometry.init_parts": (True, False),
  "data.padding": (0.05,),
  "data.mirror": (True,),
  "data.test_fraction": (0.2,),
  "data.split_seed": (0,),
  "data.synthetic_seed": (0,),
  # (0, 0): of other data sets than CUB.
  "data.cub_keypoints": ((6, 7), (0, 0)),
  "parts.rotation": (30.0,),
  "parts.zoom": ((0.8, 1.3),),
  "parts.feature_size": (448,),
  "parts.encoder_steps": (500,),
  "parts.image_size": (128,),
  "parts.net_width": (32,),
  "parts.batch_size": (16,),
  "parts.learning_rate": (3e-3,),
  "parts.seed": (0,),
  "parts.confident": (0.5,),
  # The weights follow from parts.method; those of a co-segmentation, then those of SCOPS's losses.
  "parts.supervision": (1.0, 0.0),
  "parts.concentration": (0.0, 0.1),
  "parts.equivariance": (1.0, 10.0),
  "parts.landmark": (0.0, 1.0),
  "parts.semantic": (0.0, 30.0),
  "parts.orthonormality": (0.0, 0.01),
  "model.feature_size": (200,),
  "model.code_size": (350,),
  "model.camera_twins": (False,),
  "model.camera_mirrored": (False,),
  "render.gamma": (1e-4,),
  "loss.adversary_reversal": (0.2,),
  "loss.camera_appearance": (False,),
  "loss.camera_diversity": (0.0,),
  # 1 where there is a temperature; without one nothing reads it.
  "loss.camera_prior": (1.0, 0.0),
  # Every preset that had the term ended it there; 0: those without.
  "loss.shape_variance_stop": (300, 0),
  # Only presets without the term had 300.
  "loss.orientation_stop": (1000, 300),
  "loss.part_symmetric": (False,),
  # With target cameras, which presets with parts have, nothing reads it.
  "loss.part_cameras": (True, False),
  "refine.learning_rate": (5e-3,),
  "refine.laplacian": (2.0,),
  "train.ema_decay": (0.0,),
  "train.halving_steps": (2000,),
  # Rounds are equally long.
  "em.round_fractions": ((0.5, 0.5), (1.0,)),
  "em.template": (True,),
  "em.view_evenness": (0.5,),
  # With model.camera_spread.
  "em.align_to_vertical": (True, False),
  "em.bank_every": (0,),
  "em.bank_shapes": (0,),
  "em.levels": ((),),
  "em.render_sizes": ((),),
  "checkpoint.keep": (2,),
  "log.tensorboard": (True, False),
}

# Settings and choices that had another name: from the old name to the new.
RENAMED = {
  "geometry.first": "geometry.init",
  "geometry.first_parts": "geometry.init_parts",
  "geometry.width": "geometry.init_width",
  "geometry.volume_turns": "geometry.hull_turns",
  "geometry.volume_cost": "geometry.hull_cost",
  "parts.reliable": "parts.confident",
  "loss.camera_bank": "loss.target_camera",
  "loss.deviation": "loss.shape_variance",
  "loss.deviation_stop": "loss.shape_variance_stop",
  "em.bank_evenness": "em.view_evenness",
  "em.pull_back": "em.uv_projection",
  "em.mean_up": "em.align_to_vertical",
}
RENAMED_CHOICES = {
  "geometry.init": {"egg": "sphere", "volume": "visual_hull"},
  "model.flow": {"camera": "projected"},
}

# What a run did that was saved before a setting existed, where that is not the default of now:
# until 2026-11 the defaults were those of quick runs, and are the paper's since.
FORMER_DEFAULTS: dict[str, object] = {
  "data.image_size": 96,
  "model.encoder_weights": "none",
  "model.texture_stem": "conv",
  "render.sigma": 1e-4,
  "render.dist_eps": 1e-4,
  "render.antialias": 1,
  "loss.texture_cameras": "one",
  "loss.edge": 0.0,
  "loss.deformation_start": 0,
  "loss.part_probability": 0.0,
  "loss.part_vertices": 0.0,
  "loss.adversary": 0.0,
  "loss.adversary_domain": "mask",
  "loss.perceptual_weights": "none",
  "train.steps": 1000,
  "train.schedule": "halving",
  "em.later": (),
  "checkpoint.every": 250,
  "log.panel_every": 250,
}


# Settings that nothing reads beside others, which presets of earlier versions set all the same: the
# other one, and whether it is on where the first has no effect.
INEFFECTIVE = {
  "loss.camera_temperature": ("loss.target_camera", True),  # pose search leaves one hypothesis
  "loss.adversary_domain": ("loss.adversary", False),
}


def plain(value: object) -> object:
  """The value as JSON would give it back."""
  return list(value) if isinstance(value, tuple) else value


def is_read(name: str, value: object) -> bool:
  """Whether a removed setting has a value that can be passed over.

  Args:
    name: the setting's.
    value: the one that was found.
  """
  return plain(value) in [plain(kept) for kept in REMOVED.get(name, ())]


def is_ineffective(name: str, settings: Settings) -> bool:
  """Whether nothing reads a setting, whatever its value, in a run with these settings.

  Args:
    name: the setting's.
    settings: all of the run's, flat.
  """
  other, on = INEFFECTIVE.get(name, ("", True))
  return bool(other) and bool(settings[other]) == on


def with_new_names(nested: Settings) -> NewSettings:
  """Nested settings of an earlier version under the names and choices that they have now."""
  # A group without settings stays one.
  new: NewSettings = {name: {} for name, group in nested.items() if isinstance(group, Mapping)}
  for name, value in flatten(nested).items():
    name = RENAMED.get(name, name)
    choices = RENAMED_CHOICES.get(name, {})
    *groups, last = name.split(".")
    node = new
    for group in groups:
      node = node.setdefault(group, {})
    node[last] = choices.get(value, value) if isinstance(value, str) else value
  return new


def with_former_defaults(nested: Settings) -> NewSettings:
  """A saved run's settings under their new names; what it lacks is what it did without it."""
  new = with_new_names(nested)
  for name, value in FORMER_DEFAULTS.items():
    group, setting = name.split(".")
    new.setdefault(group, {}).setdefault(setting, value)
  return new
