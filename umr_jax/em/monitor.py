"""What a run reports while it trains: metrics, progress, panels, templates, objectives."""

import collections
import json
import pathlib
import signal
import threading
from typing import Any

import jax
import numpy as np
import trimesh
from absl import logging

from umr_jax.config.settings import Config
from umr_jax.data.dataset import Split, every_nth
from umr_jax.em.target_cameras import framed_objects, untold_dimensions
from umr_jax.eval.template_truth import TemplateTruth
from umr_jax.files import write_text
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.models.infer import Infer
from umr_jax.predict import export
from umr_jax.train.metrics import MetricWriter, Progress, check_finite, read_metrics, to_floats
from umr_jax.train.step import Metrics
from umr_jax.types import Batch, EMState, Model, Report, Template, Topology
from umr_jax.viz.images import save_png
from umr_jax.viz.panels import part_map, training_panel
from umr_jax.viz.view_ring import view_ring

# Of the template's box, along x, y and z.
SIDES = ("length", "width", "height")
# At most this many images are averaged for cameras.png.
_RING_IMAGES = 2000
# The metrics of a log line; all of them are in metrics.jsonl.
_HEADLINE = ("loss/total", "mask_iou", "loss/texture", "camera_confidence", "grad_norm")


class Monitor:
  """Collects a run's metrics and images, and notices signals that ask it to stop.

  Metrics stay on the device until a line is due, so that no step waits for the host; each step's
  are checked then, and always before a checkpoint is written.

  Args:
    config: of the run.
    workdir: where everything is written.
    panel_images: the images of the panels, one batch.
    truth: the true shapes, where the data set has them.
  """

  def __init__(
    self,
    config: Config,
    workdir: pathlib.Path,
    panel_images: Batch,
    truth: TemplateTruth | None = None,
  ):
    self.stopping = False
    self._truth = truth
    self._config, self._workdir, self._panel_images = config, workdir, panel_images
    self._template_change = 0.0
    self._pending: collections.deque[tuple[int, Metrics]] = collections.deque()
    self._step = 0
    self._writer: MetricWriter | None = None
    self._progress: Progress | None = None

  def resumed(self, step: int) -> None:
    """The run resumes from a checkpoint: later lines of an interrupted run are dropped."""
    self._step = step
    if jax.process_index() == 0:
      self._open(resumed_step=step)

  def record(self, metrics: Metrics) -> bool:
    """Takes one step's metrics; True asks the E-step to stop."""
    self._step += 1
    self._pending.append((self._step, metrics))
    if self._step % self._config.log.every == 0:
      self.flush()
    return self.stopping

  def flush(self) -> None:
    """Checks and writes what has been recorded since the last time.

    Raises:
      NonFiniteError: naming the first metric that is not finite, and its step.
    """
    if not self._pending:
      return
    lines = []
    while self._pending:
      step, metrics = self._pending.popleft()
      values = to_floats(jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, metrics))
      check_finite(values, step)
      lines.append(values)
    if jax.process_index() != 0:
      return
    means = {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}
    writer, progress = self._open()
    writer.write(step, means, log=False)
    logging.info("step %d  %s", step, "  ".join(f"{name} {means[name]:.4g}" for name in _HEADLINE))
    progress.update(len(lines), loss=means["loss/total"])

  def panel(self, step: int, infer: Infer, model: Model) -> None:
    """Writes panels/STEP.png: some images, their reconstructions, and the template.

    Args:
      step: of the run; the file's name.
      infer: jitted.
      model: as it is at this step.
    """
    if jax.process_index() != 0:
      return
    inferred = infer(model, self._panel_images.image)
    panel = training_panel(
      images=self._panel_images.image,
      masks=self._panel_images.mask,
      vertices=np.asarray(inferred.vertices),
      cameras=np.asarray(inferred.camera),
      flow_maps=np.asarray(inferred.flow_map),
      template=_vertices(model.template, model.topology),
      topology=model.topology,
    )
    save_png(self._workdir / "panels" / f"{step:06d}.png", panel)
    self._open()[0].image(step, "panel", panel)

  def cameras_found(self, em_state: EMState, split: Split, topology: Topology) -> None:
    """Writes cameras.png: mean images by azimuth under the target cameras, and the template.

    What the images do not tell about the shape is logged, and written to cameras.json.

    Args:
      em_state: with a target camera for every training image.
      split: the training images.
      topology: of the template.
    """
    if jax.process_index() != 0 or em_state.target_cameras is None:
      return
    shown = every_nth(len(split), _RING_IMAGES)
    ring = view_ring(
      framed_objects(split[shown], padding=self._config.data.padding),
      em_state.target_cameras[shown],
      _vertices(em_state.template, topology),
      topology,
    )
    save_png(self._workdir / "cameras.png", ring)
    untold = untold_dimensions(em_state.target_cameras)
    for sentence in untold:
      logging.warning(sentence)
    write_text(self._workdir / "cameras.json", json.dumps({"untold": untold}, indent=2) + "\n")

  def template_updated(
    self, step: int, em_state: EMState, topology: Topology, *, mean_offset: np.ndarray
  ) -> None:
    """Writes the template's size to metrics.jsonl, and where there is truth its overlap with it.

    It must not drift away from the cameras' scale, nor get worse.

    Args:
      step: of the run.
      em_state: after an M-step, or the initial one.
      topology: of its mesh.
      mean_offset: [Vh, 3] by which the M-step moved it.
    """
    self._template_change = float(np.linalg.norm(mean_offset, axis=-1).mean())
    if jax.process_index() != 0:
      return
    vertices, cameras = _vertices(em_state.template, topology), em_state.target_cameras
    sides = np.ptp(vertices, axis=0)
    size = {f"template/{name}": side for name, side in zip(SIDES, sides, strict=True)}
    volume = trimesh.Trimesh(vertices, topology.outward_faces, process=False).volume
    moved = {"template/volume": volume, "template/moved": self._template_change}
    if self._truth is not None and cameras is not None:
      moved["template/iou_3d"] = self._truth.iou(vertices, np.asarray(topology.faces), cameras)
    self._open()[0].write(step, {**size, **moved}, log=False)

  def end_round(
    self, index: int, em_state: EMState, topology: Topology, *, steps: tuple[int, int]
  ) -> None:
    """Writes rounds/R: the template, any canonical UV map, and objective.json.

    The objective is the mean over the last tenth of the round's steps; the template's change is the
    mean distance by which its last M-step moved the vertices.

    Args:
      index: of the round.
      em_state: after its M-step.
      topology: of its mesh.
      steps: (first, past the last) of the round.
    """
    if jax.process_index() != 0:
      return
    folder = self._workdir / "rounds" / str(index)
    folder.mkdir(parents=True, exist_ok=True)
    template = _vertices(em_state.template, topology)
    export.export_template(folder / "template.glb", template, topology)
    if em_state.canonical_uv is not None:
      image = part_map(np.asarray(em_state.canonical_uv))
      save_png(folder / "canonical_uv.png", image)
      self._open()[0].image(steps[1], "canonical_uv", image)
    found = _objective(read_metrics(self._workdir), steps)
    if found:
      found["template_change"] = self._template_change
      write_text(folder / "objective.json", json.dumps(found, indent=2) + "\n")
      logging.info(
        "Round %d ended with an objective of %.4g; its M-step moved the template by %.3g.",
        index,
        found["loss/total"],
        self._template_change,
      )

  def close(self) -> None:
    """Closes the files and the progress bar."""
    for part in (self._writer, self._progress):
      if part is not None:
        part.close()

  def __enter__(self) -> "Monitor":
    # SIGTERM is how a scheduler asks for the machine back, SIGINT how a person does.
    self._handlers = {}
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._handlers[number] = signal.signal(number, self._stop)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self.close()

  def _stop(self, number: int, _: object) -> None:
    if self.stopping:  # Asked twice: at once, without saving.
      raise KeyboardInterrupt
    logging.info("%s: finishing this step, saving, stopping.", signal.Signals(number).name)
    self.stopping = True

  def _open(self, resumed_step: int | None = None) -> tuple[MetricWriter, Progress]:
    if self._writer is None or self._progress is None:
      self._writer = MetricWriter(
        self._workdir,
        tensorboard=self._config.log.tensorboard,
        # A new run in this folder drops what an earlier one without a checkpoint left.
        resumed_step=resumed_step or 0,
      )
      self._progress = Progress(
        total=self._config.train.steps,
        start=self._step if resumed_step is None else resumed_step,
        batch_size=self._config.train.batch_size,
      )
    return self._writer, self._progress


def read_objectives(workdir: pathlib.Path) -> list[Report]:
  """The contents of objective.json of each finished round of a run, in order."""
  files = sorted((workdir / "rounds").glob("*/objective.json"), key=lambda f: int(f.parent.name))
  return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def read_template_sizes(workdir: pathlib.Path) -> list[Report]:
  """What `Monitor.template_updated` wrote, in order: "step" and "template/NAME" of each."""
  return [line for line in read_metrics(workdir) if "template/volume" in line]


def _vertices(template: Template, topology: Topology) -> np.ndarray:
  half = jax.numpy.asarray(template.half_vertices)
  return np.asarray(symmetrize(half, num_center=topology.num_center))


def _objective(lines: list[dict[str, Any]], steps: tuple[int, int]) -> dict[str, Any]:
  """The mean of the total and of its weighted terms over the last tenth of a round, or nothing."""
  start, stop = steps
  within = [line for line in lines if start < line["step"] <= stop and "loss/total" in line]
  late = [line for line in within if line["step"] > stop - (stop - start) / 10] or within[-1:]
  if not late:
    return {}
  names = [n for n in late[-1] if n in ("loss/total", "mask_iou") or n.startswith("weighted/")]
  means = {n: float(np.mean([line[n] for line in late if line.get(n) is not None])) for n in names}
  return {"steps": [late[0]["step"], late[-1]["step"]], **means}
