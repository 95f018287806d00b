"""Launchers: their caches, their help, and what they say of a broken config file."""

import json
import types

import jax
import numpy as np
import pytest
from absl import flags, logging
from absl.testing import flagsaver

from tests.commands import command
from umr_jax import launch
from umr_jax.errors import UsageError
from umr_jax.predict.inputs import as_example


@pytest.fixture(autouse=True)
def unchanged_cache():
  before = jax.config.jax_compilation_cache_dir
  yield
  jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_functions_wait_in_the_users_cache(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  folder = launch.compilation_cache()
  assert folder.parent == tmp_path / "umr_jax" / "compiled"
  assert folder == launch.compilation_cache()
  launch._keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(folder)
  # Another processor's machine code is of no use here.
  monkeypatch.setattr(launch.platform, "machine", lambda: "another")
  assert launch.compilation_cache() != folder


def test_the_users_own_setting_comes_first(monkeypatch, tmp_path):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
  before = jax.config.jax_compilation_cache_dir
  launch._keep_compiled()
  assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize(
  ("kind", "given", "expected"),
  [
    (int, "abc", "--sizes=abc: expected whole numbers above 0"),
    (int, "1,0", "--sizes=1,0: expected whole numbers above 0"),
    (float, "1e-5,soft", "--sizes=1e-5,soft: expected numbers above 0"),
    (float, "nan", "--sizes=nan: expected numbers above 0"),
  ],
)
def test_a_list_that_holds_no_numbers_is_refused_by_its_flag(kind, given, expected):
  flag = types.SimpleNamespace(name="sizes", value=given.split(","))
  with pytest.raises(UsageError, match=expected):
    launch.numbers(flag, kind)
  flag.value = ["16", "1"]
  assert launch.numbers(flag, kind) == [16, 1]


@pytest.fixture
def verbosity():
  """Parses --verbosity as the command line does, and undoes it."""
  with flagsaver.flagsaver():
    before = logging.get_verbosity()
    yield lambda level: flags.FLAGS["verbosity"].parse(level)
    flags.FLAGS["verbosity"].unparse()
    logging.set_verbosity(before)


def fail_elsewhere():
  json.loads("{")


def test_a_traceback_can_be_had_and_an_unexpected_error_says_how(verbosity, caplog, capsys):
  for level, shown in ((None, False), ("1", True)):
    if level:
      verbosity(level)
    caplog.clear()
    with pytest.raises(SystemExit, match="1"), caplog.at_level("DEBUG"):
      launch._guarded(fail_elsewhere)
    assert "(--verbosity=1 shows where)" in capsys.readouterr().err
    assert (logging.get_verbosity() == logging.DEBUG) == shown
    assert ("fail_elsewhere" in caplog.text) == shown


def test_a_sentence_of_this_project_needs_no_traceback(capsys):
  with pytest.raises(SystemExit, match="1"):
    launch._guarded(lambda: as_example(np.zeros(3)))
  message = capsys.readouterr().err
  assert "must be one image" in message and "shows where" not in message


@pytest.mark.parametrize(
  "name", ["ablate", "bench_render", "bench_train", "fuzz_render", "make_figures", "reproduce"]
)
def test_help_is_about_the_command_and_no_error(name):
  done = command(f"experiments.{name}", "--help")
  assert done.returncode == 0
  for flag in ("--workdir", "--json"):
    assert flag in done.stdout.replace("[no]", "")
  assert "--pdb" not in done.stdout


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def get_config(:", "SyntaxError"),
    ("def get_config():\n  return unknown", "line 2"),
    ("import not_a_package", "not_a_package"),
    ("x = 1", "get_config"),
  ],
)
def test_a_broken_config_file_is_told_in_a_sentence(tmp_path, text, message):
  path = tmp_path / "mine.py"
  path.write_text(text)
  done = command("experiments.train", f"--config={path}", f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 2
  assert message in done.stderr and "Traceback" not in done.stderr
