"""Launchers: their caches, their help, and what they say of a broken config file."""

import jax
import pytest

from tests.commands import command
from umr_jax import launch


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
