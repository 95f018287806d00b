"""What the terms look at: every camera hypothesis's silhouette, and one render in full."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.config.settings import RenderConfig
from umr_jax.geometry import camera
from umr_jax.models.assemble import expand_rows, row_flow, sample_texels
from umr_jax.models.flow import camera_flow
from umr_jax.render import Fragments, rasterize, soft_rasterize, soft_silhouette
from umr_jax.types import Batch, Topology, checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
  """What the terms see of the renders of a batch."""

  alpha: Float[Array, "B K H W"]  # under every hypothesis
  fragments: Fragments  # with colours, then parts, under the chosen one
  flow: Float[Array, "B U T 2"]  # where its texels look
  texels: Float[Array, "B F T 3"]  # the colours that are there
  colors: Float[Array, "B K H W 3"] | None = None  # under every hypothesis, if that was asked for


def project_faces(
  vertices: Float[Array, "B V 3"], cameras: Float[Array, "B K 7"], topology: Topology
) -> Float[Array, "B K F 3 3"]:
  """Every image's faces under each of its camera hypotheses."""
  shape = (*cameras.shape[:2], *vertices.shape[1:])
  spread = jnp.broadcast_to(vertices[:, None], shape)
  return camera.project_faces(spread, cameras, topology.faces)


def draw(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B K 7"],
  chosen: Int[Array, "B"] | None,
  flow_map: Float[Array, "B Hu Wu 2"],
  batch: Batch,
  *,
  choose: Callable[[Float[Array, "B K H W"]], Int[Array, "B"]],
  parts: Float[Array, "F T P"] | None = None,
  part_cameras: bool = False,
  every_color: bool = False,
  flow: str = "free",
  topology: Topology,
  settings: RenderConfig,
  image_size: int,
) -> Drawing:
  """Rasterizes every hypothesis, and one of each image with its texture and its parts.

  Alpha teaches shape and camera, colour the texture flow alone, parts the shape alone, as in the
  released code. Where the hypothesis with texture is known beforehand, each is rasterized once.

  Args:
    vertices: every image's mesh, in object space.
    cameras: the hypotheses.
    chosen: the hypothesis that is drawn with its texture, or None: `choose` says after all alphas.
    flow_map: the network's texture flow.
    batch: the photographs.
    choose: from the alphas of all hypotheses to the one to draw with texture.
    parts: of every texel, as further channels after the colours.
    part_cameras: parts teach cameras as well as the shape.
    every_color: draws texture under every hypothesis, as the paper does.
    flow: "free", or "projected": the flow map is added to the projection of each point under the
      chosen hypothesis. With `every_color` none is chosen in time, and "free" alone has a meaning.
    topology: the mesh.
    settings: of the rasterizer.
    image_size: pixels per side.

  Raises:
    ValueError: for `every_color` with a flow other than "free".

  Source: Li et al. 2020, section 3.3.
  """
  options: dict[str, Any] = dict(
    image_size=image_size,
    sigma=settings.sigma,
    dist_eps=settings.dist_eps,
    antialias=settings.antialias,
  )
  if every_color and flow != "free":
    raise ValueError(f"found flow {flow!r} with every_color; a texture has one flow")
  faces = project_faces(vertices, cameras, topology)
  count = cameras.shape[1]

  def look(seen_by: Float[Array, "B 7"] | None) -> dict[str, Any]:
    """Where texels look, and what is there."""
    seen = flow_map
    if seen_by is not None and flow == "projected":
      seen += camera_flow(vertices, seen_by, topology, uv_height=flow_map.shape[1])
    # A left face's texels are its right partner's: what is sampled is sampled once.
    rows = row_flow(seen, topology)
    return {"flow": rows, "texels": expand_rows(sample_texels(batch.image, rows), topology)}

  def paint(
    corners: Float[Array, "B M F 3 3"],
    seen_by: Float[Array, "B M 7"],
    colors: Float[Array, "B F T 3"],
  ) -> Fragments:
    """Colours teach no corners, and parts teach them by way of the shape."""
    by_color, texels, channels = jax.lax.stop_gradient(corners), colors, None
    if parts is not None:
      by_color = project_faces(
        vertices, seen_by if part_cameras else jax.lax.stop_gradient(seen_by), topology
      )
      spread = jnp.broadcast_to(parts[None], (len(texels), *parts.shape))
      texels = jnp.concatenate([texels, spread], axis=-1)
      channels = (False,) * 3 + (True,) * parts.shape[-1]
    spread = jnp.broadcast_to(texels[:, None], (*corners.shape[:2], *texels.shape[1:]))
    return rasterize(
      corners,
      spread,
      gamma=settings.gamma,
      color_vertices=by_color,
      geometry_channels=channels,
      **options,
    )

  def one(values: Array, place: Int[Array, "B"]) -> Array:
    return choose_rows(values, place)[:, None]

  if every_color:
    shared = look(None)
    texels = jnp.broadcast_to(
      shared["texels"][:, None], (*faces.shape[:2], *shared["texels"].shape[1:])
    )
    rgba = soft_rasterize(
      faces,
      texels,
      gamma=settings.gamma,
      color_vertices=jax.lax.stop_gradient(faces),
      **options,
    )
    chosen = choose(rgba[..., -1]) if chosen is None else chosen
    # Parts are of one hypothesis alone: drawn under all, they would take most of the memory.
    corners = jax.lax.stop_gradient(one(faces, chosen))
    painted = paint(corners, one(cameras, chosen), shared["texels"])
    return Drawing(alpha=rgba[..., -1], fragments=_first(painted), colors=rgba[..., :3], **shared)
  alpha = None
  if chosen is None:
    alpha = soft_silhouette(faces, **options)
    chosen = choose(alpha)
  shared = look(choose_rows(cameras, chosen))
  corners = one(faces, chosen)
  if alpha is not None:
    corners = jax.lax.stop_gradient(corners)  # its silhouette has been drawn
  painted = paint(corners, one(cameras, chosen), shared["texels"])
  if alpha is None:
    # From the chosen one on: one, two, ... places further.
    place = (chosen[:, None] + np.arange(1, count)[None]) % count
    others = soft_silhouette(jax.vmap(lambda row, k: row[k])(faces, place), **options)
    turned = jnp.concatenate([painted.rgba[..., -1], others], axis=1)
    back = (np.arange(count)[None] - chosen[:, None]) % count
    alpha = jax.vmap(lambda row, k: row[k])(turned, back)
  return Drawing(alpha=alpha, fragments=_first(painted), **shared)


def _first(painted: Fragments) -> Fragments:
  """Of fragments [B, 1, ...] the only hypothesis."""
  return Fragments(*(values[:, 0] for values in painted))


def choose_rows(
  values: Float[Array, "B K *rest"], chosen: Int[Array, "B"]
) -> Float[Array, "B *rest"]:
  """Of each image's hypotheses the one with the given number."""
  return jax.vmap(lambda row, k: row[k])(values, chosen)


@checked
def average_pool(image: Float[Array, "B H W *C"], size: int) -> Float[Array, "B h w *C"]:
  """The image at `size` pixels a side, each the mean of the pixels that it covers."""
  batch, height, _, *channels = image.shape
  block = height // size
  return image.reshape(batch, size, block, size, block, *channels).mean(axis=(2, 4))
