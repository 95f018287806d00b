"""How many pairs of images an evaluation carries keypoints over, and how often it resamples."""

import contextlib
from collections.abc import Iterator, Mapping

import pytest

from umr_jax.eval import keypoint_metrics

# Enough for every pair of a dozen images. With the numbers of a real evaluation, resampling takes
# most of the time of evaluating a few images.
FEW = {"PAIRS": 1000, "_RESAMPLES": 100, "_APK_RESAMPLES": 20}
MANY: Mapping[str, int] = {name: getattr(keypoint_metrics, name) for name in FEW}


@contextlib.contextmanager
def keypoint_pairs(numbers: Mapping[str, int]) -> Iterator[None]:
  """Evaluations of this process, within the context, with other numbers."""
  with pytest.MonkeyPatch.context() as patch:
    for name, number in numbers.items():
      patch.setattr(keypoint_metrics, name, number)
    yield
