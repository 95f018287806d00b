"""Features of frozen networks, which parts are discovered from."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.models.efficientnet import (
  EFFICIENTNET_FILE,
  efficientnet_features,
  efficientnet_file,
  fine_efficientnet_features,
  load_efficientnet,
)
from umr_jax.models.vgg import VGG_FILES, load_vgg, vgg_features
from umr_jax.models.vit import VIT_FILES, load_vit, patch_size, vit_features

NAMES = ("efficientnet", "vgg16", "vgg19", "dino", "encoder")
# The layers of Hung et al. 2019 are VGG-19's. VGG-16's are the last of its last two blocks.
_VGG_LAYERS = {
  "vgg16": ("conv4_3", "conv5_3"),
  "vgg19": ("conv5_2", "conv5_4"),
}


class Features(NamedTuple):
  """A function from images to maps of features, and its name."""

  # RGB in [0, 1], any size -> maps; resizes by itself. Jitted.
  extract: Callable[[Float[Array, "B H W 3"]], Float[Array, "B h w C"]]
  name: str  # one of NAMES


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
  """Loads a network, and returns it as a function of images.

  Args:
    name: one of NAMES but "encoder", or "auto".
    file: the weight file; "" for the one that a package brings (efficientnet).
    size: pixels per side of the network's input; images are resized to it, and for dino to the
      nearest multiple of its patches.
    fine: of efficientnet, 112 channels of a 16th of `size` beside those of a 32nd. The others have
      no finer ones.

  Returns:
    The features. Their maps have a 32nd of `size` (efficientnet: 1280 channels), a 16th (vgg16,
    vgg19: 1024) or one row for each patch (dino).

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for a name or a file that does not fit, or where a file is needed and none named.
  """
  name = resolve_features(name)
  if name == "encoder":
    raise ValueError(
      "the features 'encoder' are trained on the images themselves and have no file: call "
      "parts.encoder_features.train_encoder_features"
    )
  if size < 32:
    raise ValueError(f"found a feature size of {size}; expected 32 pixels or more")
  path = _weight_file(name, file)
  params, apply = _load(name, path)
  if fine and name == "efficientnet":
    apply = fine_efficientnet_features
  if name == "dino":
    side = patch_size(params)
    size = max(1, round(size / side)) * side
  run = jax.jit(functools.partial(_resized, apply, size))
  # An argument, not a constant: compilers are slow with large constants.
  extract = functools.partial(run, jax.tree.map(jnp.asarray, params))
  return Features(extract, name)


def _resized(apply: Callable[[Any, Array], Array], size: int, params: Any, images: Array) -> Array:
  """The features of images that are resized to a square first."""
  shape = (images.shape[0], size, size, 3)
  if images.shape != shape:
    images = jnp.clip(jax.image.resize(images, shape, "bilinear"), 0.0, 1.0)
  return apply(params, images)


def _weight_file(name: str, file: str) -> pathlib.Path:
  """The file to read; its reader raises where it does not exist."""
  if file:
    return pathlib.Path(os.path.expandvars(os.path.expanduser(file)))
  path = efficientnet_file() if name == "efficientnet" else None
  if path is None:
    obtain = {
      "efficientnet": EFFICIENTNET_FILE,
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
  params = load_vgg(path, depth=int(name[3:]))
  return params, functools.partial(vgg_features, layers=_VGG_LAYERS[name])


def features_fingerprint(name: str, *, file: str, size: int) -> str:
  """What differs where a network's features would, by its file, which is read but not loaded.

  Args:
    name: see `make_features`.
    file: likewise.
    size: likewise.

  Raises:
    FileNotFoundError, ValueError: as `make_features`.
  """
  name = resolve_features(name)
  if name == "encoder":
    return _fingerprint(name, size, b"")
  path = _weight_file(name, file)
  if not path.is_file():
    raise FileNotFoundError(f"no weight file at {path} for parts.features={name}")
  return _fingerprint(name, size, path.read_bytes())


def _fingerprint(name: str, size: int, content: bytes) -> str:
  digest = hashlib.sha256(f"{name} {size} ".encode())
  digest.update(content)
  return digest.hexdigest()[:16]
