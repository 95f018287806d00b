"""What a user installs: the wheel alone, from another folder, trains and brings its presets."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.commands import one_device_flags

ROOT = pathlib.Path(__file__).parent.parent
UV = shutil.which("uv") or shutil.which("uv", path=pathlib.Path(sys.executable).parent)
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(UV is None, reason="uv, which installs the wheel, is not on this machine"),
]

# Two steps of the smallest run that still goes through every stage.
TINY = [
  "--config.train.steps=2",
  "--config.train.batch_size=4",
  "--config.data.image_size=64",
  "--config.render.image_size=32",
  "--config.data.train_images=8",
  "--config.data.test_images=4",
  "--config.geometry.level=1",
  "--config.geometry.texels_per_side=2",
  "--config.geometry.uv_height=32",
  "--config.model.encoder_width=8",
  "--config.em.hypotheses=(2,)",
]


def run(*command: str | pathlib.Path, cwd: pathlib.Path, **environment: str) -> str:
  """Runs a command away from the checkout; its standard output."""
  inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
  done = subprocess.run(
    [str(word) for word in command],
    cwd=cwd,
    env=inherited | environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
  return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The wheel, built from a copy so that no build folder is left in the checkout."""
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"
  source.mkdir()
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source / name)
  # What the wheel must not hold is there, as in a clone.
  for name in ("umr_jax", "experiments"):
    shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
  build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
  name = run(sys.executable, "-c", build, cwd=source).split()[-1]
  return folder / name


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
  """An empty virtual environment into which the wheel, and what it asks for, was installed."""
  folder = tmp_path_factory.mktemp("environment")
  run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
  # The lock's versions, so that a new release of some package cannot break the test.
  run(
    *(UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python"),
    *("--constraint", ROOT / "requirements.txt", wheel),
    cwd=folder,
  )
  return folder


def test_the_wheel_holds_the_package_with_its_presets_and_nothing_else(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  assert {"umr_jax/config/presets.py", "umr_jax/config/preset_file.py"} <= set(names)
  assert {name.split("/")[0].partition("-")[0] for name in names} == {"umr_jax"}
  templates = {path.name for path in (ROOT / "umr_jax" / "viz" / "templates").iterdir()}
  assert {f"umr_jax/viz/templates/{name}" for name in templates} <= set(names)
  assert all(name.endswith((".py", ".md", ".html")) or ".dist-info/" in name for name in names), (
    "only sources and what the package data list"
  )


def test_the_installed_package_is_the_wheels(environment, tmp_path):
  code = "import umr_jax; print(umr_jax.__file__)"
  path = run(environment / "bin" / "python", "-c", code, cwd=tmp_path).strip()
  assert pathlib.Path(path).is_relative_to(environment)


def test_the_console_script_helps(environment, tmp_path):
  script = environment / "bin" / "umr-jax"
  assert "usage: umr-jax COMMAND" in run(script, "--help", cwd=tmp_path)
  text = run(script, "train", "--help", cwd=tmp_path)
  assert "umr-jax train --config=default" in text and "--workdir" in text


def test_the_wheel_trains_two_steps_from_another_folder(environment, tmp_path):
  workdir = tmp_path / "run"
  run(
    environment / "bin" / "umr-jax",
    "train",
    "--config=quickstart",
    f"--workdir={workdir}",
    *TINY,
    f"--config.data.cache={tmp_path / 'cache'}",
    cwd=tmp_path,
    XLA_FLAGS=one_device_flags(),
  )
  for name in ("config.json", "metrics.jsonl", "evaluation.json", "report.html"):
    assert (workdir / name).stat().st_size > 0
  assert any((workdir / "checkpoints").iterdir())
