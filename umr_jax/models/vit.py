"""Vision transformers that were trained without labels: DINO and DINOv2."""

import math
import os
import re
from collections.abc import Mapping
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from umr_jax.models.encoder import IMAGENET_MEAN, IMAGENET_STD
from umr_jax.models.pretrained import convolution_kernel, read_torch_file
from umr_jax.types import checked

VIT_FILES = (
  "a backbone of DINO (https://github.com/facebookresearch/dino, such as "
  "dino_deitsmall8_pretrain.pth) or DINOv2 (https://github.com/facebookresearch/dinov2, such as "
  "dinov2_vits14_pretrain.pth)"
)
_HEAD_SIZE = 64
_EPSILON = 1e-6
# PyTorch's constant of cubic interpolation.
_CUBIC = -0.75

# A block's tensors and whether they are matrices, which PyTorch keeps transposed.
_TENSORS = {
  "norm1.weight": False,
  "norm1.bias": False,
  "attn.qkv.weight": True,
  "attn.qkv.bias": False,
  "attn.proj.weight": True,
  "attn.proj.bias": False,
  "norm2.weight": False,
  "norm2.bias": False,
  "mlp.fc1.weight": True,
  "mlp.fc1.bias": False,
  "mlp.fc2.weight": True,
  "mlp.fc2.bias": False,
}

Weights = Mapping[str, Array | np.ndarray]


class ViT(TypedDict):
  """The weights of a vision transformer."""

  patch: Weights  # kernel and bias
  position: Array | np.ndarray  # [rows, columns, D]
  prefix: Array | np.ndarray  # [N, D]: the class token and registers
  norm: Weights  # weight and bias
  blocks: Weights  # by PyTorch's names, of all blocks along a leading axis


def load_vit(path: str | os.PathLike[str]) -> ViT:
  """Reads a vision transformer; its sizes are those of the tensors.

  Args:
    path: a .pth or .safetensors file of a backbone with the names of DINO's official files.

  Raises:
    FileNotFoundError: where there is no such file; the message names its source.
    ValueError: for a file that does not hold such a network.
  """
  state = read_torch_file(
    path, obtain=VIT_FILES, otherwise="set the features to 'encoder', which need no file"
  )
  count = sum(re.fullmatch(r"blocks\.\d+\.norm1\.weight", name) is not None for name in state)
  try:
    if not count:
      raise KeyError("blocks.0.norm1.weight")
    blocks = {name: _stack(state, name, count, t) for name, t in _TENSORS.items()}
    width = state["cls_token"].shape[-1]
    for name in ("ls1.gamma", "ls2.gamma"):
      present = f"blocks.0.{name}" in state
      blocks[name] = (
        _stack(state, name, count, False) if present else np.ones((count, width), np.float32)
      )
    position = state["pos_embed"][0].astype(np.float32)
    side = math.isqrt(len(position) - 1)
    if side * side != len(position) - 1 or width % _HEAD_SIZE or position.shape[-1] != width:
      raise ValueError(
        f"{path} has {position.shape} positional embeddings for width {width}; expected one more "
        f"than a square number, and a multiple of {_HEAD_SIZE}. Give {VIT_FILES}"
      )
    prefix = [state["cls_token"][0] + position[:1]]
    if "register_tokens" in state:
      prefix.append(state["register_tokens"][0])
    return {
      "patch": {
        "kernel": convolution_kernel(state["patch_embed.proj.weight"]),
        "bias": state["patch_embed.proj.bias"].astype(np.float32),
      },
      "position": position[1:].reshape(side, side, width),
      "prefix": np.concatenate(prefix).astype(np.float32),
      "norm": {key: state[f"norm.{key}"].astype(np.float32) for key in ("weight", "bias")},
      "blocks": blocks,
    }
  except KeyError as error:
    raise ValueError(
      f"{path} has no tensor {error}; expected a vision transformer's. Give {VIT_FILES}"
    ) from error


def patch_size(params: ViT) -> int:
  """The side of the patches into which a network divides images."""
  return int(params["patch"]["kernel"].shape[0])


@checked
def vit_features(params: ViT, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w D"]:
  """The last layer's features of every patch of an image.

  Args:
    params: from `load_vit`.
    images: RGB in [0, 1]; sides are multiples of the patch size.

  Returns:
    One row of D features for each patch, after the last normalization.

  Raises:
    ValueError: for images that are not whole patches.

  Source: Dosovitskiy et al. 2021; Caron et al. 2021; Oquab et al. 2023; registers: Darcet et al.
  2023. Places between those of training are interpolated as PyTorch's bicubic mode does.
  """
  side = patch_size(params)
  count, height, width, _ = images.shape
  if height % side or width % side:
    raise ValueError(f"found images of {height} x {width}; expected multiples of {side}")
  height, width = height // side, width // side
  shift, scale = (
    jnp.asarray(value, images.dtype).reshape(1, 1, 1, 3) for value in (IMAGENET_MEAN, IMAGENET_STD)
  )
  patches = ((images - shift) / scale).reshape(count, height, side, width, side, 3)
  patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(count, height * width, -1)
  kernel = jnp.asarray(params["patch"]["kernel"])
  x = patches @ kernel.reshape(-1, kernel.shape[-1])
  x = x + jnp.asarray(params["patch"]["bias"]).reshape(1, 1, -1)
  rows, columns = (
    _cubic_weights(n, m) for n, m in zip(params["position"].shape[:2], (height, width), strict=True)
  )
  position = jnp.einsum("ih,jw,hwd->ijd", rows, columns, jnp.asarray(params["position"]))
  x = x + position.reshape(1, height * width, -1)
  prefix = jnp.asarray(params["prefix"])[None]
  x = jnp.concatenate([jnp.broadcast_to(prefix, (count, *prefix.shape[1:])), x], axis=1)
  x, _ = lax.scan(_block, x, jax.tree.map(jnp.asarray, dict(params["blocks"])))
  norm = params["norm"]
  x = _layer_norm(x, jnp.asarray(norm["weight"]), jnp.asarray(norm["bias"]))
  return x[:, prefix.shape[1] :].reshape(count, height, width, -1)


def _block(x: Array, layer: Mapping[str, Array]) -> tuple[Array, None]:
  """One block; with the signature that `lax.scan` expects."""
  y = _layer_norm(x, layer["norm1.weight"], layer["norm1.bias"])
  y = _row(y @ layer["attn.qkv.weight"], layer["attn.qkv.bias"])
  y = _row(_attention(y) @ layer["attn.proj.weight"], layer["attn.proj.bias"])
  x = x + y * layer["ls1.gamma"].reshape(1, 1, -1)
  y = _layer_norm(x, layer["norm2.weight"], layer["norm2.bias"])
  y = jax.nn.gelu(_row(y @ layer["mlp.fc1.weight"], layer["mlp.fc1.bias"]), approximate=False)
  y = _row(y @ layer["mlp.fc2.weight"], layer["mlp.fc2.bias"])
  return x + y * layer["ls2.gamma"].reshape(1, 1, -1), None


def _attention(qkv: Array) -> Array:
  """Self-attention, one head after another: fine maps have too many pairs for all at once."""
  count, tokens, _ = qkv.shape
  # [3, head, image, token, channel]
  split = qkv.reshape(count, tokens, 3, -1, _HEAD_SIZE).transpose(2, 3, 0, 1, 4)

  def head(parts: tuple[Array, Array, Array]) -> Array:
    q, k, v = parts
    weights = jax.nn.softmax(jnp.einsum("bnc,bmc->bnm", q, k) / math.sqrt(_HEAD_SIZE), axis=-1)
    return weights @ v

  heads = lax.map(head, (split[0], split[1], split[2]))
  return heads.transpose(1, 2, 0, 3).reshape(count, tokens, -1)


def _layer_norm(x: Array, scale: Array, shift: Array) -> Array:
  mean = jnp.mean(x, axis=-1, keepdims=True)
  var = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
  return (x - mean) * lax.rsqrt(var + _EPSILON) * scale.reshape(1, 1, -1) + shift.reshape(1, 1, -1)


def _row(x: Array, bias: Array) -> Array:
  return x + bias.reshape(1, 1, -1)


def _cubic_weights(source: int, target: int) -> np.ndarray:
  """[target, source]: what each place of a resized row takes from the row."""
  weights = np.zeros((target, source))
  center = (np.arange(target) + 0.5) * source / target - 0.5
  for tap in range(-1, 3):
    index = np.floor(center).astype(int) + tap
    d = np.abs(center - index)
    near = ((_CUBIC + 2.0) * d - (_CUBIC + 3.0)) * d * d + 1.0
    far = ((d - 5.0) * d + 8.0) * d * _CUBIC - 4.0 * _CUBIC
    rows = np.arange(target)
    np.add.at(weights, (rows, np.clip(index, 0, source - 1)), np.where(d <= 1.0, near, far))
  return weights.astype(np.float32)


def _stack(state: Mapping[str, np.ndarray], name: str, count: int, transposed: bool) -> np.ndarray:
  """One tensor of all blocks, float32, along a new leading axis."""
  values = np.stack([state[f"blocks.{i}.{name}"] for i in range(count)]).astype(np.float32)
  return np.ascontiguousarray(values.swapaxes(1, 2)) if transposed else values
