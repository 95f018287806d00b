"""The network and its objectives as a diagram, drawn from the shapes that the code really has."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from umr_jax.config.settings import Config
from umr_jax.models.infer import build_net, build_topology_from

_BOX, _GAP, _MARGIN, _LINE = 250, 50, 24, 17


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


def draw(config: Config) -> np.ndarray:
  """The diagram (supplementary 6): image, parts of the network, predictions, objectives; uint8."""
  config = config.at_round(config.em.rounds - 1)
  counts, shapes = parameter_counts(config)
  size, topology = config.data.image_size, build_topology_from(config)
  weights = {
    name: value
    for name, value in vars(config.loss).items()
    if isinstance(value, float) and value > 0.0 and not name.startswith("camera_t")
  }
  columns = [
    ("input", [f"image {size} x {size} x 3", f"mask {size} x {size}"]),
    ("network", [f"{name}: {count / 1e6:.2f} M parameters" for name, count in counts.items()]),
    ("prediction", [f"{name}: {shape}" for name, shape in shapes.items()]),
    (
      "mesh",
      [
        f"{len(topology.sphere)} vertices, {topology.num_half} learned",
        f"{topology.num_faces} faces, {config.geometry.texels_per_side}^2 texels each",
        f"rendered at {config.render_size} px, sigma {config.render.sigma:g}",
      ],
    ),
    ("objective", [f"{name}: weight {value:g}" for name, value in weights.items()]),
  ]
  height = 2 * _MARGIN + 30 + _LINE * max(len(lines) for _, lines in columns) + 16
  width = 2 * _MARGIN + len(columns) * _BOX + (len(columns) - 1) * _GAP
  page = Image.new("RGB", (width, height), "white")
  pen, font, head = ImageDraw.Draw(page), ImageFont.load_default(12), ImageFont.load_default(15)
  for i, (title, lines) in enumerate(columns):
    left = _MARGIN + i * (_BOX + _GAP)
    pen.rounded_rectangle(
      (left, _MARGIN, left + _BOX, height - _MARGIN), 8, (244, 246, 250), (120, 130, 150)
    )
    pen.text((left + 10, _MARGIN + 6), title, (20, 30, 60), head)
    for row, line in enumerate(lines):
      pen.text((left + 10, _MARGIN + 32 + row * _LINE), line, (30, 30, 30), font)
    if i:
      middle = height // 2
      pen.line((left - _GAP + 6, middle, left - 8, middle), (120, 130, 150), 2)
      pen.polygon([(left - 8, middle - 5), (left - 8, middle + 5), (left, middle)], (120, 130, 150))
  return np.asarray(page)
