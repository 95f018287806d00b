"""Prediction: any images in, reconstructions out, from a checkpoint alone."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.tiny import plain, plain_loss, plain_render
from umr_jax.config.settings import Config, RefineConfig, to_dict
from umr_jax.data.transforms import crop
from umr_jax.models.assemble import uv_texture
from umr_jax.models.checkpoint import Snapshot, read_checkpoint
from umr_jax.models.infer import TrainedModel, build_net, build_topology_from, infer, model_of
from umr_jax.models.initialize import initialize
from umr_jax.predict.inputs import as_example
from umr_jax.predict.predictor import Predictor, load_predictor, predict
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.types import EMState, Template, TrainState

SIZE, PARTS = 64, 3
CONFIG = plain(
  geometry={"level": 1, "texels_per_side": 2, "uv_height": 16},
  data={"image_size": SIZE},
  model={"encoder_width": 8},
  em={"rounds": 1, "hypotheses": (2,)},
)


FITTED = dataclasses.replace(
  CONFIG,
  loss=plain_loss(segmentation=1.0),
  render=plain_render(image_size=32, sigma=3e-4),
  refine=RefineConfig(steps=4),
)


# A fresh network predicts the same for every image: noise on its heads changes that.
NOISE = {
  "encoder": 1.0,
  "texture_head": 0.9,
  "camera_heads": 0.4,
  "shape_head": 0.005,
  "mask_head": 1.0,
}


def make_params(seed: int = 0, config: Config = CONFIG):
  rng = np.random.default_rng(seed)
  params, batch_stats = initialize(build_net(config, hypotheses=2), image_size=SIZE, seed=seed)

  def noisy(leaf, name):
    fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 25.0
    return (leaf + NOISE[name] * rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

  return {
    name: jax.tree.map(lambda leaf, name=name: noisy(leaf, name), params[name])
    for name in sorted(params)
  }, batch_stats


def make_trained(*, parts: bool = False, config: Config = CONFIG) -> TrainedModel:
  return model_of(make_snapshot(parts=parts, config=config))


def make_snapshot(*, parts: bool = False, config: Config = CONFIG) -> Snapshot:
  topology = build_topology_from(config)
  params, batch_stats = make_params(config=config)
  height = config.geometry.uv_height
  stretched = topology.sphere[: topology.num_half] * np.array([0.4, 0.22, 0.3], np.float32)
  probs = np.random.default_rng(0).uniform(size=(height, 2 * height, PARTS + 1))
  probs = (probs / probs.sum(-1, keepdims=True)).astype(np.float32)
  em_state = EMState(
    round=np.int32(0),
    round_start=np.int32(0),
    template=Template(half_vertices=stretched),
    canonical_uv=probs if parts else None,
    part_vertices=np.zeros(topology.num_vertices, np.int32) if parts else None,
  )
  return Snapshot(to_dict(config), params, batch_stats, {}, em_state, 7)


@pytest.fixture(scope="module")
def predictor():
  return Predictor(make_trained(), batch_size=3)


@pytest.fixture
def images(rng):
  sizes = [(80, 50), (64, 64), (37, 120), (200, 90)]
  return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


def assert_alike(a, b):
  """The same reconstruction; batches of another size add up in another order."""
  assert a.box == b.box
  for name in ("vertices", "camera", "cameras", "camera_probs", "flow", "silhouette"):
    np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-4, err_msg=name)
  assert np.abs(a.texture.astype(int) - b.texture.astype(int)).max() <= 2


def test_the_texture_is_read_from_the_photograph(predictor, rng):
  photo = rng.integers(0, 256, (300, 300, 3)).astype(np.uint8)
  rec = predictor(photo)
  x0, y0, x1, _ = rec.box
  sharp = crop(as_example(photo), (x0, y0, x1 - x0), image_size=256).image
  expected = 255.0 * uv_texture(jnp.asarray(sharp)[None], jnp.asarray(rec.flow)[None])[0]
  np.testing.assert_allclose(rec.texture, expected, atol=1.5)


def test_a_reconstruction_has_the_promised_shapes(predictor, images):
  rec = predictor(images[0])
  topology = predictor.topology
  assert rec.vertices.shape == rec.template.shape == (topology.num_vertices, 3)
  assert (rec.camera.shape, rec.cameras.shape, rec.camera_probs.shape) == ((7,), (2, 7), (2,))
  assert rec.camera_probs.sum() == pytest.approx(1.0, abs=1e-5)
  np.testing.assert_array_equal(rec.camera, rec.cameras[np.argmax(rec.camera_probs)])
  assert rec.silhouette.shape == (SIZE, SIZE)
  assert 0 <= rec.silhouette.min() <= rec.silhouette.max() <= 1
  assert (rec.texture.shape, rec.texture.dtype) == ((256, 512, 3), np.uint8)
  assert rec.flow.shape == (256, 512, 2)
  assert (rec.part_probs, rec.step) == (None, 7)
  whole = trimesh.Trimesh(rec.vertices, rec.faces, process=False)
  assert whole.is_watertight
  assert whole.volume > 0
  assert all(isinstance(getattr(rec, f), np.ndarray) for f in ("vertices", "camera", "texture"))
  assert "42 vertices" in repr(rec)
  assert len(repr(rec)) < 200


def test_meshes_are_fitted_as_long_as_the_run_or_the_caller_says(images):
  trained = make_trained(config=FITTED)
  fitted, plain, longer = (
    Predictor(trained, refine_steps=steps)(images[0]) for steps in (None, 0, 8)
  )
  moves = [np.abs(rec.vertices - plain.vertices).max() for rec in (fitted, longer)]
  assert 1e-4 < moves[0] < moves[1]
  # What is rendered, exported and carried over follows.
  np.testing.assert_array_equal(fitted.camera, fitted.cameras[np.argmax(fitted.camera_probs)])
  assert np.abs(fitted.silhouette - plain.silhouette).max() > 1e-3
  with pytest.raises(ValueError, match=r"refine\.steps .*loss\.segmentation"):
    Predictor(make_trained(), refine_steps=4)


def test_a_known_mask_is_what_a_mesh_is_fitted_to(images):
  predictor = Predictor(make_trained(config=FITTED), refine_steps=60)
  image = images[1]
  box = (0, 0, *image.shape[1::-1])
  # A mask that was compressed is nowhere quite zero.
  mask = np.full(image.shape[:2], 0.02, np.float32)
  mask[12:52, 24:40] = 1.0
  seen = predictor(image, box=box)
  told = predictor(image, mask=mask, box=box)
  assert seen.box == told.box

  def overlap(rec):
    x0, y0, side = rec.box[0], rec.box[1], rec.box[2] - rec.box[0]
    wanted = crop(as_example(image, mask=mask), (x0, y0, side), image_size=SIZE).mask > 0.5
    drawn = rec.silhouette > 0.5
    return (wanted & drawn).sum() / (wanted | drawn).sum()

  assert overlap(told) > overlap(seen) + 0.1


def test_a_mask_of_the_whole_image_is_honoured_and_a_missing_one_is_none(images):
  loose = dataclasses.replace(FITTED, loss=plain_loss(segmentation=1.0, mask=9.0, deformation=0.05))
  predictor = Predictor(make_trained(config=loose), refine_steps=100)
  image = images[1]
  box = (8, 8, 56, 56)
  seen = predictor(image, box=box)
  opaque = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], -1)
  assert_alike(predictor(opaque, box=box), seen)
  full = predictor(image, mask=np.ones(image.shape[:2], bool), box=box)
  assert full.silhouette.mean() > seen.silhouette.mean() + 0.1


def test_prediction_makes_no_nan_on_its_way():
  program = """
import numpy as np
from tests.predict.test_predictor import FITTED, Predictor, make_trained
predictor = Predictor(make_trained(config=FITTED), batch_size=2)
image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
mask = np.zeros((64, 64), bool)
mask[20:50, 10:40] = True
recs = predictor.batch([image, image], masks=[None, mask])
assert np.abs(recs[0].vertices - recs[1].vertices).max() > 1e-4
"""
  done = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    env={**os.environ, "JAX_DEBUG_NANS": "1"},
  )
  assert done.returncode == 0, done.stderr


def test_a_prediction_that_is_known_is_finished_as_if_it_were_made(predictor, images):
  examples = [as_example(image) for image in images[:2]]
  expected = predictor.batch(images[:2])
  crops = np.stack([rec.image for rec in expected])
  found = jax.jit(infer)(predictor._model, jnp.asarray(crops))
  for rec, made in zip(predictor.finish(examples, crops, found), expected, strict=True):
    assert_alike(rec, made)


def test_the_box_is_the_padded_square_around_the_object(predictor, images):
  image = images[0]  # 80 high, 50 wide
  assert predictor(image).box == pytest.approx((-19.0, -4.0, 69.0, 84.0))
  mask = np.zeros(image.shape[:2], bool)
  mask[10:30, 20:40] = True
  expected = (19.0, 9.0, 41.0, 31.0)
  assert predictor(image, mask=mask).box == pytest.approx(expected)
  assert predictor(image, box=(20, 10, 40, 30)).box == pytest.approx(expected)
  assert_alike(predictor(image, mask=mask), predictor(image, box=(20, 10, 40, 30)))


def test_only_the_crop_matters(predictor, images):
  image = images[3]
  moved = np.pad(image, ((11, 5), (7, 9), (0, 0)), constant_values=3)
  a = predictor(image, box=(20, 40, 70, 90))
  b = predictor(moved, box=(27, 51, 77, 101))
  assert_alike(a, dataclasses.replace(b, box=a.box))


def test_a_batch_of_any_sizes_is_each_alone_with_two_compiled_shapes(
  predictor, images, monkeypatch
):
  shapes, network = set(), predictor._infer

  def counted(model, crops, masks):
    shapes.add(crops.shape)
    return network(model, crops, masks)

  monkeypatch.setattr(predictor, "_infer", counted)
  together = predictor.batch(images)  # four: one more than a batch
  assert len(together) == 4
  assert np.abs(together[0].flow - together[1].flow).max() > 0.05  # they are told apart
  for image, rec in zip(images, together, strict=True):
    assert_alike(predictor(image), rec)
  for image, rec in zip(images[:2], predictor.batch(images[:2]), strict=True):
    assert_alike(predictor(image), rec)
  assert {shape[0] for shape in shapes} == {1, predictor.batch_size} and len(shapes) == 2
  assert predictor.batch([]) == []


def test_floats_grey_and_alpha_agree_with_bytes(predictor, images):
  expected = predictor(images[1])
  assert_alike(predictor(images[1] / np.float32(255)), expected)
  opaque = np.concatenate([images[1], np.full((64, 64, 1), 255, np.uint8)], -1)
  assert_alike(predictor(opaque), expected)
  grey = images[1][..., 0]
  assert_alike(predictor(grey), predictor(np.repeat(grey[..., None], 3, -1)))


def test_masks_and_boxes_go_with_their_images(predictor, images):
  masks = [None, np.eye(64), None, None]
  boxes = [(0, 0, 20, 30), None, None, (1, 2, 30, 40)]
  recs = predictor.batch(images, masks, boxes)
  for image, mask, box, rec in zip(images, masks, boxes, recs, strict=True):
    assert_alike(predictor(image, mask, box), rec)


@pytest.mark.parametrize(
  ("call", "complaint"),
  [
    (lambda p, i: p(i[0].astype(np.float32)), "divide by"),
    (lambda p, i: p(i[0][None]), "one image"),
    (lambda p, i: p(np.full((9, 9, 3), np.nan)), "NaN"),
    (lambda p, i: p.batch([i[0], np.zeros((3, 3, 3), np.int16)]), "image 1 is of int16"),
    (lambda p, i: p.batch(i[0]), "wrap it in a list"),
    (lambda p, i: p.batch("folder"), "wrap it in a list"),
    (lambda p, i: p.batch(i, masks=[None]), "1 masks for 4 images"),
    (lambda p, i: p("missing.png"), "missing.png"),
    (lambda p, i: Predictor(make_trained(), batch_size=0), "at least 1"),
  ],
)
def test_unusable_input_is_refused(predictor, images, call, complaint):
  with pytest.raises(ValueError, match=complaint):
    call(predictor, images)


def test_a_broken_network_is_reported(images):
  trained = make_trained()
  trained.model.template.half_vertices[0, 0] = np.nan
  with pytest.raises(ValueError, match="predicts NaN"):
    Predictor(trained)(images[0])


def test_parts_sum_to_one_and_are_background_outside(images):
  rec = Predictor(make_trained(parts=True))(images[0])
  assert rec.part_probs.shape == (SIZE, SIZE, PARTS + 1)
  np.testing.assert_allclose(rec.part_probs.sum(-1), 1.0, atol=1e-5)
  outside = rec.silhouette == 0
  assert outside.any()
  np.testing.assert_allclose(rec.part_probs[outside][:, 0], 1.0, atol=1e-6)
  inside = rec.silhouette > 0.99
  assert rec.part_probs[inside][:, 1:].mean() > 0.15


def test_render_shows_the_mesh_from_the_camera_and_turned(predictor, images):
  rec = predictor(images[1])
  view = rec.render(image_size=SIZE)
  assert (view.shape, view.dtype) == ((SIZE, SIZE, 4), np.float32)
  both, either = np.minimum(view[..., 3], rec.silhouette), np.maximum(view[..., 3], rec.silhouette)
  assert both.sum() / either.sum() > 0.97
  # A full turn is the same view, but for samples that rounding moves across an edge.
  turned = np.abs(rec.render(image_size=SIZE, azimuth=360.0) - view)
  assert (turned > 0.02).mean() < 1e-3 and turned.max() < 0.2
  quarter = rec.render(image_size=SIZE, azimuth=90.0)
  assert np.abs(quarter - view)[..., 3].mean() > 0.005
  with_color = dataclasses.replace(rec, texture=np.full_like(rec.texture, (250, 10, 130)))
  solid = with_color.render(image_size=SIZE)
  covered = solid[..., 3] > 0
  np.testing.assert_allclose(solid[covered][:, :3] * 255, [[250, 10, 130]] * covered.sum(), atol=1)


def test_it_exports_itself(predictor, images, tmp_path):
  rec = predictor(images[0])
  path = rec.export(tmp_path / "new" / "horse.glb")
  assert len(trimesh.load_mesh(path, process=False).faces) == predictor.topology.num_faces
  rec.export(str(tmp_path / "horse.obj"))
  assert {p.name for p in tmp_path.glob("horse.*")} == {"horse.obj", "horse.mtl", "horse.png"}
  assert rec.to_trimesh().volume > 0


def save(directory, snapshot):
  state = TrainState(
    step=np.int32(snapshot.step),
    params=snapshot.params,
    batch_stats=snapshot.batch_stats,
    opt_state={"count": np.int32(7)},
  )
  with Checkpointer(directory / "checkpoints", keep=1) as checkpointer:
    checkpointer.save(snapshot.step, state, snapshot.em_state, snapshot.config)


def test_a_work_directory_is_all_it_needs(tmp_path, images):
  snapshot = make_snapshot(parts=True)
  save(tmp_path, snapshot)
  Image.fromarray(images[1]).save(tmp_path / "photo.png")
  expected = Predictor(model_of(snapshot))(images[1])
  (rec,) = predict([tmp_path / "photo.png"], tmp_path)
  assert_alike(rec, expected)
  np.testing.assert_allclose(rec.part_probs, expected.part_probs, atol=1e-3)
  loaded = load_predictor(tmp_path / "checkpoints" / "7", batch_size=2)
  assert (loaded.step, loaded.batch_size) == (7, 2)
  assert_alike(predict([images[1]], loaded)[0], expected)
  assert read_checkpoint(tmp_path).step == 7
  with pytest.raises(FileNotFoundError, match="no checkpoint"):
    load_predictor(tmp_path / "nothing")


def test_umr_jax_predict_is_callable_in_every_order_of_imports():
  program = """
import importlib, inspect, sys
import umr_jax
orders = {
  "attribute first": "import umr_jax; umr_jax.predict",
  "another name first": "import umr_jax; umr_jax.load_predictor",
  "package first": "import umr_jax.predict",
  "submodule first": "import umr_jax.predict.predictor",
  "name from submodule first": "from umr_jax.predict.predictor import predict",
  "package under a name": "import umr_jax.predict as p; p.load_predictor; assert callable(p)",
  "name from package first": "from umr_jax import predict",
}
for name, order in orders.items():
  for module in [m for m in sys.modules if m.startswith("umr_jax.predict")]:
    del sys.modules[module]
  for public in umr_jax._PUBLIC:
    vars(umr_jax).pop(public, None)
  scope = {}
  exec(order, scope)
  try:
    umr_jax.predict([], "no/such/folder")
  except FileNotFoundError as error:
    assert "no checkpoint" in str(error), name
  else:
    raise SystemExit(name)
  import umr_jax.predict as package
  from umr_jax.predict.predictor import predict as function
  from umr_jax import Reconstruction, predict, transfer_keypoints
  assert package.Reconstruction is Reconstruction, name
  assert predict is package is umr_jax.predict, name
  package_call, call = (
    [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
    for f in (umr_jax.predict, function)
  )
  assert package_call == call, name
"""
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr


def test_serving_needs_no_training_code():
  program = (
    "import sys, umr_jax.predict.predictor, umr_jax.viz.gallery\n"
    # Of the losses only those that a refinement weighs.
    "weighed = ['canonical_features', 'mask', 'shape']\n"
    "may = ['umr_jax.losses', *(f'umr_jax.losses.{name}' for name in weighed)]\n"
    "bad = [m for m in sys.modules if m not in may and m.startswith(('umr_jax.train', 'umr_jax.em',"
    " 'umr_jax.parts', 'umr_jax.losses', 'tensorflow'))]\n"
    "assert not bad, bad"
  )
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
