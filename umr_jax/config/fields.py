"""How a setting is declared: once, with its default, its range or its choices, and its help."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, cast

Value = TypeVar("Value", bool, int, float, str, tuple[int, ...], tuple[float, ...], tuple[str, ...])

# Settings by name, or by group and name: values have the types that the settings classes declare.
Settings = Mapping[str, Any]
NewSettings = dict[str, Any]  # the same, for a caller to change


class Declaration(NamedTuple):
  """The metadata of a setting's field, besides its name, type and default."""

  help: str
  low: float | None = None  # the least that is allowed, if there is a least
  high: float | None = None
  choices: tuple[str, ...] = ()  # the words that are allowed, where not every one is


def setting(
  default: Value,
  help: str,
  *,
  low: float | None = None,
  high: float | None = None,
  choices: tuple[str, ...] = (),
) -> Value:
  """A field of a settings class.

  Args:
    default: the value unless it is set: the paper's, where the help names no other.
    help: what it does, for the reader of `--help` and of the documentation; with its unit.
    low: the least allowed number.
    high: the largest allowed number.
    choices: the allowed words; all, where empty.
  """
  declaration = Declaration(help, low, high, choices)
  return cast(Value, dataclasses.field(default=default, metadata={"setting": declaration}))


def weight(default: float, help: str) -> float:
  """The weight of a loss term: a number that is not negative.

  Args:
    default: the value where nothing else is said.
    help: of which term.
  """
  return setting(default, help, low=0.0)


def declarations(group: object) -> dict[str, Declaration]:
  """The declarations of a settings class, or of an object of one, by name."""
  fields = dataclasses.fields(cast(Any, group))
  return {field.name: field.metadata["setting"] for field in fields if "setting" in field.metadata}
