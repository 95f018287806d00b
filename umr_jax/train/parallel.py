"""Training and evaluation over devices and hosts: the only file that names `pmap`.

A step gets its own share of the batch, computes the gradient of its *local* loss, and then averages
the gradient with `mean_over_devices`. The other order, the gradient of an averaged loss, is
silently wrong under `pmap`: it gives one device's gradient.

State that every device holds is replicated: each array carries a leading device axis. A batch is
sharded: [B, ...] becomes [D, B / D, ...] over the D devices of this host. With several hosts every
host passes its own rows and its own devices' axis; `mean_over_devices` spans all of them.
"""

import os
import zlib
from typing import Any, Literal, cast

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from umr_jax.checking import Function
from umr_jax.types import Tree

# How a step is run on all devices.
Transform = Literal["pmap", "shard_map"]

# The name under which a step function reduces over devices.
AXIS = "devices"

_COORDINATOR = "JAX_COORDINATOR_ADDRESS"
_PROCESSES = "JAX_NUM_PROCESSES"
_PROCESS = "JAX_PROCESS_ID"


def initialize_hosts() -> tuple[int, int]:
  """Joins the other hosts of a run, if the environment names any.

  Call it before anything else touches a device. JAX_COORDINATOR_ADDRESS is host:port of process 0,
  JAX_NUM_PROCESSES the number of processes and JAX_PROCESS_ID this one's number from 0. Without any
  of the three, the process stays alone and nothing happens.

  Returns:
    This process's number and the number of processes: (0, 1) when alone. It is the `shard` that
    `data.batching.train_batch` takes.

  Raises:
    ValueError: if only some of the variables are set, or one is malformed.
  """
  environment = os.environ
  names = (_COORDINATOR, _PROCESSES, _PROCESS)
  missing = [name for name in names if not environment.get(name)]
  if len(missing) == len(names):
    return 0, 1
  if missing:
    found = [name for name in names if name not in missing]
    raise ValueError(
      f"found {', '.join(found)} but not {', '.join(missing)}: set all three to run on several "
      "hosts, or none to run on one."
    )
  try:
    count, index = int(environment[_PROCESSES]), int(environment[_PROCESS])
  except ValueError as error:
    raise ValueError(
      f"{_PROCESSES}={environment[_PROCESSES]!r} and {_PROCESS}={environment[_PROCESS]!r}: "
      "expected two whole numbers."
    ) from error
  if not 0 <= index < count:
    raise ValueError(
      f"{_PROCESS}={index} with {_PROCESSES}={count}: number the processes from 0 to {count - 1}."
    )
  if count > 1:
    jax.distributed.initialize(environment[_COORDINATOR], num_processes=count, process_id=index)
    logging.info("Process %d of %d, coordinated by %s", index, count, environment[_COORDINATOR])
  return index, count


def wait_for_hosts(name: str) -> None:
  """Waits until every host has come to the point of this name; with one host, for nothing."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def local_batch_size(batch_size: int) -> int:
  """The rows of a global batch that fall to this host.

  Warns where a device gets one image: each device's BatchNorm takes statistics of its own images,
  and of a single one they hide what tells images apart.

  Args:
    batch_size: the rows of the batch over all hosts.

  Raises:
    ValueError: if the batch does not divide over all devices of all hosts.
  """
  devices = jax.device_count()
  if batch_size <= 0 or batch_size % devices:
    raise ValueError(
      f"train.batch_size is {batch_size}, but it is shared among {devices} devices: set it to a "
      f"multiple of {devices}, for example {max(1, round(batch_size / devices)) * devices}."
    )
  if devices > 1 and batch_size == devices:
    logging.warning(
      "train.batch_size %d gives each of %d devices one image, and BatchNorm nothing to compare it "
      "with: training may fail. Use at least %d.",
      batch_size,
      devices,
      2 * devices,
    )
  return batch_size // jax.process_count()


def _device_sharding() -> jax.sharding.NamedSharding:
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))


def replicate(tree: Tree) -> Tree:
  """Puts a copy of every array on each device of this host, along a new leading axis."""
  sharding = _device_sharding()
  count = jax.local_device_count()

  def spread(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jax.device_put(np.broadcast_to(array, (count, *array.shape)), sharding)

  return jax.tree.map(spread, tree)


def _first(leaf: jax.Array) -> np.ndarray:
  """What the first local device holds of a replicated array, without its device axis."""
  return np.asarray(leaf.addressable_shards[0].data)[0, ...]


def unreplicate(tree: Tree) -> Tree:
  """The first device's copy of a replicated pytree, on the host as NumPy arrays."""
  return jax.tree.map(_first, tree)


def shard_batch(batch: Tree) -> Tree:
  """Splits a host batch among this host's devices: [B, ...] becomes [D, B / D, ...].

  Args:
    batch: a pytree of arrays with one common leading length. NumPy arrays stay on the host.

  Raises:
    ValueError: if the leading lengths disagree or do not divide over the devices.
  """
  count = jax.local_device_count()
  sizes = {
    jax.tree_util.keystr(path): np.shape(leaf)[0] if np.ndim(leaf) else None
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
  }
  if len(set(sizes.values())) != 1 or None in sizes.values():
    raise ValueError(f"found a batch with leading lengths {sizes}; expected one common length.")
  size = next(iter(sizes.values()))
  if not size or size % count:
    raise ValueError(
      f"found a batch of {size} rows for {count} devices: expected a multiple of {count}. Change "
      "the batch size, or pad the batch with rows that are marked as not valid."
    )
  return jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), batch)


def unshard(tree: Tree) -> Tree:
  """Undoes `shard_batch` on a step's results: [D, B / D, ...] becomes a host array [B, ...]."""

  def join(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.reshape(-1, *array.shape[2:])

  return jax.tree.map(join, tree)


def gather_rows(tree: Tree) -> Tree:
  """Every host's rows of a host pytree, on every host: [B / hosts, ...] becomes [B, ...].

  All hosts must call it with rows of the same shapes.
  """
  if jax.process_count() == 1:
    return tree
  return multihost_utils.process_allgather(tree, tiled=True)


def broadcast_from_host0(tree: Tree) -> Tree:
  """The first host's arrays, on every host. All hosts must call it with the same shapes."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def parallel_step(function: Function, *, donate: bool, transform: Transform = "pmap") -> Function:
  """Runs one training step on every device.

  Args:
    function: `function(train_state, em_state, batch, key) -> (train_state, metrics)` for one
      device's rows. It averages gradients and metrics with `mean_over_devices`.
    donate: True lets the new train state take the old one's memory; the caller must then not touch
      the old one again.
    transform: "pmap", or "shard_map" for the same by jit and shard_map, on one host alone.

  Returns:
    The same function of a replicated train state, a replicated EM state, a sharded batch and one
    key, which every device receives: rows sample their randomness under their global index. Results
    are replicated.

  Raises:
    ValueError: for shard_map on several hosts.
  """
  donated = (0,) if donate else ()
  if transform == "pmap":
    mapped = jax.pmap(function, axis_name=AXIS, in_axes=(0, 0, 0, None), donate_argnums=donated)
    return cast(Function, mapped)
  if jax.process_count() > 1:
    raise ValueError(f"transform {transform!r} runs on one host; found {jax.process_count()}.")

  def on_block(train_state: Any, em_state: Any, batch: Any, key: jax.Array) -> Any:
    # A block keeps the device axis, of length one; pmap takes it away.
    blocks = jax.tree.map(lambda leaf: leaf[0], (train_state, em_state, batch))
    return jax.tree.map(lambda leaf: leaf[None], function(*blocks, key))

  devices, everywhere = jax.sharding.PartitionSpec(AXIS), jax.sharding.PartitionSpec()
  sharded = jax.shard_map(
    on_block,
    mesh=_device_sharding().mesh,
    in_specs=(devices, devices, devices, everywhere),
    out_specs=devices,
    # As under pmap, a gradient is that of the device's own loss.
    check_vma=False,
  )
  return cast(Function, jax.jit(sharded, donate_argnums=donated))


def pmap_map(function: Function) -> Function:
  """Runs a function of replicated state and a sharded batch on every device.

  Args:
    function: takes positional arrays or pytrees as one device has them, for example
      `infer(params, batch_stats, template, images)`.

  Returns:
    The same function with a leading device axis on every argument and result: `replicate` the state
    and `shard_batch` the batch before, `unshard` (or `unreplicate`, after a reduction) afterwards.
  """
  return cast(Function, jax.pmap(function, axis_name=AXIS))


def keyed_map(function: Function) -> Function:
  """`pmap_map` for a function of replicated state, a sharded batch, and one key for all devices."""
  return cast(Function, jax.pmap(function, axis_name=AXIS, in_axes=(0, 0, None)))


def mean_over_devices(tree: Tree) -> Tree:
  """Mean over all devices of all hosts, inside functions of `parallel_step` and `pmap_map`."""
  return jax.lax.pmean(tree, AXIS)


def assert_replicated(tree: object) -> None:
  """Checks that every device of every host holds the same bits of a replicated pytree.

  Replicas that drift apart keep training without any other sign. Call it where a checkpoint is
  saved, on all hosts.

  Raises:
    RuntimeError: naming the first array that differs and the devices or hosts that disagree.
  """
  if jax.device_count() == 1:
    return
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  checksums = []
  for path, leaf in leaves:
    shards = [(shard.device, _crc(shard.data)) for shard in leaf.addressable_shards]
    differing = [str(device) for device, crc in shards if crc != shards[0][1]]
    if differing:
      raise RuntimeError(
        f"{jax.tree_util.keystr(path)} is not the same on {shards[0][0]} and on "
        f"{', '.join(differing)}: expected replicas. A step that changes state must reduce over "
        "devices first."
      )
    checksums.append(shards[0][1])
  if jax.process_count() == 1:
    return
  every = np.asarray(multihost_utils.process_allgather(np.array(checksums, dtype=np.uint32)))
  for (path, _), column in zip(leaves, every.T, strict=True):
    if (column != column[0]).any():
      hosts = np.flatnonzero(column != column[0]).tolist()
      raise RuntimeError(
        f"{jax.tree_util.keystr(path)} is not the same on host 0 and on hosts {hosts}: expected "
        "replicas. All hosts must start from the same state and receive the same key."
      )


def _crc(array: jax.Array) -> int:
  return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
