"""Half turns of all images at once: planted ones are undone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import planted_images, planted_template
from umr_jax.init.half_turn import with_common_ends
from umr_jax.init.view_em import begin, e_step, m_step
from umr_jax.init.view_grid import make_view_grid


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_images_that_are_turned_half_round_are_turned_back(share):
  grid = make_view_grid(12, np.array([0.0, 15.0, 30.0]), np.zeros(1))
  images = planted_images(60)
  right = e_step(images, begin(images, planted_template(), grid), grid, 1.5, preference=-0.5)
  view = np.asarray(jnp.argmax(right.posterior, axis=1))
  turned = np.random.default_rng(3).random(60) < share
  posterior = jnp.where(
    jnp.asarray(turned)[:, None], right.posterior[:, grid.opposite], right.posterior
  )
  wrong = m_step(images, dataclasses.replace(right, posterior=posterior), grid)
  fixed = with_common_ends(images, wrong, grid)
  agree = np.asarray(jnp.argmax(fixed.posterior, axis=1)) == view
  # Which end all have in common is free.
  assert max(agree.mean(), 1.0 - agree.mean()) > 0.9
