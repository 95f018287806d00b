"""The shape of a synthetic bird: closed tubes whose proportions and pose vary continuously.

Object frame as everywhere: x forward (to the beak), y left, z up, mirror plane y = 0. The finished
bird's bounding box is centred at the origin and has a diagonal of 2.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from umr_jax.data.tubes import Piece, spread_to_ends, sweep_rings, vertex_normals

# The pieces that have colours of their own.
TORSO, TAIL, WING, LEG = range(4)

KEYPOINT_NAMES = (
  "beak_tip", "crown", "left_eye", "right_eye", "left_wing_tip", "right_wing_tip", "breast", "back",
  "tail_tip",
)  # fmt: skip
KEYPOINT_FLIP = (0, 1, 3, 2, 5, 4, 6, 7, 8)

# Where the control points of the torso's centre line lie in the coordinate `along`.
NECK_BASE, HEAD, BEAK_BASE, BEAK_TIP = 4.0, 6.0, 7.0, 8.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BirdShape:
  """Proportions of one bird; the torso is about one unit long, angles are in degrees."""

  width: float
  height: float
  neck_angle: float
  neck_length: float
  neck_radius: float
  head_radius: float
  beak_length: float
  beak_droop: float
  tail_length: float
  tail_width: float
  tail_angle: float
  fork: float
  openness: float  # of the wings: 0 folded along the body, 1 spread
  wing_length: float
  wing_chord: float
  dihedral: float
  sweep: float
  leg_length: float  # 0: tucked away
  pitch: float  # of the whole body, head up


class BirdMesh(NamedTuple):
  """A bird in object space, with what its colours depend on."""

  vertices: np.ndarray  # [V, 3]
  normals: np.ndarray  # [V, 3] unit, outward
  faces: np.ndarray  # [F, 3] int32, wound outward
  piece: np.ndarray  # [F] TORSO, TAIL, WING or LEG
  along: np.ndarray  # [V] position along the piece: torso 0..8, others 0 (root) to 1 (tip)
  across: np.ndarray  # [V] torso, legs: -1 (under) to 1 (upper side); wing, tail: across the blade
  keypoints: np.ndarray  # [N, 3]


def sample_shape(rng: np.random.Generator) -> BirdShape:
  """Samples the proportions and the pose of one bird."""
  flying = rng.random() < 0.12
  long_neck = rng.random() < 0.2
  width = rng.uniform(0.18, 0.27)
  neck_radius = rng.uniform(0.06, 0.09) if long_neck else rng.uniform(0.10, 0.145)
  return BirdShape(
    width=width,
    height=width * rng.uniform(1.0, 1.3),
    neck_angle=rng.uniform(5, 45) if flying else rng.uniform(25, 75),
    neck_length=rng.uniform(0.3, 0.7) if long_neck else rng.uniform(0.08, 0.22),
    neck_radius=neck_radius,
    head_radius=neck_radius * rng.uniform(1.15, 1.45),
    beak_length=rng.uniform(0.12, 0.32),
    beak_droop=rng.uniform(-5, 25),
    tail_length=rng.uniform(0.3, 0.7),
    tail_width=rng.uniform(0.10, 0.26) * (1.3 if flying else 1.0),
    tail_angle=rng.uniform(-20, 25),
    fork=rng.uniform(-0.25, 0.35),
    openness=rng.uniform(0.5, 1.0) if flying else rng.uniform(0.0, 0.12),
    wing_length=rng.uniform(0.9, 1.5) if flying else rng.uniform(0.7, 0.95),
    wing_chord=rng.uniform(0.30, 0.46),
    dihedral=rng.uniform(-15, 40),
    sweep=rng.uniform(-5, 30),
    leg_length=0.0 if flying or rng.random() < 0.6 else rng.uniform(0.15, 0.35),
    pitch=rng.uniform(-8, 15) if flying else rng.uniform(0, 30),
  )


def build_bird(shape: BirdShape) -> BirdMesh:
  """Builds the mesh and the keypoints of a bird, exactly symmetric about y = 0."""
  torso, spots = _torso(shape)
  pieces = [torso, _tail(shape), *_wings(shape)]
  if shape.leg_length > 0.0:
    pieces += _legs(shape)
  kinds = [TORSO, TAIL, WING, WING, LEG, LEG][: len(pieces)]
  offsets = np.cumsum([0] + [piece.vertices.shape[0] for piece in pieces])
  faces = np.concatenate([p.faces + o for p, o in zip(pieces, offsets, strict=False)])
  vertices = np.concatenate([p.vertices for p in pieces])
  piece = np.concatenate([np.full(p.faces.shape[0], k) for p, k in zip(pieces, kinds, strict=True)])

  left_tip, right_tip = pieces[2].tip, pieces[3].tip
  spots |= {"right_eye": spots["left_eye"] * [1, -1, 1], "tail_tip": pieces[1].tip}
  spots |= {"left_wing_tip": left_tip, "right_wing_tip": right_tip}
  keypoints = np.stack([spots[name] for name in KEYPOINT_NAMES])

  pitch = Rotation.from_euler("y", -shape.pitch, degrees=True)
  vertices, keypoints = pitch.apply(vertices), pitch.apply(keypoints)
  low, high = vertices.min(axis=0), vertices.max(axis=0)
  center, scale = (low + high) / 2.0 * [1, 0, 1], 2.0 / np.linalg.norm(high - low)
  vertices, keypoints = (vertices - center) * scale, (keypoints - center) * scale
  return BirdMesh(
    vertices=vertices,
    normals=vertex_normals(vertices, faces),
    faces=faces.astype(np.int32),
    piece=piece,
    along=np.concatenate([p.along for p in pieces]),
    across=np.concatenate([p.across for p in pieces]),
    keypoints=keypoints,
  )


def _torso(shape: BirdShape) -> tuple[Piece, dict[str, np.ndarray]]:
  """Rump, body, neck, head and beak as one tube, and the keypoints that lie on it."""
  neck, droop = np.deg2rad(shape.neck_angle), np.deg2rad(shape.beak_droop)
  neck_base = np.array([0.40, 0.08 + 0.10 * np.sin(neck)])
  direction = np.array([np.cos(neck), np.sin(neck)])
  head = neck_base + (shape.neck_length + shape.head_radius) * direction
  forward = np.array([np.cos(droop), -np.sin(droop)])
  beak_base = head + 0.95 * shape.head_radius * forward
  controls = np.array(
    [
      [-0.60, 0.02],
      [-0.42, 0.01],
      [-0.10, 0.00],
      [0.20, 0.01],
      neck_base,
      (neck_base + head) / 2 - 0.02 * direction,
      head,
      beak_base,
      beak_base + shape.beak_length * forward,
    ]
  )
  w, h, n, r = shape.width, shape.height, shape.neck_radius, shape.head_radius
  half_width = [0.03, 0.55 * w, w, 0.97 * w, 0.5 * (w + n) * 0.9, n, r, 0.38 * r, 0.006]
  half_height = [0.03, 0.55 * h, h, 1.02 * h, 0.55 * (h + n), n, 1.05 * r, 0.34 * r, 0.006]
  curve = PchipInterpolator(
    np.arange(9.0), np.column_stack([controls, half_width, half_height]), axis=0
  )
  along = np.concatenate([np.linspace(0, 4, 14), np.linspace(4.2, 7, 16), np.linspace(7.3, 8, 4)])
  station, slope = curve(along), curve.derivative()(along)
  tangent = slope[:, :2] / np.linalg.norm(slope[:, :2], axis=-1, keepdims=True)
  zero = np.zeros_like(along)
  center = np.stack([station[:, 0], zero, station[:, 1]], axis=-1)
  upward = np.stack([-tangent[:, 1], zero, tangent[:, 0]], axis=-1)
  sides = 20
  # y x upward points along x: the rings turn the right way for `sweep_rings`.
  side_axis = np.array([[0.0, 1.0, 0.0]]) * station[:, 2:3]
  vertices, faces, angle = sweep_rings(center, side_axis, upward * station[:, 3:4], sides=sides)
  piece = Piece(vertices, faces, spread_to_ends(along, sides), np.sin(angle), center[-1])

  def surface(position: float, angle: float) -> np.ndarray:
    index = int(np.argmin(np.abs(along - position)))
    up = upward[index] * station[index, 3]
    return center[index] + np.cos(angle) * side_axis[index] + np.sin(angle) * up

  spots = {
    "beak_tip": center[-1],
    "crown": surface(HEAD, np.pi / 2),
    "left_eye": surface(HEAD + 0.25, np.deg2rad(22)),
    "breast": surface(3.6, -np.pi / 2),
    "back": surface(2.0, np.pi / 2),
  }
  return piece, spots


def _tail(shape: BirdShape) -> Piece:
  """A fan of feathers: flat, widening to the tip, with a rounded or forked end."""
  t = np.linspace(0.0, 1.0, 9)
  angle = np.deg2rad(shape.tail_angle)
  backward = np.array([-np.cos(angle), 0.0, np.sin(angle)])
  center = np.array([-0.46, 0.0, 0.03]) + t[:, None] * shape.tail_length * backward
  half_width = 0.055 + (shape.tail_width - 0.055) * t**0.8
  half_width[-1] *= 0.9
  thickness = 0.035 * (1.0 - t) + 0.012
  upward = np.array([np.sin(angle), 0.0, np.cos(angle)])
  sides = 16
  # Along -x the ring must turn from z to y: z x y = -x.
  vertices, faces, turn = sweep_rings(
    center, upward * thickness[:, None], np.array([[0.0, 1.0, 0.0]]) * half_width[:, None],
    sides=sides,
  )  # fmt: skip
  # The outer feathers reach further back than the middle one (a fork), or less far (rounded).
  reach = np.abs(np.concatenate([np.tile(np.sin(turn[:sides]), 9), [0.0, 0.0]]))
  along = spread_to_ends(t, sides)
  vertices = vertices + (along * reach * shape.fork * shape.tail_width)[:, None] * backward
  return Piece(vertices, faces, along, np.sin(turn), center[-1])


def _wings(shape: BirdShape) -> tuple[Piece, Piece]:
  """The left and the right wing: a thin blade that turns from along the body to sideways."""
  t = np.linspace(0.0, 1.0, 12)
  # Rows: the span, the chord (towards the leading edge) and the upper side of the left wing.
  folded = np.array([[-0.985, 0.0, -0.06], [0.06, 0.0, -0.985], [0.0, 1.0, 0.0]])
  # Turned so that the blade leans against the body and its tip comes up to the tail.
  folded = Rotation.from_euler("xyz", [14, 6, 9], degrees=True).apply(folded)
  up, back = np.deg2rad(shape.dihedral), np.deg2rad(shape.sweep)
  span = np.array([-np.sin(back) * np.cos(up), np.cos(back) * np.cos(up), np.sin(up)])
  normal = np.cross([1.0, 0.0, 0.0], span)
  normal /= np.linalg.norm(normal)
  spread = np.stack([span, np.cross(span, normal), normal])
  folded_frame, spread_frame = _right_handed(folded), _right_handed(spread)
  turn = Rotation.from_matrix(spread_frame.T @ folded_frame).as_rotvec() * shape.openness
  frame = (Rotation.from_rotvec(turn).as_matrix() @ folded_frame.T).T
  span, chord, normal = frame
  shoulder = np.array([0.24, shape.width * (0.86 - 0.3 * shape.openness), 0.10])

  # The hand bends back from the wrist, and the blade narrows to a rounded tip.
  bend = -0.35 * shape.openness * np.maximum(t - 0.45, 0.0) ** 1.5
  outline = np.sqrt(np.clip(1.0 - t**3.0, 0.0, None)) * (0.75 + 0.5 * t * (1 - t)) + 0.03
  half_chord = 0.5 * shape.wing_chord * outline
  center = shoulder + shape.wing_length * (t[:, None] * span + bend[:, None] * chord)
  # Feathers trail: the leading edge is straight, the trailing edge carries the curve.
  center = center - (half_chord - 0.25 * shape.wing_chord)[:, None] * chord
  thickness = 0.03 * (1.0 - t) + 0.008
  sides = 14
  vertices, faces, angle = sweep_rings(
    center, chord * half_chord[:, None], normal * thickness[:, None], sides=sides
  )
  left = Piece(vertices, faces, spread_to_ends(t, sides), np.cos(angle), center[-1])
  mirror = np.array([1.0, -1.0, 1.0])
  if np.dot(np.cross(chord, normal), span) < 0.0:
    left = left._replace(faces=left.faces[:, ::-1])
  right = left._replace(
    vertices=left.vertices * mirror, faces=left.faces[:, ::-1], tip=left.tip * mirror
  )
  return left, right


def _right_handed(rows: np.ndarray) -> np.ndarray:
  """The rotation matrix whose rows are span, chord and their cross product."""
  span, chord = rows[0] / np.linalg.norm(rows[0]), rows[1]
  chord = chord - np.dot(chord, span) * span
  chord /= np.linalg.norm(chord)
  return np.stack([span, chord, np.cross(span, chord)])


def _legs(shape: BirdShape) -> list[Piece]:
  """Two thin legs that hang straight down in the world, each with a foot to the front."""
  pitch = Rotation.from_euler("y", shape.pitch, degrees=True)
  down, front = pitch.apply([0.0, 0.0, -1.0]), pitch.apply([1.0, 0.0, 0.0])
  hip = np.array([-0.08, 0.55 * shape.width, -0.75 * shape.height])
  length, radius = shape.leg_length, 0.018
  steps = np.array([-0.1, 0.3, 0.9, 1.0])
  center = hip + steps[:, None] * length * down
  center = np.concatenate([center, center[-1:] + 0.12 * front])
  radii = np.array([0.05, radius, radius, radius, 0.6 * radius])
  sides = 6
  side_axis = np.array([[0.0, 1.0, 0.0]]) * radii[:, None]
  # The last ring, the toes, faces forward; the others face down.
  other = np.cross(np.stack([down, down, down, down + front, front]), [0.0, 1.0, 0.0])
  other = other / np.linalg.norm(other, axis=-1, keepdims=True) * radii[:, None]
  vertices, faces, angle = sweep_rings(center, side_axis, other, sides=sides)
  left = Piece(
    vertices, faces, spread_to_ends(np.linspace(0, 1, 5), sides), np.sin(angle), center[-1]
  )
  right = left._replace(vertices=vertices * [1, -1, 1], faces=faces[:, ::-1])
  return [left, right]
