"""Images whose parts are known: a body of two halves and a head, either way round."""

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

PARTS = 3


def draw_shapes(rng, *, count, size):
  """Images [N, S, S, 3], masks and labels [N, S, S]: 0 outside, 1 back, 2 belly, 3 head."""
  row, column = np.mgrid[:size, :size] / size
  images = np.zeros((count, size, size, 3), np.float32)
  labels = np.zeros((count, size, size), np.int64)
  colors = np.array([[0.5, 0.5, 0.5], [0.8, 0.3, 0.2], [0.2, 0.7, 0.3], [0.2, 0.3, 0.8]])
  for i in range(count):
    x, y = rng.uniform(0.4, 0.6, 2)
    side = rng.choice([-1.0, 1.0])
    across, down = (column - x) / 0.28, (row - y) / 0.2
    body = across**2 + down**2 < 1.0
    labels[i][body & (down < 0.0)] = 1
    labels[i][body & (down >= 0.0)] = 2
    head = (column - x - 0.25 * side) ** 2 + (row - y + 0.16) ** 2 < 0.1**2
    labels[i][head] = 3
    tint = colors + rng.normal(0.0, 0.06, colors.shape)
    images[i] = tint[labels[i]] + rng.normal(0.0, 0.03, (size, size, 3))
  masks = (labels > 0).astype(np.float32)
  return np.clip(images, 0.0, 1.0), masks, labels


def one_hot(labels, channels=PARTS + 1):
  return np.eye(channels, dtype=np.float32)[labels]


def part_iou(found, labels):
  """The mean over parts of intersection over union."""
  scores = []
  for part in range(1, PARTS + 1):
    a, b = found == part, labels == part
    scores.append((a & b).sum() / max((a | b).sum(), 1))
  return float(np.mean(scores))


def mutual_information(found, labels):
  """Normalized mutual information of two labelings."""
  return normalized_mutual_info_score(labels.ravel(), found.ravel(), average_method="geometric")
