"""The appearance of a synthetic bird and of what is behind it: plumage, parts and backgrounds."""

import colorsys
import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from umr_jax.data.synthetic_bird import BEAK_BASE, LEG, NECK_BASE, TAIL, TORSO, WING

PART_NAMES = ("head", "wings_back", "breast_belly", "tail")
HEAD_PART, BACK_PART, BELLY_PART, TAIL_PART = 1, 2, 3, 4

# Where the head part begins on the torso's `along`, and how high the back part comes down.
_HEAD_FROM, _BACK_ABOVE = 5.15, 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plumage:
  """The colours (RGB in [0, 1]) and the markings of one bird."""

  back: np.ndarray
  belly: np.ndarray
  head: np.ndarray
  wing: np.ndarray
  bar: np.ndarray
  tail: np.ndarray
  beak: np.ndarray
  leg: np.ndarray
  cap: float  # height above which the head is capped in the back's colour
  bars: float  # bars across a wing
  bar_strength: float
  tail_band: float  # where on the tail the band lies
  streaks: float  # strength of the streaks on the breast
  waves: np.ndarray  # [M, 4] directions and phases of the mottling
  mottle: float


def _color(rng: np.random.Generator, hue: float, saturation: tuple, value: tuple) -> np.ndarray:
  """A random colour; saturation and value are (low, high)."""
  return np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*saturation), rng.uniform(*value)))


def sample_plumage(rng: np.random.Generator) -> Plumage:
  """Samples a plumage: dark above, light below, with colours of its own."""
  hue = rng.choice([0.08, 0.1, 0.6, 0.0, 0.15, 0.3, rng.random()]) + rng.normal(0.0, 0.02)
  accent = hue + rng.choice([0.0, 0.5, 0.33, rng.random()])
  vivid = rng.uniform(0.1, 0.85)
  back = _color(rng, hue, (0.6 * vivid, vivid), (0.18, 0.5))
  belly = _color(rng, hue + rng.normal(0.0, 0.06), (0.05, 0.5 * vivid + 0.1), (0.65, 0.95))
  wing = np.clip(back * rng.uniform(0.6, 1.3) + rng.normal(0.0, 0.03, 3), 0.03, 1.0)
  return Plumage(
    back=back,
    belly=belly,
    head=_color(rng, accent, (0.3, 0.95), (0.3, 0.9)),
    wing=wing,
    bar=_color(rng, accent, (0.0, 0.5), (0.7, 1.0)),
    tail=np.clip(back * rng.uniform(0.7, 1.4), 0.03, 1.0),
    beak=_color(rng, rng.uniform(0.02, 0.16), (0.2, 0.95), (0.15, 0.95)),
    leg=_color(rng, rng.uniform(0.02, 0.12), (0.2, 0.9), (0.2, 0.8)),
    cap=rng.uniform(0.1, 1.2),
    bars=float(rng.integers(1, 4)),
    bar_strength=rng.uniform(0.3, 1.0),
    tail_band=rng.uniform(0.55, 0.9),
    streaks=rng.uniform(0.0, 0.5),
    waves=np.column_stack([rng.normal(0.0, 14.0, (5, 3)), rng.uniform(0.0, 6.28, 5)]),
    mottle=rng.uniform(0.0, 0.12),
  )


def part_labels(piece: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
  """The semantic part of surface points: 1..4 in the order of `PART_NAMES`.

  Args:
    piece: the piece of the bird that each point lies on.
    along: the point's position along the piece.
    across: the point's position across it (torso: 1 above, -1 below).
  """
  torso = np.where(across > _BACK_ABOVE, BACK_PART, BELLY_PART)
  torso = np.where(along > _HEAD_FROM, HEAD_PART, torso)
  return np.select(
    [piece == TORSO, piece == TAIL, piece == WING], [torso, TAIL_PART, BACK_PART], BELLY_PART
  ).astype(np.uint8)


def surface_albedo(
  plumage: Plumage,
  *,
  piece: np.ndarray,
  along: np.ndarray,
  across: np.ndarray,
  points: np.ndarray,
  eyes: np.ndarray,
  eye_radius: float,
) -> np.ndarray:
  """The unlit colour of N surface points.

  Args:
    plumage: the bird's colours.
    piece: [N] the piece that each point lies on.
    along: [N] position along the piece.
    across: [N] position across it.
    points: [N, 3] in object space.
    eyes: [E, 3] the eyes' centres in object space.
    eye_radius: in object units.

  Returns:
    [N, 3] in [0, 1].
  """
  p = plumage
  # Countershading: a soft edge between the dark back and the light belly.
  above = _ramp(across, -0.15, 0.45)[:, None]
  torso = p.belly + above * (p.back - p.belly)
  streak = p.streaks * _ramp(np.sin(9.0 * along) * np.cos(14.0 * across), 0.3, 0.6)
  torso = torso * (1.0 - (streak * (across < 0.1) * (along > 2.0) * 0.6)[:, None])
  capped = _ramp(across, p.cap - 0.1, p.cap + 0.1)[:, None]
  head = p.head + capped * (p.back - p.head)
  torso = np.where((along > NECK_BASE + 0.8)[:, None], head, torso)
  torso = np.where((along > BEAK_BASE - 0.1)[:, None], p.beak, torso)

  bars = _ramp(np.cos(2.0 * np.pi * p.bars * (along * 0.8 + 0.12 * across)), 0.6, 0.8)
  bars = bars * p.bar_strength * (across < 0.7)
  tips = _ramp(along, 0.72, 0.85) * 0.5
  wing = p.wing + bars[:, None] * (p.bar - p.wing)
  wing = wing * (1.0 - tips)[:, None]
  band = _ramp(-np.abs(along - p.tail_band), -0.09, -0.06)[:, None]
  tail = p.tail + band * (p.bar - p.tail)
  feathers = 0.88 + 0.12 * np.cos(across * 16.0)
  tail = tail * feathers[:, None]

  choices = [(piece == kind)[:, None] for kind in (TORSO, TAIL, WING, LEG)]
  color = np.select(choices, [torso, tail, wing, np.broadcast_to(p.leg, torso.shape)])
  mottling = np.sin(points @ p.waves[:, :3].T + p.waves[:, 3]).sum(axis=-1)
  color = color * (1.0 + p.mottle * mottling)[:, None]
  distance = np.linalg.norm(points - eyes[0], axis=-1)
  for eye in eyes[1:]:
    distance = np.minimum(distance, np.linalg.norm(points - eye, axis=-1))
  ring = (distance < eye_radius)[:, None]
  color = np.where(ring, np.array([0.92, 0.85, 0.6]), color)
  color = np.where((distance < 0.72 * eye_radius)[:, None], 0.03, color)
  return np.clip(color, 0.0, 1.0)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
  """0 below `low`, 1 above `high`, smooth between."""
  t = np.clip((values - low) / (high - low), 0.0, 1.0)
  return t * t * (3.0 - 2.0 * t)


def render_background(
  rng: np.random.Generator, *, size: int, palette: tuple[np.ndarray, ...]
) -> np.ndarray:
  """Renders a background: sky, ground, foliage, blurred lights.

  Args:
    rng: of everything.
    size: pixels per side.
    palette: colours of the bird; some backgrounds have one, so that colour alone does not
      separate the bird from it.

  Returns:
    [size, size, 3] float32 in [0, 1].
  """
  if rng.random() < 0.4:
    base = palette[rng.integers(len(palette))]
    colors = [np.clip(base * rng.uniform(0.5, 1.5) + rng.normal(0, 0.08, 3), 0, 1) for _ in "abc"]
  else:
    hue = rng.choice([0.57, 0.3, 0.1, rng.random()]) + rng.normal(0.0, 0.03)
    colors = [_color(rng, hue + rng.normal(0, 0.06), (0.0, 0.7), (0.15, 0.95)) for _ in "abc"]

  angle = rng.uniform(0.0, 2.0 * np.pi)
  grid = np.linspace(-0.7, 0.7, size, dtype=np.float32)
  ramp = _ramp(np.cos(angle) * grid[None, :] + np.sin(angle) * grid[:, None], -0.6, 0.6)
  if rng.random() < 0.35:  # a horizon: ground below, sky above
    ramp = _ramp(grid[:, None] + 0.1 * np.sin(4 * grid[None, :] + angle), *_horizon(rng))
  smooth = colors[0] + ramp[..., None] * (colors[1] - colors[0])
  image = Image.fromarray((255.0 * np.clip(smooth, 0.0, 1.0)).astype(np.uint8))
  draw = ImageDraw.Draw(image)
  if rng.random() < 0.6:
    _draw_blobs(draw, rng, size, colors)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.0, 6.0)))
  if rng.random() < 0.5:
    _draw_stalks(ImageDraw.Draw(image), rng, size, colors)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.5)))

  canvas = np.asarray(image, np.float32) / 255.0
  strength = rng.uniform(0.05, 0.35)
  # Mostly grey noise, with a little colour of its own.
  tint = np.full((3, 3), 0.7 / 3.0 / 255.0, np.float32) + np.eye(3, dtype=np.float32) * (
    0.3 / 255.0
  )
  for octave in (3, 6, 12, 25, 50, 100):
    coarse = Image.fromarray(rng.integers(0, 256, (octave, octave, 3), np.uint8))
    noise = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    canvas = canvas + np.float32(strength) * (noise @ tint - np.float32(0.5))
    strength *= rng.uniform(0.5, 0.85)
  return np.clip(canvas, 0.0, 1.0)


def _horizon(rng: np.random.Generator) -> tuple[float, float]:
  level = rng.uniform(-0.4, 0.5)
  return level, level + rng.uniform(0.02, 0.3)


def _shade(rng: np.random.Generator, colors: list[np.ndarray]) -> tuple[int, int, int]:
  color = colors[rng.integers(len(colors))] * rng.uniform(0.5, 1.4)
  red, green, blue = (255.0 * np.clip(color, 0.0, 1.0)).astype(int).tolist()
  return red, green, blue


def _draw_blobs(
  draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, colors: list[np.ndarray]
) -> None:
  """Leaves, stones and blurred lights, depending on how much they are blurred afterwards."""
  for _ in range(rng.integers(4, 40)):
    x, y = rng.uniform(-0.1 * size, 1.1 * size, 2)
    a, b = rng.uniform(0.02 * size, 0.18 * size, 2)
    draw.ellipse((x - a, y - b, x + a, y + b), fill=_shade(rng, colors))


def _draw_stalks(
  draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, colors: list[np.ndarray]
) -> None:
  """Branches and stalks: long strokes that all lean one way."""
  lean = rng.uniform(0.0, np.pi)
  for _ in range(rng.integers(2, 16)):
    x, y = rng.uniform(0.0, size, 2)
    angle = lean + rng.normal(0.0, 0.3)
    dx, dy = size * np.cos(angle), size * np.sin(angle)
    width = int(rng.integers(1, max(2, size // 20)))
    draw.line((x - dx, y - dy, x + dx, y + dy), fill=_shade(rng, colors), width=width)
