"""Bootstrap intervals: against theory, against a loop, and their edges."""

import numpy as np
import pytest

from umr_jax.eval.summary import bootstrap_interval


def test_the_interval_of_a_mean_is_that_of_the_normal_law(rng):
  values = rng.normal(3.0, 2.0, size=400)
  low, high = bootstrap_interval(values, statistic="mean", seed=0)
  half = 1.96 * values.std() / 20.0
  assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
  assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_it_matches_a_loop_over_resamples(rng, statistic):
  values = rng.exponential(size=31)
  generator = np.random.default_rng(7)
  draws = generator.integers(31, size=(2000, 31))
  results = [getattr(np, statistic)([values[i] for i in row]) for row in draws]
  expected = np.percentile(results, [2.5, 97.5])
  np.testing.assert_allclose(bootstrap_interval(values, statistic=statistic, seed=7), expected)


def test_a_seed_fixes_the_interval(rng):
  values = rng.normal(size=50)
  first = bootstrap_interval(values, statistic="mean", seed=1)
  assert first == bootstrap_interval(values, statistic="mean", seed=1)
  assert first != bootstrap_interval(values, statistic="mean", seed=2)


def test_one_value_is_its_own_interval():
  assert bootstrap_interval(np.array([0.3]), statistic="median", seed=0) == (0.3, 0.3)


def test_many_values_are_drawn_in_pieces(rng, monkeypatch):
  monkeypatch.setattr("umr_jax.eval.summary._RESAMPLES", 300)
  low, high = bootstrap_interval(rng.normal(size=30000), statistic="mean", seed=0)
  assert -0.05 < low < high < 0.05


@pytest.mark.parametrize(("values", "statistic"), [([], "mean"), ([1.0], "mode")])
def test_nonsense_is_refused(values, statistic):
  with pytest.raises(ValueError, match="expected one of"):
    bootstrap_interval(np.array(values), statistic=statistic, seed=0)
