"""The whole evaluation on a made-up data set whose truth is known: perfect, turned, shuffled."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy.spatial.transform import Rotation

from tests.keypoint_pairs import FEW, keypoint_pairs
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, Split
from umr_jax.data.example import Example, mask_box
from umr_jax.data.transforms import CropSpec
from umr_jax.data.zbuffer import zbuffer
from umr_jax.eval.evaluate import evaluate
from umr_jax.eval.mask_metrics import best_constant_mask
from umr_jax.eval.predictions import KEPT, Protocol, predict_split
from umr_jax.eval.references import medoid_shape, references
from umr_jax.eval.summary import format_rows, format_table
from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import halve
from umr_jax.geometry.topology import build_topology
from umr_jax.models.assemble import face_flow
from umr_jax.predict.transfer import locate
from umr_jax.types import Model, Template

SIZE = 32
STORED = 48
COUNT = {"train": 24, "test": 12}
PROTOCOL = Protocol(spec=CropSpec(image_size=SIZE, padding=0.05), batch_size=5)


@pytest.fixture(scope="module", autouse=True)
def few_pairs():
  """No test here reads what is resampled."""
  with keypoint_pairs(FEW):
    yield


@struct.dataclass
class Told:
  vertices: Any
  camera: Any
  flow_map: Any = None
  view_probs: Any = None


@pytest.fixture(scope="module")
def topology():
  return build_topology(2, texels_per_side=2, symmetric_texture=True)


def shape(topology, number):
  """Ellipsoids off the origin: no two axes alike, none like another's."""
  return topology.sphere * np.array([0.9, 0.45 + 0.05 * number, 0.3]) + np.array([0.2, 0.0, 0.1])


def make_example(topology, split, number):
  """One image; its colour is its number, by which the pretended network knows it."""
  seed = number + 1000 * (split == "test")
  quaternion = Rotation.random(random_state=seed).as_quat()[[3, 0, 1, 2]]
  view = np.concatenate([[0.6, 0.1, -0.05], quaternion]).astype(np.float32)
  vertices = shape(topology, number % 3).astype(np.float32)
  projected = np.asarray(camera.project(jnp.asarray(vertices), jnp.asarray(view)))
  mask = np.zeros(STORED * STORED, np.float32)
  mask[zbuffer(projected, topology.faces, size=STORED).pixels] = 1.0
  mask = mask.reshape(STORED, STORED)
  return Example(
    name=f"{split}{number}",
    image=np.full((STORED, STORED, 3), 4 * number + (100 if split == "test" else 0), np.uint8),
    mask=mask,
    box=mask_box(mask),
    camera=view,
    shape=f"shape{number % 3}",
  )


@pytest.fixture(scope="module")
def dataset(topology):
  splits = {
    name: Split([make_example(topology, name, i) for i in range(count)], range(count))
    for name, count in COUNT.items()
  }
  meshes = {
    f"shape{i}": (shape(topology, i).astype(np.float32), topology.outward_faces) for i in range(3)
  }
  return Dataset(
    name="made up",
    splits=splits,
    part_names=(),
    keypoint_names=(),
    keypoint_flip=(),
    meshes=meshes,
    skipped=[],
  )


def make_infer(dataset, topology, *, order=None, frame=None, view_turn=None):
  """A network that identifies the truth by the image's colour.

  Args:
    order: whose truth it tells for each test image; its own without.
    frame: turn, shift and scale of its own object frame.
    view_turn: a rotation by which it gets every test camera wrong.
  """
  turn, shift, scale = frame or (np.eye(3), np.zeros(3), 1.0)
  cameras, vertices = np.zeros((256, 7), np.float32), np.zeros((256, *topology.sphere.shape))
  for name, split in dataset.splits.items():
    batches = evaluation_batches(split, PROTOCOL.spec, batch_size=5)
    crops = [crop for _, some in batches for crop in some]
    for i, own in enumerate(crops):
      told = crops[order[i]] if order is not None and name == "test" else own
      level = round(float(own.image[SIZE // 2, SIZE // 2, 0]) * 255)
      true = dataset.meshes[told.shape][0]
      rotation = np.asarray(camera.rotation(jnp.asarray(told.camera)))
      # X_true = turn X_learned * scale + shift.
      vertices[level] = (true - shift) / scale @ turn
      if view_turn is not None and name == "test":
        rotation = view_turn @ rotation
      cameras[level] = np.concatenate(
        [
          [told.camera[0] * scale],
          told.camera[1:3] + told.camera[0] * (rotation @ shift)[:2],
          Rotation.from_matrix(rotation @ turn).as_quat()[[3, 0, 1, 2]],
        ]
      )
  table = jnp.asarray(vertices, jnp.float32)

  def infer(model, images):
    level = jnp.round(images[:, SIZE // 2, SIZE // 2, 0] * 255.0).astype(jnp.int32)
    return Told(vertices=table[level] * model.params["scale"], camera=jnp.asarray(cameras)[level])

  return infer


def make_model(topology, template=None, **parts):
  """The arrays of a model whose network is not applied."""
  template = template or Template(half_vertices=topology.sphere[: topology.num_half])
  return Model(
    network=None,
    topology=topology,
    params={"scale": jnp.ones(())},
    batch_stats={},
    template=template,
    **parts,
  )


def run(infer, dataset, topology, split="test", canonical_uv=None, **options):
  model = make_model(topology, canonical_uv=canonical_uv)
  protocol = dataclasses.replace(PROTOCOL, **options)
  return evaluate(model, dataset, split, protocol, step=7, infer=infer).report


def test_the_truth_scores_perfectly(dataset, topology):
  report = run(make_infer(dataset, topology), dataset, topology)
  assert report["iou_3d"] > 0.99
  assert report["iou_3d_instance"] > 0.99
  assert report["chamfer_l1"] < 1e-3
  assert report["camera_error_deg"] < 0.01
  assert report["camera_error_twin_deg"] < 0.01
  # The stored mask is hard and 48 pixels wide, the render soft: the shape cannot reach 1.
  assert report["mask_iou"] > 0.85
  assert report["mask_iou_hard"] > 0.93
  assert report["backface_ratio"] == 0.0


def test_the_learned_frame_makes_no_difference(dataset, topology):
  turn = Rotation.random(random_state=3).as_matrix()
  frame = (turn, np.array([0.3, -0.2, 0.1]), 1.7)
  report = run(make_infer(dataset, topology, frame=frame), dataset, topology)
  plain = run(make_infer(dataset, topology), dataset, topology)
  assert report["camera_error_deg"] < 0.01
  # Its boxes are aligned with other axes, and the shapes differ: their mean is no exact inverse.
  assert report["iou_3d"] > 0.97
  assert report["chamfer_l1"] < 3e-3
  assert report["mask_iou"] == pytest.approx(plain["mask_iou"], abs=1e-3)


def test_a_shuffled_prediction_gives_chance(dataset, topology):
  order = np.roll(np.arange(COUNT["test"]), 5)
  report = run(make_infer(dataset, topology, order=order), dataset, topology)
  expected = []
  for i, split in enumerate([dataset.splits["test"]] * COUNT["test"]):
    a, b = (np.asarray(split[j].camera)[[4, 5, 6, 3]] for j in (i, int(order[i])))
    difference = Rotation.from_quat(a) * Rotation.from_quat(b).inv()
    expected.append(np.degrees(difference.magnitude()))
  assert report["camera_error_deg"] == pytest.approx(np.median(expected), abs=0.01)
  assert report["camera_error_deg"] > 90.0
  assert report["mask_iou_hard"] < 0.75
  assert report["iou_3d"] < 0.97


@pytest.mark.parametrize("degrees", [10.0, 45.0])
def test_a_known_rotation_gives_that_error(dataset, topology, degrees):
  turn = Rotation.from_rotvec([0.0, 0.0, np.radians(degrees)]).as_matrix()
  report = run(make_infer(dataset, topology, view_turn=turn), dataset, topology)
  assert report["camera_error_deg"] == pytest.approx(degrees, abs=0.01)
  assert report["iou_3d"] > 0.99  # the shape is not to blame


def test_the_report_has_the_agreed_keys_and_is_json(dataset, topology):
  report = json.loads(json.dumps(run(make_infer(dataset, topology), dataset, topology)))
  metrics = {
    "mask_iou",
    "mask_iou_hard",
    "backface_ratio",
    "iou_3d",
    "iou_3d_instance",
    "chamfer_l1",
  }
  metrics |= {"chamfer_l1", "f_score", "camera_error_deg", "camera_error_twin_deg"}
  metrics |= {"camera_within_30", "camera_within_30_twin", "thin_recall", "thin_precision"}
  expected = metrics | {f"{key}_ci" for key in metrics}
  assert set(report) == expected | {"split", "n", "seed", "step", "protocol"}
  assert (report["split"], report["n"], report["seed"], report["step"]) == ("test", 12, 0, 7)
  for key in metrics:
    low, high = report[f"{key}_ci"]
    assert low <= report[key] <= high


def test_what_the_data_do_not_allow_is_absent(dataset, topology):
  bare = {
    name: Split(
      [dataclasses.replace(example, camera=None, shape=None) for example in split],
      range(len(split)),
    )
    for name, split in dataset.splits.items()
  }
  infer = make_infer(dataset, topology)
  report = run(infer, dataclasses.replace(dataset, splits=bare, meshes={}), topology)
  assert "mask_iou" in report
  assert not [key for key in report if "3d" in key or "camera" in key or "chamfer" in key]
  report = run(infer, dataclasses.replace(dataset, meshes={}), topology)
  assert "camera_error_deg" in report
  assert "iou_3d" not in report


def test_the_training_split_can_be_evaluated_and_limits_hold(dataset, topology):
  report = run(
    make_infer(dataset, topology),
    dataset,
    topology,
    split="train",
    alignment_images=7,
    max_meshes=4,
  )
  assert report["n"] == COUNT["train"]
  assert report["iou_3d"] > 0.97
  assert "at most 4" in report["protocol"]


def test_an_empty_or_unknown_split_is_refused_by_name(dataset, topology):
  infer = make_infer(dataset, topology)
  with pytest.raises(ValueError, match=r"no images in split 'val'.*train \(24\), test \(12\)"):
    run(infer, dataset, topology, split="val")


def test_predictions_that_are_not_finite_are_refused(dataset, topology):
  infer = make_infer(dataset, topology)
  with pytest.raises(ValueError, match="not finite"):
    model = make_model(topology).replace(params={"scale": jnp.full((), jnp.nan)})
    evaluate(model, dataset, "test", PROTOCOL, step=0, infer=infer)


def test_the_table_shows_every_metric_with_its_interval(dataset, topology):
  report = run(make_infer(dataset, topology), dataset, topology)
  lines = format_table(report).splitlines()
  assert len(lines) == 1 + 13 + 1
  assert lines[1].split()[:2] == ["mask_iou", f"{report['mask_iou']:.3f}"]
  assert "12 images, step 7" in lines[-1]


def test_references_lie_below_the_truth(dataset, topology):
  rows = references(dataset, topology, "test", PROTOCOL)
  assert set(rows) == {"constant mask", "sphere", "medoid", "truth"}
  truth, sphere, medoid = rows["truth"], rows["sphere"], rows["medoid"]
  run_on_truth = run(make_infer(dataset, topology), dataset, topology)
  assert truth["iou_3d"] == truth["iou_3d_instance"] == truth["f_score"] == 1.0
  assert truth["chamfer_l1"] == 0.0 and truth["camera_error_deg"] < 1e-3
  assert truth["mask_iou"] == pytest.approx(run_on_truth["mask_iou"], abs=1e-3)
  for metric in ("mask_iou", "iou_3d"):
    assert 0.1 < sphere[metric] < medoid[metric] < truth[metric]
  assert sphere["chamfer_l1"] > medoid["chamfer_l1"] > 0.0
  assert 0.2 < rows["constant mask"]["mask_iou_hard"] < truth["mask_iou_hard"]
  lines = format_rows(rows).splitlines()
  assert lines[0].split()[1:] == ["constant", "mask", "sphere", "medoid", "truth"]
  assert any(line.startswith("iou_3d ") and line.endswith("1.000") for line in lines)


def test_the_medoid_is_the_shape_in_the_middle(topology):
  meshes = {
    f"{size}": (topology.sphere * size, topology.outward_faces) for size in (0.5, 0.7, 0.75, 0.8, 1)
  }
  assert medoid_shape(meshes, sorted(meshes)) == "0.75"


def test_the_best_constant_mask_matches_a_search_over_all_masks(rng):
  masks = (rng.uniform(size=(9, 2, 3)) < [[0.9, 0.5, 0.1], [0.8, 0.4, 0.05]]).astype(np.float32)
  masks[:, 0, 0] = 1.0

  def mean_iou(mask):
    pairs = [(np.sum((mask > 0) & (m > 0)), np.sum((mask > 0) | (m > 0))) for m in masks]
    return np.mean([a / b for a, b in pairs])

  every = [np.array(list(f"{code:06b}"), np.float32).reshape(2, 3) for code in range(64)]
  best = max(mean_iou(mask) for mask in every)
  assert mean_iou(best_constant_mask(masks)) > best - 0.02


CHOSEN = [0, 40, 80, 100, 130, 161]


@pytest.fixture(scope="module")
def pinned(topology, dataset):
  """Every image shows shape0; its keypoints are six vertices as the true camera projects them."""
  vertices = dataset.meshes["shape0"][0]

  def pin(example):
    seen = np.asarray(camera.project(jnp.asarray(vertices), jnp.asarray(example.camera)))
    pixels = (seen[CHOSEN, :2] + 1.0) * STORED / 2.0
    points = np.column_stack([pixels, np.ones(6)]).astype(np.float32)
    return dataclasses.replace(example, keypoints=points, shape="shape0")

  splits = {
    name: Split([pin(example) for example in split], range(len(split)), keypoint_flip=range(6))
    for name, split in dataset.splits.items()
  }
  return dataclasses.replace(
    dataset, splits=splits, keypoint_names=tuple("abcdef"), keypoint_flip=tuple(range(6))
  )


def with_flow(infer, flow):
  def told(*inputs):
    found = infer(*inputs)
    maps = jnp.broadcast_to(jnp.asarray(flow, jnp.float32), (len(inputs[-1]), *flow.shape))
    return found.replace(flow_map=maps)

  return told


@pytest.mark.usefixtures("optimized")
def test_true_cameras_carry_keypoints_and_shuffled_ones_do_not(pinned, topology):
  half = halve(pinned.meshes["shape0"][0], num_center=topology.num_center)
  template = Template(half_vertices=jnp.asarray(half))
  flow = np.zeros((8, 16, 2))
  right = with_flow(make_infer(pinned, topology), flow)
  report = evaluate_with(right, template, pinned, topology)
  # The nearest covered pixel is at most a pixel from the vertex.
  assert report["kt_camera_pck"] > 0.99 and report["apk_camera"] > 0.95
  assert "kt_camera_pck_paired" not in report and "keypoints over" in report["protocol"]
  order = np.roll(np.arange(COUNT["test"]), 5)
  wrong = with_flow(make_infer(pinned, topology, order=order), flow)
  assert evaluate_with(wrong, template, pinned, topology)["kt_camera_pck"] < 0.5
  rows = references(pinned, topology, "test", PROTOCOL)
  assert rows["truth"]["kt_camera_pck"] == 1.0 > rows["sphere"]["kt_camera_pck"]


def test_by_surface_a_keypoint_is_the_vertex_that_faces_the_camera(pinned, topology):
  vertices = pinned.meshes["shape0"][0]
  template = Template(half_vertices=jnp.asarray(halve(vertices, num_center=topology.num_center)))
  infer = with_flow(make_infer(pinned, topology), np.zeros((8, 16, 2)))
  test = pinned.splits["test"]
  predictions = predict_split(make_model(topology, template), test, PROTOCOL, infer=infer)
  found = [
    locate(points[:, :2].astype(np.float64), own, "surface")
    for points, own in zip(predictions.keypoints, predictions.correspondences, strict=True)
  ]
  nearest = np.stack([one.elements[np.arange(6), np.argmax(one.weights, axis=-1)] for one in found])
  cameras = jnp.asarray(np.stack([example.camera for example in test]))
  whole = jnp.broadcast_to(vertices, (len(test), *vertices.shape))
  away = np.asarray(camera.facing_away(whole, cameras, topology.outward_faces))
  around = (topology.outward_faces[None] == np.array(CHOSEN)[:, None, None]).any(axis=-1)
  before = np.stack([(away[:, of] < 0.0).all(axis=1) for of in around], axis=1)
  assert 10 < before.sum() < before.size - 10
  expected = np.broadcast_to(CHOSEN, nearest.shape)
  np.testing.assert_array_equal(nearest[before], expected[before])
  assert (nearest[~before] != expected[~before]).any()


def evaluate_with(infer, template, dataset, topology):
  model = make_model(topology, template)
  return evaluate(model, dataset, "test", PROTOCOL, step=0, infer=infer).report


def test_faces_lie_where_the_networks_flow_sends_them(pinned, topology):
  v, u = np.mgrid[0:16, 0:32]
  flow = np.stack([(u + 0.5) / 16 - 1.0, (v + 0.5) / 8 - 1.0], axis=-1)
  half = halve(pinned.meshes["shape0"][0], num_center=topology.num_center)
  template = Template(half_vertices=jnp.asarray(half))
  infer, test = with_flow(make_infer(pinned, topology), flow), pinned.splits["test"]
  found = predict_split(make_model(topology, template), test, PROTOCOL, infer=infer)
  expected = face_flow(jnp.asarray(flow, jnp.float32)[None], topology)[0].mean(axis=1)
  assert len(found.correspondences) == 12
  for own in found.correspondences:
    np.testing.assert_allclose(own.face_positions, expected, atol=1e-5)


def counting(infer, seen):
  """`infer`, which notes the colour by which each image is known."""

  def counted(model, images):
    jax.debug.callback(lambda x: seen.extend(x.tolist()), images[:, SIZE // 2, SIZE // 2, 0])
    return infer(model, images)

  return counted


@pytest.mark.parametrize("split", ["test", "train"])
@pytest.mark.usefixtures("optimized")
def test_every_image_goes_through_the_network_once(pinned, topology, split):
  """With masks, cameras, meshes, keypoints and parts to measure, and the alignment to fix."""
  splits = {
    name: Split(
      [dataclasses.replace(e, parts=np.stack([1.0 - e.mask, e.mask], axis=-1)) for e in examples],
      range(len(examples)),
      keypoint_flip=range(6),
    )
    for name, examples in pinned.splits.items()
  }
  canonical = np.zeros((8, 16, 2), np.float32)
  canonical[..., 1] = 1.0
  half = halve(pinned.meshes["shape0"][0], num_center=topology.num_center)
  model = make_model(topology, Template(half_vertices=jnp.asarray(half)), canonical_uv=canonical)
  seen = []
  infer = counting(with_flow(make_infer(pinned, topology), np.zeros((8, 16, 2))), seen)
  # Batches without padding, which would repeat an image.
  protocol = dataclasses.replace(PROTOCOL, batch_size=4, max_meshes=2)
  dataset = dataclasses.replace(pinned, splits=splits)
  report, predictions = evaluate(model, dataset, split, protocol, step=0, infer=infer)
  jax.effects_barrier()
  assert {"mask_iou", "camera_error_deg", "iou_3d", "kt_flow_pck", "part_iou"} <= set(report)
  assert len(seen) == len(set(seen)) == (24 if split == "train" else 36)
  # What is shown needs no pass of its own, nor does it keep more than it shows.
  shown = [row for row in predictions.shown if row is not None]
  assert len(shown) == KEPT and predictions.shown[:KEPT] == shown
  for i, (image, found) in enumerate(shown):
    np.testing.assert_array_equal(found.vertices, predictions.vertices[i])
    level = splits[split][i].image[0, 0, 0]
    assert image[SIZE // 2, SIZE // 2, 0] == pytest.approx(level / 255)


def test_one_part_for_all_is_met_as_well_as_the_mask(dataset, topology):
  splits = {
    name: Split(
      [
        dataclasses.replace(e, parts=np.stack([1.0 - e.mask, e.mask], axis=-1), keypoints=None)
        for e in split
      ],
      range(len(split)),
    )
    for name, split in dataset.splits.items()
  }
  parted = dataclasses.replace(dataset, splits=splits)
  canonical = np.zeros((8, 16, 2), np.float32)
  canonical[..., 1] = 1.0
  order = np.roll(np.arange(COUNT["test"]), 5)
  found = [
    run(make_infer(dataset, topology, order=o), parted, topology, canonical_uv=canonical)
    for o in (None, order)
  ]
  assert found[0]["part_iou"] == pytest.approx(found[0]["mask_iou_hard"], abs=0.03)
  assert found[0]["part_iou"] > 0.9 > found[1]["part_iou"]
