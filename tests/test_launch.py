"""Launchers keep what they compile, apart for every kind of processor."""

import jax
import pytest

from experiments import launch


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
