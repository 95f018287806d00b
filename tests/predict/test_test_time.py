"""Meshes fitted to the silhouettes that a network sees: towards them, and each by itself."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rotations import degrees_between
from tests.tiny import plain
from umr_jax.config.settings import RefineConfig
from umr_jax.geometry import camera
from umr_jax.geometry.camera import Camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.mask import soft_iou
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.flow import camera_flow, clamp_to_mask
from umr_jax.models.infer import Inference, build_topology_from
from umr_jax.predict import test_time
from umr_jax.predict.test_time import Fitting, KnownMasks, fit_cameras, make_infer, optimize
from umr_jax.render import soft_silhouette
from umr_jax.types import Projection, Template, ViewTemplate

# Descent magnifies rounding, and more of it without optimizations.
pytestmark = pytest.mark.usefixtures("optimized")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LooseConfig(RefineConfig):
  """Steps large enough, and meshes loose enough, for a test."""

  learning_rate: float = 0.008
  laplacian: float = 0.1


CONFIG = dataclasses.replace(
  plain(
    geometry={"level": 1, "texels_per_side": 2, "uv_height": 16},
    render={"image_size": 32, "sigma": 3e-4},
    loss={"mask": 9.0, "segmentation": 1.0, "deformation": 0.05, "orientation": 0.0},
  ),
  refine=LooseConfig(steps=80),
)
FITTING = Fitting.from_config(CONFIG)
TOPOLOGY = build_topology_from(CONFIG)
HALF = jnp.asarray(TOPOLOGY.sphere[: TOPOLOGY.num_half])
TEMPLATE = Template(half_vertices=HALF)
VIEWS = ViewTemplate(
  projection=Projection(jnp.zeros(5), jnp.zeros((5, 2))),
  features=jnp.zeros((2, 2, 2, 2)),
  voxels=jnp.zeros((4, 6, 6), jnp.int16),
  centers=jnp.zeros((4, 2)),
  sides=jnp.ones(4),
  rotations=jnp.zeros((4, 4)),
  log_prior=jnp.zeros(4),
  temperature=jnp.float32(1.0),
)
# The object's x axis to the right, z up.
UPRIGHT = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)


def drawn(vertices, cameras):
  corners = camera.face_vertices(camera.project(vertices, cameras), TOPOLOGY.faces)
  return soft_silhouette(corners, image_size=32, sigma=3e-4)


def sphere(*, stretch, cameras):
  """A batch of spheres that are longer or shorter along x, under cameras (scale, tx, ty)."""
  cameras = jnp.asarray([[*place, *UPRIGHT] for place in cameras], jnp.float32)
  scale = jnp.asarray([[stretch, 1.0, 1.0]], jnp.float32)
  vertices = symmetrize(HALF * scale, num_center=TOPOLOGY.num_center)
  return jnp.broadcast_to(vertices[None], (len(cameras), *vertices.shape)), cameras


def prediction(*, mask, cameras, **more):
  """Spheres, of which a network says that their silhouettes are `mask`."""
  count = len(cameras)
  vertices, cameras = sphere(stretch=1.0, cameras=cameras)
  others = jnp.asarray([0.3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], jnp.float32)
  every = jnp.stack([jnp.broadcast_to(others[None], cameras.shape), cameras], axis=1)
  return Inference(
    half_offsets=jnp.zeros((count, *HALF.shape)),
    vertices=vertices,
    cameras=every,
    camera_probs=jnp.broadcast_to(jnp.array([[0.2, 0.8]]), (count, 2)),
    camera=cameras,
    flow_map=jnp.zeros((count, 16, 32, 2)),
    shape_code=jnp.ones((count, 4)),
    mask=mask,
    **more,
  )


@pytest.fixture(scope="module")
def fit():
  return jax.jit(lambda found: optimize(found, TEMPLATE, TOPOLOGY, fitting=FITTING))


def test_a_mesh_goes_where_the_network_sees_the_object(fit):
  truth = [(0.5, 0.1, -0.05), (0.42, -0.12, 0.1)]
  mask = drawn(*sphere(stretch=1.3, cameras=truth))
  before = prediction(mask=mask, cameras=[(0.45, 0.0, 0.0), (0.5, -0.05, 0.05)])
  after = fit(before)
  ious = [soft_iou(alpha=drawn(x.vertices, x.camera), mask=mask) for x in (before, after)]
  assert (ious[0] < 0.8).all() and (ious[1] > 0.9).all()
  np.testing.assert_allclose(after.camera[:, 1:3], [c[1:] for c in truth], atol=0.05)
  np.testing.assert_allclose(jnp.linalg.norm(after.camera[:, 3:], axis=-1), 1.0, atol=1e-6)
  mirrored = symmetrize(after.vertices[:, : TOPOLOGY.num_half], num_center=TOPOLOGY.num_center)
  np.testing.assert_allclose(after.vertices, mirrored, atol=1e-6)


def test_only_the_best_camera_is_another_one(fit):
  mask = drawn(*sphere(stretch=1.3, cameras=[(0.5, 0.1, 0.0)]))
  before = prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)])
  after = fit(before)
  np.testing.assert_array_equal(after.cameras[:, 0], before.cameras[:, 0])
  np.testing.assert_array_equal(after.cameras[:, 1], after.camera)
  np.testing.assert_array_equal(after.camera_probs, before.camera_probs)
  np.testing.assert_array_equal(after.shape_code, before.shape_code)


def test_each_image_is_fitted_by_itself(fit):
  masks = drawn(*sphere(stretch=1.2, cameras=[(0.5, 0.1, -0.05), (0.3, -0.12, 0.1)]))
  start = prediction(mask=masks, cameras=[(0.45, 0.0, 0.0)] * 2)
  both = fit(start)
  alone = fit(prediction(mask=masks[1:], cameras=[(0.45, 0.0, 0.0)]))
  assert jnp.abs(both.vertices - start.vertices)[1].max() > 0.1
  # Descent magnifies rounding, but not to anything that could be seen.
  np.testing.assert_allclose(both.vertices[1:], alone.vertices, atol=5e-3)
  np.testing.assert_allclose(both.camera[1:], alone.camera, atol=5e-3)


def test_the_flow_is_what_the_new_camera_sees_of_the_object_and_a_free_one_stays(fit):
  mask = drawn(*sphere(stretch=1.3, cameras=[(0.5, 0.1, 0.0)]))
  correction = jnp.full((1, 16, 32, 2), 0.1)
  tied = fit(prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)], flow_correction=correction))
  seen = camera_flow(tied.vertices, tied.camera, TOPOLOGY, uv_height=16)
  np.testing.assert_allclose(tied.flow_map, clamp_to_mask(seen, mask), atol=1e-6)
  # The mesh lies on the silhouette: all but its rim looks where it is.
  away = np.linalg.norm(tied.flow_map - seen, axis=-1)
  assert np.median(away) < 1e-6 and 0.01 < away.max() < 0.1
  free = fit(prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)]))
  np.testing.assert_array_equal(free.flow_map, 0.0)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_silhouette_of_nothing_or_of_everything_is_survived(fit, level):
  after = fit(prediction(mask=jnp.full((1, 32, 32), level), cameras=[(0.45, 0.0, 0.0)]))
  assert np.isfinite(after.vertices).all() and np.isfinite(after.camera).all()


def test_cameras_go_where_silhouettes_show_the_mesh_each_by_itself():
  """A long, bent solid: silhouettes tell its turn, scale and place."""
  half = HALF * jnp.array([[1.0, 0.5, 0.3]])
  solid = symmetrize(half.at[:, 2].add(0.5 * half[:, 0] ** 2), num_center=TOPOLOGY.num_center)
  vertices = jnp.stack([solid, 0.9 * solid])
  upright = upright_rotation(jnp.array([30.0, 75.0]), jnp.array([20.0, 40.0]), jnp.zeros(2))
  true = Camera(jnp.array([0.7, 0.6]), jnp.array([[0.1, 0.0], [-0.1, 0.1]]), upright)
  wrong = upright_rotation(jnp.array([40.0, 68.0]), jnp.array([12.0, 46.0]), jnp.full(2, 4.0))
  begun = Camera(1.1 * true.scale, true.translation + 0.05, wrong).pack()
  # As large as the silhouettes are: resized ones are blurred.
  render = dataclasses.replace(FITTING.render, image_size=32)
  fitting = dataclasses.replace(FITTING, steps=80, learning_rate=0.01, render=render)
  fit = jax.jit(
    lambda cameras, vertices, masks: fit_cameras(
      cameras, vertices, masks, TOPOLOGY, fitting=fitting
    )
  )
  masks = drawn(vertices, true.pack())
  found = fit(begun, vertices, masks)
  before, after = (degrees_between(c[:, 3:], upright) for c in (begun, found))
  assert (after < 0.5 * before).all(), (before, after)
  np.testing.assert_allclose(found[:, 0], true.scale, rtol=0.02)
  np.testing.assert_allclose(found[:, 1:3], true.translation, atol=0.01)
  alone = fit(begun[1:], vertices[1:], masks[1:])
  np.testing.assert_allclose(alone[0], found[1], atol=2e-3)


def test_a_network_that_sees_no_silhouette_is_refused():
  with pytest.raises(ValueError, match="predicts no silhouettes"):
    optimize(prediction(mask=None, cameras=[(0.45, 0.0, 0.0)]), TEMPLATE, TOPOLOGY, fitting=FITTING)


def test_views_are_told_by_the_mask_that_is_known(monkeypatch):
  truth = [(0.5, 0.1, 0.0), (0.5, 0.1, 0.0)]
  seen, known = (drawn(*sphere(stretch=stretch, cameras=truth)) for stretch in (1.0, 1.3))
  said = prediction(mask=seen, cameras=truth, encoded=jnp.ones((2, 3, 3, 5)))
  monkeypatch.setattr(test_time, "infer", lambda model, images: said)
  asked = []

  def probabilities(template, maps, masks):
    asked.append((maps, masks))
    return jnp.full((len(masks), 4), 0.25)

  monkeypatch.setattr(test_time, "view_probabilities", probabilities)
  monkeypatch.setattr(test_time, "view_cameras", lambda template, masks: jnp.zeros((2, 4, 7)))
  once = dataclasses.replace(CONFIG, refine=RefineConfig())
  model = SimpleNamespace(template=TEMPLATE, topology=TOPOLOGY, view_template=VIEWS)
  found = make_infer(once)(model, None, KnownMasks(known, jnp.array([False, True])))
  assert found.view_probs.shape == (2, 4) and found.view_cameras.shape == (2, 4, 7)
  assert found.encoded is None
  ((maps, masks),) = asked
  np.testing.assert_array_equal(maps, said.encoded)
  np.testing.assert_array_equal(masks[0], seen[0])
  np.testing.assert_allclose(masks[1], known[1], atol=1e-6)
  blind = prediction(mask=None, cameras=truth, encoded=said.encoded)
  assert test_time.with_views(blind, VIEWS) is blind


def test_a_run_without_refinement_reconstructs_in_one_pass(monkeypatch):
  mask = drawn(*sphere(stretch=1.3, cameras=[(0.5, 0.1, 0.0)]))
  said = prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)])
  monkeypatch.setattr(test_time, "infer", lambda model, images: said)
  once = dataclasses.replace(CONFIG, refine=RefineConfig())
  model = SimpleNamespace(template=TEMPLATE, topology=TOPOLOGY, view_template=None)
  assert make_infer(once)(model, None) is said
  fitted = make_infer(CONFIG)(model, None)
  assert np.abs(fitted.vertices - said.vertices).max() > 0.05
