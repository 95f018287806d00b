"""The locks say what pyproject.toml says: dependencies, both stacks and the lowest versions."""

import pathlib
import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = pathlib.Path(__file__).parent.parent
STACKS = {"3.11": Version("0.10"), "3.12": Version("0.12"), "3.13": Version("0.12")}


def declared(*extras: str) -> list[Requirement]:
  """The dependencies of the package and of some extras, each by the name that locks write."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  optional = project["optional-dependencies"]
  lines = sum((optional[extra] for extra in extras), project["dependencies"])
  return [r for r in map(Requirement, lines) if r.name != project["name"]]


def locked(path: pathlib.Path, python: str) -> dict[str, Version]:
  """What a lock installs on Linux with a Python."""
  pins = re.findall(r"^([a-z0-9.-]+==\S+(?: ; .*?)?) \\$", path.read_text(), re.MULTILINE)
  on_linux = {"sys_platform": "linux", "python_full_version": f"{python}.9"}
  requirements = [
    r for r in map(Requirement, pins) if r.marker is None or r.marker.evaluate(on_linux)
  ]
  assert len({r.name for r in requirements}) == len(requirements), "one version of each"
  return {r.name: Version(str(r.specifier)[2:]) for r in requirements}


def test_each_python_gets_its_stack_within_the_bounds():
  for python, jax in STACKS.items():
    pins = locked(ROOT / "requirements.txt", python)
    assert pins["jax"].release[:2] == pins["jaxlib"].release[:2] == jax.release
    for requirement in declared("features", "docs", "test", "dev"):
      version = pins[requirement.name.lower()]
      assert requirement.specifier.contains(version), f"{requirement} and {version}"


def test_the_lowest_lock_holds_the_lower_bounds():
  pins = locked(ROOT / ".ci" / "lowest.txt", "3.11")
  for requirement in declared("test"):
    lowest = next(s.version for s in requirement.specifier if s.operator == ">=")
    assert pins[requirement.name.lower()] == Version(lowest), requirement


def test_every_pin_has_hashes():
  for path in (ROOT / "requirements.txt", ROOT / ".ci" / "lowest.txt"):
    for pin in re.split(r"\n(?=[a-z])", path.read_text())[1:]:
      assert "--hash=sha256:" in pin, pin
