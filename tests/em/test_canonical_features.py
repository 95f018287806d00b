"""Canonical features: means over what images show, both sides, and neighbours."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from tests.tiny import tiny_config
from umr_jax.config.build import with_settings
from umr_jax.data.dataset import load_dataset
from umr_jax.em import canonical_features
from umr_jax.em.canonical_features import (
  VertexRows,
  fit_features,
  mean_over_images,
  vertex_rows,
  with_canonical_features,
)
from umr_jax.em.round import make_round
from umr_jax.geometry import camera
from umr_jax.geometry.camera import Camera
from umr_jax.geometry.topology import build_topology
from umr_jax.init.state import bare_em_state
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.train import parallel
from umr_jax.types import Model, Template

TOPOLOGY = build_topology(2, texels_per_side=2, symmetric_texture=True)


def shown_by(images, *, noise=0.0, seed=0):
  """Features that vary slowly along the object, the same on both sides, as images show them.

  Returns:
    The features [V, 2], those of each image, and which it shows.
  """
  rng = np.random.default_rng(seed)
  along = TOPOLOGY.sphere[:, 0].astype(np.float64)
  features = np.stack([np.cos(along), np.sin(along)], axis=-1)
  shown = features + rng.normal(0.0, noise, (images, *features.shape))
  return features, shown, (rng.uniform(size=(images, len(features))) < 0.5).astype(np.float64)


def test_means_are_those_of_the_images():
  features, shown, visible = shown_by(40, noise=0.3)
  values, known = mean_over_images(shown, visible, TOPOLOGY)
  assert known.all()
  # Neighbours are a little way along the object.
  np.testing.assert_allclose(values, features, atol=0.15)


def test_a_side_that_no_image_shows_is_known_from_the_other():
  features, shown, visible = shown_by(4)
  left = TOPOLOGY.sphere[:, 1] < -1e-6
  visible[:, left] = 0.0
  visible[:, ~left] = 1.0
  values, known = mean_over_images(shown, visible, TOPOLOGY)
  assert known.all()
  np.testing.assert_allclose(values[left], features[left], atol=0.1)


def test_what_no_image_shows_is_not_known():
  _, shown, visible = shown_by(4)
  behind = TOPOLOGY.sphere[:, 0] < 0.0
  visible[:, behind] = 0.0
  visible[:, ~behind] = 1.0
  values, known = mean_over_images(shown, visible, TOPOLOGY)
  assert not known[TOPOLOGY.sphere[:, 0] < -0.8].any() and known[~behind].all()
  np.testing.assert_array_equal(values[~known], 0.0)


def rows_of(maps, *, seen=True):
  """Images that show every vertex at its place on the sphere, from the side."""
  count = len(maps)
  places = np.broadcast_to(TOPOLOGY.sphere[None, :, ::2], (count, TOPOLOGY.num_vertices, 2))
  return VertexRows(
    valid=np.ones(count, bool),
    maps=maps,
    inside=np.full(maps.shape[:3], seen),
    projected=0.8 * places.astype(np.float32),
    visible=np.full((count, TOPOLOGY.num_vertices), seen),
  )


def test_features_are_directions_and_their_variance_is_what_images_differ_by():
  """Long features that turn from left to right, beside a constant that tells no place."""
  angle = np.linspace(0.0, 2.0, 12)
  turning = np.stack([3.0 * np.cos(angle), 3.0 * np.sin(angle), np.full(12, 5.0)], axis=-1)
  maps = np.broadcast_to(turning, (8, 12, 12, 3)).astype(np.float32)
  noise = np.random.default_rng(0).normal(0.0, 0.9, maps.shape).astype(np.float32)
  alike, apart = (fit_features(rows_of(maps + some), TOPOLOGY) for some in (0.0 * noise, noise))
  assert alike.variance < 0.1 * apart.variance
  ends = [alike.values[np.argmax(sign * TOPOLOGY.sphere[:, 0])] for sign in (1.0, -1.0)]
  lengths = np.linalg.norm(ends, axis=1)
  assert np.dot(*ends) < -0.5 and (lengths > 0.8).all() and (lengths < 1.0 + 1e-5).all()


def test_images_that_show_nothing_have_no_features():
  assert fit_features(rows_of(np.ones((2, 3, 3, 4), np.float32), seen=False), TOPOLOGY) is None


def test_padding_shows_nothing(tmp_path):
  """The result is the same for whole batches and for one that is padded by half."""
  split = load_dataset(tiny_config(tmp_path).data).splits["train"]
  half = TOPOLOGY.sphere[: TOPOLOGY.num_half]
  model = Model(network=None, topology=TOPOLOGY, params={}, batch_stats={}, template=Template(half))
  maps = np.random.default_rng(0).normal(size=(len(split), 6, 6, 4)).astype(np.float32)

  def compute(_, batch):
    """Rows of padding would show something else."""
    own = jnp.where(batch.valid[:, None, None, None], jnp.asarray(maps)[batch.index], 100.0)
    count = len(own)
    places = jnp.asarray(rows_of(maps[:1]).projected)
    return VertexRows(
      batch.valid,
      own,
      jnp.ones((count, 6, 6), bool),
      jnp.broadcast_to(places, (count, *places.shape[1:])),
      jnp.ones((count, TOPOLOGY.num_vertices), bool),
    )

  found = [
    with_canonical_features(
      bare_em_state(half),
      split,
      model,
      compute=parallel.pmap_map(compute),
      config=tiny_config(tmp_path, batch_size=size),
    ).canonical_features
    for size in (4, 8)
  ]
  assert len(split) % 8
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


def test_rows_say_where_the_predicted_mesh_is_seen(monkeypatch):
  """A sphere: its front is visible, its back is not, and the mask says what is on the object."""
  half = TOPOLOGY.sphere[: TOPOLOGY.num_half]
  model = Model(network=None, topology=TOPOLOGY, params={}, batch_stats={}, template=Template(half))
  turned = upright_rotation(jnp.array([0.0]), jnp.array([0.0]), jnp.array([0.0]))
  found = SimpleNamespace(
    vertices=jnp.asarray(TOPOLOGY.sphere)[None],
    camera=Camera(jnp.array([0.5]), jnp.array([[0.2, 0.0]]), turned).pack(),
  )
  monkeypatch.setattr(canonical_features, "infer", lambda model, images: found)
  monkeypatch.setattr(
    canonical_features, "encoder_maps", lambda model, images: (None, jnp.ones((1, 4, 4, 2)))
  )
  mask = jnp.zeros((1, 32, 32)).at[:, :, 16:].set(1.0)
  batch = SimpleNamespace(image=jnp.zeros((1, 32, 32, 3)), mask=mask, valid=jnp.array([True]))
  rows = vertex_rows(model, batch)
  np.testing.assert_array_equal(rows.inside[0, 0], [False, False, True, True])
  seen = camera.project(found.vertices, found.camera)
  np.testing.assert_allclose(rows.projected, seen[..., :2])
  depth, visible = np.asarray(seen[0, :, 2]), np.asarray(rows.visible[0])
  middle = 0.5 * (depth.min() + depth.max())
  assert visible[depth < middle - 0.2].all() and not visible[depth > middle + 0.35].any()


def test_rows_are_computed_where_prediction_reads_them(tmp_path):
  config = tiny_config(tmp_path)
  assert make_round(config, index=0).vertex_rows is None
  read = {"model.encoder": "efficientnet", "loss.segmentation": 1.0, "refine.steps": 2}
  assert make_round(with_settings(config, read), index=0).vertex_rows is not None
  once = with_settings(config, read | {"refine.steps": 0})
  assert make_round(once, index=0).vertex_rows is None
