"""Figures that are plots: precision over recall, and the architecture with its objective."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from umr_jax.config.settings import Config
from umr_jax.models.infer import build_net, build_topology_from
from umr_jax.types import Report

Curve = dict[str, list[float]]  # "precision" and "recall", of equal length

_DPI = 100
# Inches of the architecture's columns, the gaps between them, and a line of text.
_BOX, _GAP, _MARGIN, _LINE, _HEAD = 2.5, 0.5, 0.25, 0.17, 0.35
_EDGE, _FILL = "#78829b", "#f4f6fa"


def curves_of(evaluation: Report) -> dict[str, Curve]:
  """The precision-recall curves of an evaluation, by name."""
  keys = (("by flow", "apk_curve"), ("by camera", "apk_camera_curve"))
  return {name: evaluation[key] for name, key in keys if key in evaluation}


def precision_recall_figure(curves: dict[str, Curve]) -> Figure:
  """Precision over recall of keypoint transfer, both from 0 to 1 (supplementary 9)."""
  figure = Figure(figsize=(6.0, 6.0), dpi=_DPI, layout="constrained")
  axes = figure.subplots()
  for name, curve in curves.items():
    axes.plot(curve["recall"], curve["precision"], label=name, linewidth=2.0)
  axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), xlabel="recall", ylabel="precision", aspect="equal")
  axes.grid(alpha=0.3)
  axes.legend(loc="upper right")
  return figure


def pixels_of(figure: Figure) -> np.ndarray:
  """A figure as uint8 [H, W, 3]."""
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def parameter_counts(config: Config) -> tuple[dict[str, int], dict[str, str]]:
  """Parameters of each part of the last round's network, and the shapes that it predicts.

  Nothing is computed: shapes come from tracing.
  """
  net = build_net(config, hypotheses=config.hypotheses(config.em.rounds - 1))
  size = config.data.image_size
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
  prediction, variables = jax.eval_shape(
    lambda image: net.init_with_output(keys, image, train=False), images
  )
  counts = {
    name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
    for name, tree in variables["params"].items()
  }
  shapes = {
    name: " x ".join(map(str, value.shape[1:])) or "1"
    for name, value in vars(prediction).items()
    if hasattr(value, "shape")
  }
  return counts, shapes


def architecture_figure(config: Config) -> Figure:
  """The network and its objective, with the shapes that the code has (supplementary 6)."""
  columns = _architecture(config.at_round(config.em.rounds - 1))
  lines = max(len(lines) for _, lines in columns)
  width = 2 * _MARGIN + len(columns) * (_BOX + _GAP) - _GAP
  height = 2 * _MARGIN + _HEAD + _LINE * (lines + 1)
  figure = Figure(figsize=(width, height), dpi=_DPI)
  axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
  # Data units are inches from the upper left.
  axes.set(xlim=(0.0, width), ylim=(height, 0.0))
  axes.axis("off")
  for i, (title, lines_of_text) in enumerate(columns):
    left = _MARGIN + i * (_BOX + _GAP)
    _add_column(axes, left, height, title, lines_of_text)
    if i:
      tail, tip = (left - _GAP, height / 2), (left, height / 2)
      axes.annotate("", tip, tail, arrowprops={"arrowstyle": "-|>", "color": _EDGE})
  return figure


def _architecture(config: Config) -> list[tuple[str, list[str]]]:
  """The columns of the diagram: a title and lines of text."""
  counts, shapes = parameter_counts(config)
  size, topology = config.data.image_size, build_topology_from(config)
  weights = {
    name: value
    for name, value in vars(config.loss).items()
    if isinstance(value, float) and value > 0.0 and not name.startswith("camera_t")
  }
  mesh = [
    f"{len(topology.sphere)} vertices, {topology.num_half} learned",
    f"{topology.num_faces} faces, {config.geometry.texels_per_side}^2 texels each",
    f"rendered at {config.render_size} px, sigma {config.render.sigma:g}",
  ]
  return [
    ("input", [f"image {size} x {size} x 3", f"mask {size} x {size}"]),
    ("network", [f"{name}: {count / 1e6:.2f} M parameters" for name, count in counts.items()]),
    ("prediction", [f"{name}: {shape}" for name, shape in shapes.items()]),
    ("mesh", mesh),
    ("objective", [f"{name}: weight {value:g}" for name, value in weights.items()]),
  ]


def _add_column(axes: Axes, left: float, height: float, title: str, lines: list[str]) -> None:
  box = FancyBboxPatch(
    (left, _MARGIN),
    _BOX,
    height - 2 * _MARGIN,
    boxstyle="round,pad=0,rounding_size=0.08",
    edgecolor=_EDGE,
    facecolor=_FILL,
  )
  axes.add_patch(box)
  inner = left + 0.1
  axes.text(inner, _MARGIN + 0.1, title, fontsize=11, weight="bold", va="top")
  for row, line in enumerate(lines):
    axes.text(inner, _MARGIN + _HEAD + row * _LINE, line, fontsize=8, va="top")
