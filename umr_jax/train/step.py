"""One gradient step, as a pure function of state and batch; `parallel` shards it over devices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from umr_jax.losses.objective import total_loss
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.discriminator import make_discriminator
from umr_jax.models.frozen import COLLECTION, FrozenEfficientNet
from umr_jax.models.umr_net import UMRNet
from umr_jax.random import per_image_keys
from umr_jax.train import parallel
from umr_jax.train.augment import UNCHANGED, Strengths, augmented
from umr_jax.types import Batch, EMState, TrainState, Variables

Metrics = dict[str, Float[Array, ""]]
Encode = Callable[[Variables, Batch, PRNGKeyArray], Batch]
TrainStep = Callable[[TrainState, EMState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]


def new_train_state(
  params: Variables,
  batch_stats: Variables,
  optimizer: optax.GradientTransformation,
  *,
  step: int,
  frozen: Variables | None = None,
  discriminator: Variables | None = None,
) -> TrainState:
  """The state of an untrained network, at a step of the run.

  Args:
    params: the network's initial parameters.
    batch_stats: its initial batch statistics.
    optimizer: of its parameters and the discriminator's.
    step: gradient steps that the run has taken so far.
    frozen: weights that are not trained, if the network has any.
    discriminator: the initial parameters of a discriminator, if there is one.
  """
  return TrainState(
    step=jnp.int32(step),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(_trained(params, discriminator or {})),
    discriminator=discriminator or {},
    frozen=frozen or {},
  )


def _trained(params: Any, discriminator: Any) -> Any:
  """Everything that the optimizer updates."""
  return (params, discriminator) if discriminator else params


def latent_noise(index: Array, key: PRNGKeyArray, *, size: int) -> Float[Array, "B Z"]:
  """Standard normal noise for each image under its own key: it does not depend on the device count.

  Args:
    index: of each image in its split.
    key: of the step, and of this noise.
    size: numbers for each image.
  """
  keys = per_image_keys(key, index)
  return jax.vmap(lambda k: jax.random.normal(k, (size,)))(keys)


def _make_loss(
  net: UMRNet,
  *,
  objective: ObjectiveSpec,
  augment: Strengths,
) -> Callable[..., tuple[Float[Array, ""], tuple[Metrics, Any]]]:
  """The objective of one device's rows, with its metrics and the new batch statistics."""

  def loss_fn(
    trained: Any, train_state: TrainState, em_state: EMState, batch: Batch, key: PRNGKeyArray
  ) -> tuple[Float[Array, ""], tuple[Metrics, Any]]:
    params, discriminator = trained if train_state.discriminator else (trained, {})
    latent_key, camera_key, augment_key = _sample_keys(key)
    images = batch.image
    if batch.encoded is None:
      batch, images = augmented(batch, augment_key, augment)
    noise = latent_noise(batch.index, latent_key, size=net.code_size) if net.sample_code else None
    prediction, updates = net.apply(
      {"params": params, **train_state.collections},
      images,
      train=True,
      noise=noise,
      encoded=batch.encoded,
      mutable=["batch_stats"],
    )
    total, metrics = total_loss(
      prediction,
      em_state,
      batch,
      camera_key,
      round_step=train_state.step - em_state.round_start,
      spec=objective,
      discriminator=make_discriminator(discriminator) if discriminator else None,
    )
    return total, (metrics, updates.get("batch_stats", {}))

  return loss_fn


def _sample_keys(key: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray, PRNGKeyArray]:
  """Of a step's key: for the shape's code, for cameras, and for augmentation."""
  latent_key, camera_key, augment_key = jax.random.split(key, 3)
  return latent_key, camera_key, augment_key


def make_encode(augment: Strengths) -> Encode:
  """What a step does to its images before the part of the network that learns.

  Args:
    augment: as the training step has it.

  Returns:
    `encode(frozen, batch, key) -> batch`: augmented, and with the maps of the frozen encoder, whose
    weights are the collection `frozen`; with it a training step does not augment. `key` is the
    step's, folded with its number.
  """

  def encode(frozen: Variables, batch: Batch, key: PRNGKeyArray) -> Batch:
    batch, images = augmented(batch, _sample_keys(key)[2], augment)
    maps = FrozenEfficientNet().apply({COLLECTION: frozen["encoder"]["frozen"]}, images)
    return dataclasses.replace(batch, encoded=maps)

  return encode


def make_train_step(
  net: UMRNet,
  optimizer: optax.GradientTransformation,
  *,
  objective: ObjectiveSpec,
  augment: Strengths = UNCHANGED,
) -> TrainStep:
  """The training step of one network.

  Args:
    net: the network.
    optimizer: what turns gradients into updates.
    objective: of the training.
    augment: how much the images change from step to step.

  Returns:
    `train_step(train_state, em_state, batch, key) -> (train_state, metrics)`. `batch` is one
    device's share; gradients, BatchNorm statistics and metrics are averaged over the devices. The
    step's randomness is `key` folded with the step, and with each image's index.
  """
  loss_fn = _make_loss(net, objective=objective, augment=augment)

  def train_step(
    train_state: TrainState, em_state: EMState, batch: Batch, key: PRNGKeyArray
  ) -> tuple[TrainState, Metrics]:
    step_key = jax.random.fold_in(key, train_state.step)
    trained = _trained(train_state.params, train_state.discriminator)
    # The gradient of the device's own loss, then the mean: differentiating a mean over devices
    # gives one device's gradient (ours to avoid; pmap does not warn).
    (_, (metrics, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      trained, train_state, em_state, batch, step_key
    )
    grads, metrics, batch_stats = parallel.mean_over_devices((grads, metrics, batch_stats))
    updates, opt_state = optimizer.update(grads, train_state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    params, discriminator = trained if train_state.discriminator else (trained, {})
    metrics["grad_norm"] = optax.global_norm(grads)
    new_state = dataclasses.replace(
      train_state,
      step=train_state.step + 1,
      params=params,
      batch_stats=batch_stats,
      opt_state=opt_state,
      discriminator=discriminator,
    )
    return new_state, metrics

  return train_step
