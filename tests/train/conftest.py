"""Optax promotes integer step counts to floats by itself: strict promotion ends where it begins."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_promotion():
  with jax.numpy_dtype_promotion("standard"):
    yield
