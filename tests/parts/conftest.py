"""Optax promotes integer counts: training steps run under standard promotion."""

import jax
import pytest


@pytest.fixture
def standard_promotion():
  with jax.numpy_dtype_promotion("standard"):
    yield
