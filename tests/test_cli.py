"""The console script: one command of many, the same as the launcher of a clone."""

import pytest

from tests.commands import command
from umr_jax.cli import COMMANDS


def test_without_a_command_it_says_which_there_are():
  helped = command("umr_jax.cli", "--help")
  assert helped.returncode == 0
  assert all(f"\n  {name} " in helped.stdout for name in COMMANDS)
  for words, said in (((), "a command is missing"), (("fly",), "'fly' is not a command")):
    done = command("umr_jax.cli", *words)
    assert done.returncode == 2 and said in done.stderr and helped.stdout in done.stderr


@pytest.mark.parametrize(
  ("launcher", "name"),
  [
    ("train", "train"),
    ("evaluate", "evaluate"),
    ("predict", "predict"),
    ("train_scops", "parts"),
    ("improve_scops", "improve"),
  ],
)
def test_a_command_and_its_launcher_have_the_same_flags(launcher, name):
  script, clone = (
    command(*w) for w in (("umr_jax.cli", name, "--help"), (f"experiments.{launcher}", "--help"))
  )
  assert script.returncode == clone.returncode == 0
  flags = script.stdout.partition("flags:")[2]
  assert "--workdir" in flags and "json" in flags and "--config." not in flags
  # Each names the program in one line.
  assert flags.splitlines()[3:] == clone.stdout.partition("flags:")[2].splitlines()[3:]
  assert COMMANDS[name].doc.splitlines()[0] in script.stdout


@pytest.mark.parametrize(
  ("words", "code", "message"),
  [
    (("train", "--config=nothing"), 2, "neither a file nor a preset"),
    (("train", "--config.train.stepz=3"), 2, "stepz"),
    (("train", "stray"), 2, "unexpected arguments"),
    (("train", "--config=default", "--config.data.folder=/nowhere"), 1, "/nowhere"),
    (("train", "--config=parts"), 2, "use --config=default in its place"),
    (("train", "--config=default"), 1, "data.folder is empty"),
    (("train", "--config.train.steps=0"), 1, "train.steps is 0; it must lie in"),
    (("predict",), 2, "--images is missing"),
    (("improve",), 2, "--workdir is missing"),
    (("evaluate", "--workdir=/nowhere"), 1, "/nowhere"),
  ],
)
def test_a_wrong_command_gets_one_sentence_and_its_exit_code(
  tmp_path, monkeypatch, words, code, message
):
  monkeypatch.chdir(tmp_path)
  done = command("umr_jax.cli", *words)
  assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr


def test_a_config_file_may_start_from_a_preset(tmp_path):
  mine = tmp_path / "mine.py"
  mine.write_text(
    "import ml_collections\nfrom umr_jax.config.presets import preset_settings\n"
    "def get_config():\n  config = ml_collections.ConfigDict(preset_settings('default'))\n"
    "  config.train.steps = 0\n  return config\n"
  )
  words = [f"--config={mine}", "--config.data.folder=DIR"]
  done = command("umr_jax.cli", "train", *words)
  assert done.returncode == 1 and "train.steps is 0" in done.stderr
  done = command("umr_jax.cli", "train", *words, "--config.train.steps=-1")
  assert done.returncode == 1 and "train.steps is -1" in done.stderr
