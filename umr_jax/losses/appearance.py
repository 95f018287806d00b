"""How well each camera hypothesis explains what silhouettes cannot tell: which surface is seen."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.config import LossConfig, RenderConfig
from umr_jax.losses.drawing import average_pool, project_faces
from umr_jax.losses.part_probability import part_probability_loss
from umr_jax.losses.semantic import Semantics
from umr_jax.losses.texture import TextureDistance
from umr_jax.models.assemble import expand_rows, row_flow, sample_texels
from umr_jax.render import soft_rasterize
from umr_jax.types import Batch, Topology


def appearance_values(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B K 7"],
  batch: Batch,
  parts: Semantics | None,
  *,
  flow_map: Float[Array, "B Hu Wu 2"] | None,
  mask: Float[Array, "B H W"],
  topology: Topology,
  weights: LossConfig,
  settings: RenderConfig,
  distance: TextureDistance,
) -> Float[Array, "B K"]:
  """What is wrong with the parts and the colours that each hypothesis shows; without a gradient.

  A camera and its depth-reversed twin have the same silhouette and show the same points of it, but
  of the surface one shows the front where the other shows the back: of two parts that cover each
  other, another one is seen.

  Args:
    vertices: every image's mesh, in object space.
    cameras: the hypotheses.
    batch: the photographs.
    parts: the image's parts and the canonical map's texels; without texels, parts say nothing.
    flow_map: the texture flow; None where it follows the camera, which makes every view look right.
    mask: silhouettes at the size of the renders.
    topology: the mesh.
    weights: of the terms.
    settings: of the rasterizer.
    distance: of a textured render from the image.

  Returns:
    The terms' weighted sum; zeros where neither parts nor colours can tell.

  Source: Li et al. 2020 count texture under all hypotheses, but let silhouettes alone teach their
    probabilities. Departs: what is seen decides with them.
  """
  vertices, cameras, flow_map = jax.lax.stop_gradient((vertices, cameras, flow_map))
  channels = []
  if flow_map is not None:
    rows = row_flow(flow_map, topology)
    channels.append(expand_rows(sample_texels(batch.image, rows), topology))
  texels = None if parts is None else parts.texels
  if texels is not None:
    channels.append(jnp.broadcast_to(texels[None], (len(vertices), *texels.shape)))
  if not channels:
    return jnp.zeros(cameras.shape[:2], vertices.dtype)
  painted = jnp.concatenate(channels, axis=-1)
  corners = project_faces(vertices, cameras, topology)
  rgba = soft_rasterize(
    corners,
    jnp.broadcast_to(painted[:, None], (*corners.shape[:2], *painted.shape[1:])),
    image_size=mask.shape[-1],
    sigma=settings.sigma,
    gamma=settings.gamma,
    dist_eps=settings.dist_eps,
    antialias=settings.antialias,
  )
  alpha, shown = rgba[..., -1], rgba[..., :-1]

  def each(values: Array) -> Array:
    return jnp.broadcast_to(values[:, None], (*cameras.shape[:2], *values.shape[1:]))

  total = jnp.zeros(cameras.shape[:2], vertices.dtype)
  if flow_map is not None:
    total += weights.texture * distance(
      rendered=shown[..., :3],
      alpha=alpha,
      image=average_pool(batch.image, mask.shape[-1])[:, None],
      mask=mask[:, None],
    )
    shown = shown[..., 3:]
  if parts is not None and texels is not None:
    total += weights.part_probability * part_probability_loss(
      rendered=alpha[..., None] * shown,
      target=each(parts.targets.probs),
      seen=each(parts.targets.seen),
    )
  return total
