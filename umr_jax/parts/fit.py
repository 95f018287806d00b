"""Training of the part network."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Float

from umr_jax.config.settings import PartsConfig, PartWeights
from umr_jax.models.frozen import frozen_efficientnet, published_file
from umr_jax.models.initialize import initialize
from umr_jax.models.pretrained import read_torch_file, weight_file
from umr_jax.parts.crops import part_batches
from umr_jax.parts.losses import PartBatch, part_objective
from umr_jax.parts.network import RESNET50_FILES, STRIDE, PartNet, resnet50_variables
from umr_jax.parts.warp import WarpRanges
from umr_jax.types import Variables, checked, host

# Of the global norm of the gradients: the published one.
_CLIP = 5.0
# The parts' features are learned this many times faster than the network.
_BASIS_RATE = 10.0
# Steps between two readings of the losses: each waits for the device.
_RECORD_EVERY = 25

Record = Callable[[int, dict[str, float]], None]


class FitResult(NamedTuple):
  """A trained part network."""

  net: PartNet
  variables: Variables  # params; batch_stats with BatchNorm; frozen weights; basis with features


@checked
def fit_parts(
  images: Float[np.ndarray, "N S S 3"],
  masks: Float[np.ndarray, "N S S"],
  *,
  targets: Float[np.ndarray, "N h w P1"] | None,
  features: Float[np.ndarray, "N f f C"] | None,
  num_parts: int,
  settings: PartsConfig,
  weights: PartWeights | None = None,
  record: Record | None = None,
) -> FitResult:
  """Trains a network that segments images of one category into the same parts.

  Args:
    images: RGB in [0, 1]; S is a multiple of 4.
    masks: of the objects, in [0, 1].
    targets: soft part maps, background first and of any size; all zeros for an image without, and
      None where the losses of SCOPS are to find the parts.
    features: of a frozen network, for the semantic loss.
    num_parts: without the background.
    settings: the network and the steps.
    weights: of the losses, in place of those of the settings.
    record: is given the step and the unweighted losses, every 25 steps and at the last.

  Returns:
    The network and its variables, on the host. The same seed gives the same result.

  Raises:
    ValueError: for inputs that do not go together, for a weight without what it weighs, and where
      the loss is not finite.

  Source: Hung et al. 2019 (SCOPS), section 3; Li et al. 2020, supplementary 1. Departs: Adam with
    a cosine schedule in place of SGD with a polynomial one.
  """
  weights = settings.weights if weights is None else weights
  targets = targets if weights.supervision else None
  _check(images, targets, features, num_parts=num_parts, settings=settings, weights=weights)
  net = make_net(settings, num_parts=num_parts)
  variables = init_variables(net, settings, image_size=images.shape[1], features=features)
  frozen = _published(settings)
  optimizer = _make_optimizer(settings, frozen=frozen)
  step = _make_step(net, optimizer, weights, WarpRanges(), frozen=frozen)
  trained, batch_stats = _split(variables)
  held = jax.tree.map(jnp.asarray, variables["frozen"])
  opt_state = optimizer.init(trained)
  key = jax.random.key(settings.seed)
  batches = part_batches(images, masks, targets, features, settings=settings)
  for number in range(settings.steps):
    batch = next(batches)
    trained, batch_stats, opt_state, losses = step(
      trained, batch_stats, opt_state, batch, jax.random.fold_in(key, number), held
    )
    if (number + 1) % _RECORD_EVERY == 0 or number + 1 == settings.steps:
      values = {name: float(value) for name, value in losses.items()}
      _check_finite(values, step=number + 1)
      if record is not None:
        record(number + 1, values)
  return FitResult(net, host(trained | {"batch_stats": batch_stats, "frozen": held}))


def make_net(settings: PartsConfig, *, num_parts: int) -> PartNet:
  """The network that settings name; published weights need the normalization of their own.

  Args:
    settings: its kind, width and weights.
    num_parts: without the background.
  """
  norm = "batch" if _published(settings) else "group"
  return PartNet(num_parts=num_parts, kind=settings.net, width=settings.net_width, norm=norm)


def init_variables(
  net: PartNet,
  settings: PartsConfig,
  *,
  image_size: int,
  features: np.ndarray | None,
) -> Variables:
  """Initial variables: published weights, or random ones.

  Args:
    net: the network.
    settings: name the weight file and the seed.
    image_size: of the crops.
    features: of the semantic loss, whose basis is initialized where there are any.
  """
  params, stats = initialize(net, image_size=image_size, seed=settings.seed)
  file = net_weight_file(settings)
  held: Variables = {}
  if file is not None and settings.net == "efficientnet":
    held = frozen_efficientnet(file, path=("frozen",))
  elif file is not None:
    params, stats = resnet50_variables(read_torch_file(file), params, stats)
  variables = {"params": params, "batch_stats": stats, "frozen": held}
  if features is not None:
    rng = np.random.default_rng((settings.seed, 1))
    basis = np.abs(rng.standard_normal((net.num_parts, features.shape[-1]), np.float32))
    variables["basis"] = {"parts": basis}
  return variables


def net_weight_file(settings: PartsConfig) -> pathlib.Path | None:
  """The file of the weights that the network starts from; None where it starts from random ones.

  Raises:
    FileNotFoundError: where it is not there.
  """
  if settings.net == "efficientnet":
    return published_file(
      settings.net_weights,
      asked="parts.net=efficientnet",
      setting="parts.net_weights",
      otherwise="set parts.net=small, which needs none",
    )
  if _published(settings):
    return weight_file(settings.net_weights, obtain=RESNET50_FILES)
  return None


def _published(settings: PartsConfig) -> bool:
  """Whether training starts from the published ResNet-50, whose normalization then stays."""
  return settings.net == "resnet50" and settings.net_weights != "none"


def _make_step(
  net: PartNet,
  optimizer: optax.GradientTransformation,
  weights: PartWeights,
  ranges: WarpRanges,
  *,
  frozen: bool,
) -> Callable[..., Any]:
  """One update, compiled; `frozen` is whether BatchNorm keeps its statistics."""

  def loss_fn(trained: Any, batch_stats: Any, batch: PartBatch, key: Array, held: Any) -> Any:
    def predict(images: Array) -> tuple[Array, Any]:
      variables = {"params": trained["params"], "batch_stats": batch_stats, "frozen": held}
      if frozen:
        fixed: Any = net.apply(variables, images, train=False)
        return fixed, batch_stats
      logits, updates = net.apply(variables, images, train=True, mutable=["batch_stats"])
      return logits, updates.get("batch_stats", {})

    basis = trained["basis"]["parts"] if "basis" in trained else None
    return part_objective(predict, batch, basis, key, weights=weights, ranges=ranges)

  @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
  def step(
    trained: Any, batch_stats: Any, opt_state: Any, batch: PartBatch, key: Array, held: Any
  ) -> Any:
    grads, (losses, new_stats) = jax.grad(loss_fn, has_aux=True)(
      trained, batch_stats, batch, key, held
    )
    updates, new_opt_state = optimizer.update(grads, opt_state, trained)
    return optax.apply_updates(trained, updates), new_stats, new_opt_state, losses

  return step


def _make_optimizer(settings: PartsConfig, *, frozen: bool) -> optax.GradientTransformation:
  """Adam, faster for the parts' features, and not at all for a frozen BatchNorm."""
  schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps, alpha=0.01)

  def kind(path: tuple[Any, ...]) -> str:
    if path[0] == "basis":
      return "basis"
    return "frozen" if frozen and path[-1] in ("scale", "bias") and "bn" in path[-2] else "net"

  kinds = {
    "net": optax.adam(schedule),
    "basis": optax.adam(lambda count: _BASIS_RATE * schedule(count)),
    "frozen": optax.set_to_zero(),
  }
  labels = functools.partial(traverse_util.path_aware_map, lambda path, _: kind(path))
  return optax.chain(optax.clip_by_global_norm(_CLIP), optax.multi_transform(kinds, labels))


def _split(variables: Any) -> tuple[dict[str, Any], Any]:
  """What gradients change, and BatchNorm's statistics; copies, since a step reuses their memory."""
  trained = {name: variables[name] for name in ("params", "basis") if name in variables}
  return jax.tree.map(jnp.array, (trained, variables.get("batch_stats", {})))


def _check(
  images: np.ndarray,
  targets: np.ndarray | None,
  features: np.ndarray | None,
  *,
  num_parts: int,
  settings: PartsConfig,
  weights: PartWeights,
) -> None:
  """Refuses inputs that do not go together."""
  if not len(images) or images.shape[1] % STRIDE:
    raise ValueError(f"found images {images.shape}; expected some, of a size divisible by {STRIDE}")
  if targets is not None and targets.shape[-1] != num_parts + 1:
    raise ValueError(f"found targets {targets.shape}; expected {num_parts + 1} channels")
  if weights.semantic and features is None:
    raise ValueError("the semantic loss has a weight, but there are no features; give some")
  if targets is None and not weights.semantic:
    raise ValueError(
      "nothing defines what a part is: give targets and a weight of supervision, or features and a "
      "weight of the semantic loss"
    )
  if settings.net_weights != "none" and settings.net == "small":
    raise ValueError("parts.net=small has no published weights: set parts.net_weights=none")


def _check_finite(values: dict[str, float], *, step: int) -> None:
  if not all(np.isfinite(list(values.values()))):
    listed = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    raise ValueError(
      f"the part network's loss is not finite by step {step} ({listed}). Look for inputs that are "
      "not, or lower parts.learning_rate"
    )
