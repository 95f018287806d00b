"""Configurations from the nested dicts of files, flags and checkpoints, and how two of them differ.

What is not known is refused by name.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any

from umr_jax.config import history
from umr_jax.config.fields import Settings
from umr_jax.config.settings import Config, flatten, to_dict

# A run may be resumed although these differ from the configuration it began with.
_MAY_DIFFER = ("log.", "checkpoint.", "data.cache")


def from_dict(nested: Settings) -> Config:
  """A validated configuration from nested dicts; what is absent takes its default.

  A setting that was removed may have a value that means what the code does now.

  Raises:
    ValueError: for an unknown name, a value of the wrong type, a removed setting with another
      value, or a combination that cannot run.
  """
  return _build(Config, history.with_new_names(nested), "")


def from_saved(nested: Settings) -> Config:
  """The configuration of a run that was saved, perhaps by an earlier version of the package.

  As `from_dict`, but what is absent is what the run did before there was such a setting.

  Raises:
    ValueError: as `from_dict`.
  """
  return _build(Config, history.with_former_defaults(nested), "")


def with_settings(config: Config, settings: Settings) -> Config:
  """The configuration with other values of some settings.

  Args:
    config: what is changed.
    settings: the new values by name, such as {"train.steps": 500}.

  Raises:
    ValueError: for a name that is not a setting, or a combination that cannot run.
  """
  nested = to_dict(config)
  for name, value in settings.items():
    group, _, setting = name.partition(".")
    if setting not in nested.get(group, {}):
      raise ValueError(f"{name} is not a setting")
    nested[group][setting] = value
  return from_dict(nested)


def _build(cls: type, nested: Settings, prefix: str) -> Any:
  hints = typing.get_type_hints(cls)
  known = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
  arguments = {}
  for name, value in nested.items():
    if name not in known and prefix + name in history.REMOVED:
      if not history.is_read(prefix + name, value):
        raise ValueError(
          f"{prefix}{name} is {value!r}, but this setting was removed: the code does what "
          f"{history.REMOVED[prefix + name][0]!r} meant. Use an earlier version of the package "
          "for anything else."
        )
      continue
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1)
      hint = f" Did you mean {prefix}{close[0]}?" if close else f" Known: {', '.join(known)}."
      raise ValueError(f"The configuration has no setting {prefix}{name}.{hint}")
    kind = known[name]
    if dataclasses.is_dataclass(kind):
      if not isinstance(value, Mapping):
        raise ValueError(f"{prefix}{name} is {value!r}; it must be a group of settings.")
      arguments[name] = _build(typing.cast(type, kind), value, f"{prefix}{name}.")
    else:
      arguments[name] = _convert(value, kind, prefix + name)
  return cls(**arguments)


def _convert(value: Any, kind: Any, name: str) -> Any:
  """The value as its declared type; only int to float and list to tuple are silent."""
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, (list, tuple)):
      raise ValueError(f"{name} is {value!r}; it must be a list.")
    return tuple(_convert(item, typing.get_args(kind)[0], name) for item in value)
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if type(value) is not kind or (kind is float and not math.isfinite(value)):
    raise ValueError(f"{name} is {value!r}; it must be a finite {kind.__name__}.")
  return value


def changes(saved: Settings, new: Settings) -> dict[str, tuple[object, object]]:
  """The settings that matter to a run's result and differ, by name: was, now.

  A setting that was removed is no difference where it is read (`history.REMOVED`), and neither is
  one that nothing reads in either run (`history.is_ineffective`).

  Args:
    saved: of a run, nested, perhaps by an earlier version: what it lacks is what it did without.
    new: nested; what it lacks has its default.
  """
  defaults = flatten(to_dict(Config()))
  before = defaults | flatten(history.with_former_defaults(saved))
  after = defaults | flatten(history.with_new_names(new))
  found = {}
  for name in sorted(before | after):
    pair = tuple(
      history.plain(flat.get(name, history.REMOVED.get(name, ("absent",))[0]))
      for flat in (before, after)
    )
    same = name not in defaults and all(history.is_read(name, value) for value in pair)
    same = same or all(history.is_ineffective(name, flat) for flat in (before, after))
    if pair[0] != pair[1] and not same and not name.startswith(_MAY_DIFFER):
      found[name] = (pair[0], pair[1])
  return found


def differences(saved: Settings, new: Settings) -> list[str]:
  """What keeps a saved run from being resumed under new settings, a line each.

  Args:
    saved: as `changes` takes it.
    new: likewise.
  """
  return [
    f"{name}: {was!r} in the work directory, {now!r} now"
    for name, (was, now) in changes(saved, new).items()
    if not (name == "train.steps" and isinstance(was, int) and isinstance(now, int) and now > was)
  ]
