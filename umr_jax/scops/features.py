"""What pixels look like to a network that is not trained here: the ground of discovered parts."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.models.efficientnet import (
  EFFICIENTNET_FILE,
  efficientnet_features,
  efficientnet_file,
  fine_efficientnet_features,
  load_efficientnet,
)
from umr_jax.models.vgg import HED_FILE, VGG_FILES, hed_file, load_hed, load_vgg, vgg_features
from umr_jax.models.vit import VIT_FILES, load_vit, patch_size, vit_features
from umr_jax.types import checked

NAMES = ("efficientnet", "vgg16", "vgg19", "hed", "dino", "encoder", "color")
# The layers of Hung et al. 2019 are VGG-19's. VGG-16's are the last of its last two blocks; of HED
# the last block is no classifier's any more.
_VGG_LAYERS = {
  "vgg16": ("conv4_3", "conv5_3"),
  "vgg19": ("conv5_2", "conv5_4"),
  "hed": ("conv4_3",),
}
_COLOR_STRIDE = 8
# sRGB's primaries in CIE XYZ, over the white of daylight (D65).
_XYZ = np.array(
  [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0178, 0.1095, 0.8728]], np.float32
)


class Features(NamedTuple):
  """A function from images to maps of features, and its name."""

  # RGB in [0, 1], any size -> maps; resizes by itself. Jitted.
  extract: Callable[[Float[Array, "B H W 3"]], Float[Array, "B h w C"]]
  name: str  # one of NAMES
  fingerprint: str  # differs where the features would


def resolve_features(name: str) -> str:
  """The features that a setting names: "auto" is the best that is here.

  Args:
    name: one of NAMES, or "auto": "efficientnet" where its package is installed, else "encoder".

  Returns:
    One of NAMES.

  Raises:
    ValueError: for another name.
  """
  if name == "auto":
    return "encoder" if efficientnet_file() is None else "efficientnet"
  if name not in NAMES:
    raise ValueError(f"found features {name!r}; expected auto or one of {', '.join(NAMES)}")
  return name


def make_features(name: str, *, file: str, size: int, fine: bool = False) -> Features:
  """Loads a network, and wraps it into a function of images.

  Args:
    name: one of NAMES but "encoder", or "auto".
    file: the weight file; "" for the one that a package brings (efficientnet and hed).
    size: pixels per side of what the network sees; images are resized to it, and for dino to the
      nearest multiple of its patches.
    fine: of efficientnet, 112 channels of a 16th of `size` beside those of a 32nd. The others have
      no finer ones.

  Returns:
    The features. Their maps have a 32nd of `size` (efficientnet: 1280 channels), a 16th (vgg16,
    vgg19: 1024), an 8th (hed: 512; color: 11) or one row for each patch (dino).

  Raises:
    FileNotFoundError: where there is no such file.
    ImportError: where a package that reads it is missing.
    ValueError: for a name or a file that does not fit, or where a file is needed and none named.
  """
  name = resolve_features(name)
  if name == "encoder":
    raise ValueError(
      "the features 'encoder' are trained on the images themselves and have no file: call "
      "scops.encoder_features.train_encoder_features"
    )
  if size < 32:
    raise ValueError(f"found a feature size of {size}; expected 32 pixels or more")
  if name == "color":
    color = jax.jit(functools.partial(_resized, lambda _, x: color_features(x), size, None))
    return Features(color, name, _fingerprint(name, size, b""))
  path = _weight_file(name, file)
  params, apply = _load(name, path)
  known_as = name
  if fine and name == "efficientnet":
    apply, known_as = fine_efficientnet_features, f"fine {name}"
  if name == "dino":
    side = patch_size(params)
    size = max(1, round(size / side)) * side
  run = jax.jit(functools.partial(_resized, apply, size))
  # An argument, not a constant: compilers are slow with large constants.
  extract = functools.partial(run, jax.tree.map(jnp.asarray, params))
  return Features(extract, name, _fingerprint(known_as, size, path.read_bytes()))


@checked
def color_features(images: Float[Array, "B H W 3"]) -> Float[Array, "B h w 11"]:
  """Colours, how they vary nearby, and places: features that need no network.

  Args:
    images: RGB in [0, 1]; at least 8 pixels per side.

  Returns:
    At an eighth of the resolution, rounded down: CIE Lab over 100; its mean and its deviation in
    the 5 x 5 cells around; x and y in [-1, 1].
  """
  count, height, width, _ = images.shape
  rows, columns = height // _COLOR_STRIDE, width // _COLOR_STRIDE
  lab = _lab(images)[:, : rows * _COLOR_STRIDE, : columns * _COLOR_STRIDE]
  cells = lab.reshape(count, rows, _COLOR_STRIDE, columns, _COLOR_STRIDE, 3)
  mean = jnp.mean(cells, axis=(2, 4))
  square = jnp.mean(jnp.square(cells), axis=(2, 4))
  wide_mean, wide_square = _box_mean(mean), _box_mean(square)
  deviation = jnp.sqrt(jnp.maximum(wide_square - jnp.square(wide_mean), 0.0))
  y, x = (
    jnp.broadcast_to(((np.arange(n) + 0.5) * (2.0 / n) - 1.0).reshape(shape), (rows, columns))
    for n, shape in ((rows, (-1, 1)), (columns, (1, -1)))
  )
  place = jnp.broadcast_to(jnp.stack([x, y], axis=-1), (count, rows, columns, 2))
  return jnp.concatenate([mean, wide_mean, deviation, place.astype(images.dtype)], axis=-1)


def _lab(images: Array) -> Array:
  """CIE Lab of sRGB, over 100."""
  linear = jnp.where(
    images <= 0.04045, images / 12.92, ((jnp.maximum(images, 0.04045) + 0.055) / 1.055) ** 2.4
  )
  xyz = linear @ jnp.asarray(_XYZ.T)
  threshold = (6.0 / 29.0) ** 3
  curve = jnp.where(
    xyz > threshold,
    jnp.cbrt(jnp.maximum(xyz, threshold)),
    xyz / (3.0 * (6.0 / 29.0) ** 2) + 4.0 / 29.0,
  )
  x, y, z = curve[..., 0], curve[..., 1], curve[..., 2]
  return jnp.stack([1.16 * y - 0.16, 5.0 * (x - y), 2.0 * (y - z)], axis=-1)


def _box_mean(x: Array) -> Array:
  """The mean of the 5 x 5 cells around each, the border's cells repeated."""
  padded = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
  rows, columns = x.shape[1:3]
  across = jnp.mean(jnp.stack([padded[:, :, j : j + columns] for j in range(5)]), axis=0)
  return jnp.mean(jnp.stack([across[:, i : i + rows] for i in range(5)]), axis=0)


def _resized(apply: Callable[[Any, Array], Array], size: int, params: Any, images: Array) -> Array:
  """The features of images that are resized to a square first."""
  shape = (images.shape[0], size, size, 3)
  if images.shape != shape:
    images = jnp.clip(jax.image.resize(images, shape, "bilinear"), 0.0, 1.0)
  return apply(params, images)


def _weight_file(name: str, file: str) -> pathlib.Path:
  """The file to read; whether it exists is its reader's to say."""
  if file:
    return pathlib.Path(os.path.expandvars(os.path.expanduser(file)))
  packaged = {"efficientnet": efficientnet_file, "hed": hed_file}
  path = packaged[name]() if name in packaged else None
  if path is None:
    obtain = {
      "efficientnet": EFFICIENTNET_FILE,
      "hed": HED_FILE,
      "vgg16": VGG_FILES[16],
      "vgg19": VGG_FILES[19],
      "dino": VIT_FILES,
    }[name]
    raise ValueError(
      f"the features {name!r} need a weight file and none is here: set parts.feature_file to "
      f"{obtain}; or set parts.features=encoder, which need none"
    )
  return path


def _load(name: str, path: pathlib.Path) -> tuple[Any, Callable[[Any, Array], Array]]:
  """A network's parameters and its function."""
  if name == "efficientnet":
    return load_efficientnet(path), efficientnet_features
  if name == "dino":
    return load_vit(path), vit_features
  params = load_hed(path) if name == "hed" else load_vgg(path, depth=int(name[3:]))
  return params, functools.partial(vgg_features, layers=_VGG_LAYERS[name])


def features_fingerprint(name: str, *, file: str, size: int) -> str:
  """What `Features.fingerprint` will be, without loading a network; the name, where it has no file.

  Raises:
    FileNotFoundError, ValueError: as `make_features`.
  """
  name = resolve_features(name)
  if name in ("encoder", "color"):
    return _fingerprint(name, size, b"")
  path = _weight_file(name, file)
  if not path.is_file():
    raise FileNotFoundError(f"no weight file at {path} for parts.features={name}")
  return _fingerprint(name, size, path.read_bytes())


def _fingerprint(name: str, size: int, content: bytes) -> str:
  digest = hashlib.sha256(f"{name} {size} ".encode())
  digest.update(content)
  return digest.hexdigest()[:16]
