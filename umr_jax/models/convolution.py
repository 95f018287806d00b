"""Convolution and pooling of maps, shaped for speed on a CPU as well as an accelerator."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from umr_jax.types import checked

# Up to this many output pixels a convolution is a matrix product; see `convolve`.
_SMALL_MAP = 16


@checked
def convolve(
  x: Float[Array, "B H W C"],
  kernel: Float[Array, "k k C D"],
  *,
  stride: int = 1,
  padding: int = 0,
  dilation: int = 1,
) -> Float[Array, "B Ho Wo D"]:
  """A convolution (as networks have it: a correlation) with zero padding.

  Args:
    x: maps.
    kernel: square kernels.
    stride: the same for rows and columns.
    padding: zeros on every side.
    dilation: pixels from one entry of the kernel to the next.

  Returns:
    Maps of size floor((size + 2 padding - dilation (k - 1) - 1) / stride) + 1.
  """
  size = kernel.shape[0]
  reach = dilation * (size - 1) + 1
  height, width = ((n + 2 * padding - reach) // stride + 1 for n in x.shape[1:3])
  if size > 1 and height * width > _SMALL_MAP:
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      [(padding, padding)] * 2,
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  # On tiny maps XLA for CPUs falls back to a loop that is a hundred times slower: forward where the
  # kernel is larger than the map, backward where a strided result is that small. The patches of
  # such a map are few, so that a matrix product costs little memory and is never slower.
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
  starts = range(0, reach, dilation)
  patches = [x[:, i : i + rows : stride, j : j + columns : stride] for i in starts for j in starts]
  return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


@checked
def depthwise_convolve(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k C"], *, stride: int = 1
) -> Float[Array, "B h w C"]:
  """A convolution of every channel by itself, with "same" padding as TensorFlow has it.

  As a sum of shifted and scaled copies: XLA for CPUs has no fast convolution with groups.

  Args:
    x: maps.
    kernel: one square kernel for each channel.
    stride: the same for rows and columns.

  Returns:
    Maps of size ceil(size / stride).
  """
  size = kernel.shape[0]
  height, width = (-(-n // stride) for n in x.shape[1:3])
  x = jnp.pad(x, ((0, 0), *(_same_padding(n, size, stride) for n in x.shape[1:3]), (0, 0)))
  rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
  total = jnp.zeros((x.shape[0], height, width, x.shape[-1]), x.dtype)
  for i in range(size):
    for j in range(size):
      shifted = x[:, i : i + rows : stride, j : j + columns : stride]
      total += shifted * kernel[i, j].reshape(1, 1, 1, -1)
  return total


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
  """TensorFlow's "same" padding: the odd zero comes last."""
  total = max((-(-length // stride) - 1) * stride + size - length, 0)
  return total // 2, total - total // 2


@checked
def max_pool(x: Float[Array, "B H W C"], *, padding: int = 0) -> Float[Array, "B h w C"]:
  """The largest of each 3 x 3 neighbourhood, at every second pixel.

  As the maximum of shifted copies: the gradient of a pooling operation is five times slower on a
  CPU.

  Args:
    x: maps without negative values, since their borders are padded with zeros.
    padding: zeros on every side.

  Returns:
    Maps of size floor((size + 2 padding - 3) / 2) + 1.
  """
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  rows, columns = ((n - 3) // 2 * 2 + 1 for n in x.shape[1:3])
  x = jnp.maximum(jnp.maximum(x[:, :rows:2], x[:, 1 : rows + 1 : 2]), x[:, 2 : rows + 2 : 2])
  return jnp.maximum(
    jnp.maximum(x[:, :, :columns:2], x[:, :, 1 : columns + 1 : 2]), x[:, :, 2 : columns + 2 : 2]
  )
