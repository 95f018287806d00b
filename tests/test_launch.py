"""Launchers: their caches, their help, and what they say of a broken config file."""

import subprocess
import sys

import jax
import pytest

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


def command(*words):
  return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["train", "evaluate", "predict", "train_scops", "improve_scops", "ablate", "bench_train"]
)
def test_help_is_about_the_command_and_no_error(name):
  done = command(f"experiments.{name}", "--help")
  assert done.returncode == 0
  wanted = "--config" if name == "bench_train" else "--workdir"
  for flag in (wanted, "--json"):
    assert flag in done.stdout.replace("[no]", "")
  assert "--pdb" not in done.stdout


@pytest.mark.slow
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
