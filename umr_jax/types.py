"""The data that flows through the package."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import jax
import numpy as np
import optax
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.checking import checked as checked

if TYPE_CHECKING:
  # A leaf of these pytrees is a device array, a NumPy array or a tracer, as the moment has it.
  Array = Any
  # A network's variables, or a collection of them: nested dicts of arrays, by name.
  Variables = Mapping[str, "Variables | Array"]
else:
  from jaxtyping import Array

  Variables = Mapping[str, object]  # beartype reads no recursive type

# What is written as JSON: numbers, words, and lists and dicts of these, by name.
Report = dict[str, Any]
# A pytree of any structure: what has it as argument and result keeps the structure.
Tree = TypeVar("Tree")


class Network(Protocol):
  """The network that a model applies to images, `models.umr_net.UMRNet`, as a protocol."""

  def apply(
    self,
    variables: Variables,
    *args: Array,
    train: bool,
    encoded: tuple[Array, ...] | None = None,
  ) -> "Prediction | tuple[Prediction, Variables]":
    """The `Prediction` of images under these variables.

    Args:
      variables: the network's collections.
      *args: the images.
      train: whether BatchNorm uses the batch's statistics.
      encoded: the maps of the images that a frozen encoder has made before, or None.
    """
    ...


# By identity: a topology is a static part of a `Model`, and `build_topology` makes each one once.
@struct.dataclass(eq=False)
class Topology:
  """What never changes about the mesh: connectivity, symmetry and the UV layout.

  Vertices are ordered [centre | right | left] and faces [self-mirrored | right | left]; left vertex
  i mirrors right vertex i, and a left face lists the mirror images of its right partner's vertices
  in the same order, so that both read one row of texels. Left faces therefore wind inward in
  `faces`; `outward_faces` is the same list with every face wound outward.

  Built by `geometry.topology.build_topology`. All arrays are NumPy: they become constants of a
  jitted function that closes over the topology.
  """

  sphere: np.ndarray  # [V, 3] float32, the unit icosphere
  faces: np.ndarray  # [F, 3] int32
  outward_faces: np.ndarray  # [F, 3] int32
  edges: np.ndarray  # [E, 2] int32, each undirected edge once
  neighbors: np.ndarray  # [V, 6] int32, padded with the vertex itself
  degrees: np.ndarray  # [V] int32, 5 or 6
  face_pairs: np.ndarray  # [E, 4] int32: the shared edge's two vertices, then the two opposite ones
  texel_uv: np.ndarray  # [U, T, 2] float32 in [-1, 1]: where each texel samples the UV map
  face_texels: np.ndarray  # [F] int32: the row of `texel_uv` that a face reads
  vertex_uv: np.ndarray  # [V, 2] float32 in [-1, 1]
  num_center: int = struct.field(pytree_node=False)  # vertices on the mirror plane
  num_self_faces: int = struct.field(pytree_node=False)  # faces that mirror onto themselves
  texels_per_side: int = struct.field(pytree_node=False)  # R, with T = R * R
  level: int = struct.field(pytree_node=False)
  symmetric_texture: bool = struct.field(pytree_node=False)

  @property
  def num_vertices(self) -> int:
    """V."""
    return self.sphere.shape[0]

  @property
  def num_faces(self) -> int:
    """F."""
    return self.faces.shape[0]

  @property
  def num_half(self) -> int:
    """Vh: the vertices that are learned, the centre and the right ones."""
    return (self.num_vertices + self.num_center) // 2


@struct.dataclass
class Template:
  """The category's mean shape: the learned half of its vertices, in object space."""

  half_vertices: Float[Array, "Vh 3"]


@struct.dataclass
class Batch:
  """The input of one training or evaluation step: B images, each in one square crop."""

  image: Float[Array, "*D B H W 3"]
  mask: Float[Array, "*D B H W"]
  # The barrier of `losses.texture.texture_dt_loss`: 0 deep inside the silhouette, 1 far outside it.
  barrier: Float[Array, "*D B H W"]
  # The image's index in its split: its random numbers are keyed by it.
  index: Int[Array, "*D B"]
  # False for the rows that pad an evaluation pass to a whole batch.
  valid: Bool[Array, "*D B"]
  # Part probabilities, background first, or None where the data set has no parts.
  parts: Float[Array, "*D B H W P1"] | None = None
  # The camera that pose search found for each image, or None without one.
  target_camera: Float[Array, "*D B 7"] | None = None
  # The maps that a frozen encoder makes of the images, in a batch that `train.replay` augmented.
  encoded: tuple[Float[Array, "*D B _ _ _"], ...] | None = None


@struct.dataclass
class Prediction:
  """What the network predicts of B images, before the template is added."""

  half_offsets: Float[Array, "B Vh 3"]
  shape_code: Float[Array, "B Z"]  # the mean mu of the code, not the sample
  # Image positions in [-1, 1], (x, y), or with `Model.flow` "projected" a correction of those that
  # `models.flow.camera_flow` has.
  flow_map: Float[Array, "B Hu Wu 2"]
  cameras: Float[Array, "B K 7"]
  camera_logits: Float[Array, "B K"]
  mask_logits: Float[Array, "B h w"] | None = None  # where the network has a mask head


@struct.dataclass
class Projection:
  """From a network's features to a few channels."""

  mean: Float[Array, "F"]
  matrix: Float[Array, "F C"]


@struct.dataclass
class ViewTemplate:
  """The category as coarse voxels with features, in a grid of views; see `models.view_template`."""

  projection: Projection  # of the frozen encoder's features
  features: Float[Array, "R R R C"]  # of each voxel
  voxels: Int[Array, "K S S"]  # int16: the first occupied voxel on each pixel's ray, or -1
  # Of each view's silhouette, under a camera of scale 1 at the centre: its centre of mass and the
  # square root of its area.
  centers: Float[Array, "K 2"]
  sides: Float[Array, "K"]
  rotations: Float[Array, "K 4"]
  log_prior: Float[Array, "K"]  # of the views, before an image is seen
  temperature: Float[Array, ""]  # of the posterior: see `init.view_calibration`


@struct.dataclass
class CanonicalFeatures:
  """What the frozen encoder sees at each vertex; see `losses.canonical_features`."""

  projection: Projection  # of the frozen encoder's features
  values: Float[Array, "V C"]  # means over the images that show the vertex, of unit features
  known: Bool[Array, "V"]  # whether any image does
  variance: Float[Array, ""]  # the images' mean squared distance from these means


@struct.dataclass
class TrainState:
  """Everything a gradient step changes."""

  step: Int[Array, ""]
  params: Variables
  batch_stats: Variables
  opt_state: optax.OptState
  # The parameters of the discriminator; empty where the config asks for none.
  discriminator: Variables = struct.field(default_factory=dict)
  # The weights of a published network that is not trained; empty without one.
  frozen: Variables = struct.field(default_factory=dict)

  @property
  def collections(self) -> Variables:
    """The network's variables besides its parameters, as flax takes them."""
    return {"batch_stats": self.batch_stats, "frozen": self.frozen}


@struct.dataclass
class EMState:
  """What the E-step holds fixed.

  Template and canonical map are initialized by `init.state`, written by the M-step, and turned
  between rounds by `em.align_to_vertical`; target cameras are found by pose search.
  """

  round: Int[Array, ""]  # rounds finished so far
  round_start: Int[Array, ""]  # the step at which the round in progress began
  template: Template
  # The category's part probabilities in UV space, background first; None without part maps.
  canonical_uv: Float[Array, "Hu Wu P1"] | None = None
  # The part of each vertex, 0 for background; None without part maps.
  part_vertices: Int[Array, "V"] | None = None
  # A camera for each training image's unaugmented crop; None without pose search.
  target_cameras: Float[Array, "N 7"] | None = None
  # What images are compared with for a posterior over views; None without view search.
  view_template: ViewTemplate | None = None
  # What the surface looks like at each vertex; None before the first round's end, and where no
  # frozen encoder or no test-time optimisation reads it.
  canonical_features: CanonicalFeatures | None = None


@struct.dataclass(kw_only=True)
class Model:
  """A category's trained model, and all that a reconstruction needs: what a checkpoint is.

  A pytree of its arrays; network, topology and flow are static, so that a jitted or replicated
  function takes a model as it takes an array.
  """

  network: Network = struct.field(pytree_node=False)
  topology: Topology = struct.field(pytree_node=False)
  # What the network's flow map is: "free", image positions, or "projected", a correction of them.
  flow: str = struct.field(pytree_node=False, default="free")
  params: Variables
  batch_stats: Variables
  frozen: Variables = struct.field(default_factory=dict)  # weights that no gradient step changes
  template: Template
  # As in `EMState`: None without part maps.
  canonical_uv: Float[Array, "Hu Wu P1"] | None = None
  part_vertices: Int[Array, "V"] | None = None
  view_template: ViewTemplate | None = None
  canonical_features: CanonicalFeatures | None = None

  @property
  def variables(self) -> Variables:
    """The network's collections, as it is applied to them."""
    collections = {"params": self.params, "batch_stats": self.batch_stats}
    return {**collections, "frozen": self.frozen} if self.frozen else collections


def host(tree: Tree) -> Tree:
  """The pytree with every array on the host, as NumPy."""
  return jax.tree.map(np.asarray, jax.device_get(tree))
