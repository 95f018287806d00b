"""What the terms compare with an image: every hypothesis's silhouette, and one full render."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.geometry import camera
from umr_jax.geometry.sampling import choose_rows
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.losses.texture import texture_cycle_loss
from umr_jax.models.assemble import expand_rows, row_flow, sample_texels
from umr_jax.models.flow import camera_flow
from umr_jax.render import Fragments
from umr_jax.types import Topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renders:
  """The renders of a batch."""

  alpha: Float[Array, "B K H W"]  # under every hypothesis
  chosen: Int[Array, "B"]  # the hypothesis that is rendered with texture
  camera: Float[Array, "B 7"]  # the camera of it
  fragments: Fragments  # under it, with the channels of colour and then those of parts
  flow: Float[Array, "B U T 2"]  # the image position that each texel samples
  texels: Float[Array, "B F T 3"]  # the colours that are there
  colors: Float[Array, "B K H W 3"] | None = None  # under every hypothesis, if that was asked for


def render_hypotheses(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B K 7"],
  chosen: Int[Array, "B"],
  *,
  alpha: Float[Array, "B K H W"] | None = None,
  flow_map: Float[Array, "B Hu Wu 2"],
  image: Float[Array, "B H W 3"],
  part_texels: Float[Array, "F T P"] | None = None,
  spec: ObjectiveSpec,
) -> Renders:
  """Renders silhouettes under every hypothesis, and one of each image with texture and parts.

  Alpha backpropagates to shape and cameras, colour to the texture flow alone, and parts to the
  shape alone, as in the released code. Each hypothesis is
  rasterized once, but for the chosen one where its silhouette is given.

  Args:
    vertices: every image's mesh, in object space.
    cameras: the hypotheses.
    chosen: the hypothesis to render with texture.
    alpha: the silhouettes under every hypothesis, where they are rendered already.
    flow_map: the network's texture flow. With a "projected" flow it is added to the projection of
      each point under the chosen hypothesis.
    image: the images that the flow samples.
    part_texels: the part of every texel, as further channels after the colours.
    spec: of the objective. With texture cameras "all" colours are rendered under every hypothesis,
      as in the paper; "free" is the only flow that has a meaning then.

  Raises:
    ValueError: for texture cameras "all" with a flow other than "free".

  Source: Li et al. 2020, section 3.3.
  """
  every_color = spec.weights.texture_cameras == "all"
  if every_color and spec.flow != "free":
    raise ValueError(f"found flow {spec.flow!r} with texture_cameras='all'; a texture has one flow")
  topology = spec.topology
  faces = faces_in_view(vertices, cameras, topology)
  selected, corners = choose_rows(cameras, chosen), choose_rows(faces, chosen)
  if spec.flow == "projected":
    flow_map += camera_flow(vertices, selected, topology, uv_height=flow_map.shape[1])
  # A left face's texels are its right partner's: what is sampled is sampled once.
  flow = row_flow(flow_map, topology)
  texels = expand_rows(sample_texels(image, flow), topology)
  colors: Array | None = None
  if every_color:
    rgba = spec.render.soft_rasterize(
      faces,
      jnp.broadcast_to(texels[:, None], (*faces.shape[:2], *texels.shape[1:])),
      color_vertices=jax.lax.stop_gradient(faces),
    )
    alpha, colors = rgba[..., -1], rgba[..., :3]
  # Parts are of one hypothesis alone: rendered under all, they would take most of the memory.
  fragments = _render_texture(
    vertices,
    selected,
    corners if alpha is None else jax.lax.stop_gradient(corners),  # no silhouette counts twice
    texels,
    part_texels=part_texels,
    spec=spec,
  )
  if alpha is None:
    alpha = _with_other_silhouettes(fragments.rgba[..., -1], faces, chosen, spec)
  return Renders(
    alpha=alpha,
    chosen=chosen,
    camera=selected,
    fragments=fragments,
    flow=flow,
    texels=texels,
    colors=colors,
  )


def faces_in_view(
  vertices: Float[Array, "B V 3"], cameras: Float[Array, "B K 7"], topology: Topology
) -> Float[Array, "B K F 3 3"]:
  """Every image's faces, projected under each of its camera hypotheses.

  Args:
    vertices: every image's mesh, in object space.
    cameras: the hypotheses.
    topology: the mesh.
  """
  spread = jnp.broadcast_to(vertices[:, None], (*cameras.shape[:2], *vertices.shape[1:]))
  return camera.project_faces(spread, cameras, topology.faces)


def _render_texture(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B 7"],
  corners: Float[Array, "B F 3 3"],
  texels: Float[Array, "B F T 3"],
  *,
  part_texels: Float[Array, "F T P"] | None,
  spec: ObjectiveSpec,
) -> Fragments:
  """Colours, which backpropagate to no corners, and parts, which do so by way of the shape."""
  by_color, settings = jax.lax.stop_gradient(corners), spec.render
  if part_texels is not None:
    fixed = jax.lax.stop_gradient(cameras)
    by_color = camera.project_faces(vertices, fixed, spec.topology.faces)
    spread = jnp.broadcast_to(part_texels[None], (len(texels), *part_texels.shape))
    texels = jnp.concatenate([texels, spread], axis=-1)
    channels = (False,) * 3 + (True,) * part_texels.shape[-1]
    settings = dataclasses.replace(settings, geometry_channels=channels)
  return settings.rasterize(corners, texels, color_vertices=by_color)


def _with_other_silhouettes(
  alpha: Float[Array, "B H W"],
  faces: Float[Array, "B K F 3 3"],
  chosen: Int[Array, "B"],
  spec: ObjectiveSpec,
) -> Float[Array, "B K H W"]:
  """The silhouettes of all hypotheses, when that of the chosen one has been rendered."""
  count = faces.shape[1]
  # From the chosen one on: one, two, ... places further.
  place = (chosen[:, None] + np.arange(1, count)[None]) % count
  others = spec.render.soft_silhouette(jax.vmap(lambda row, k: row[k])(faces, place))
  turned = jnp.concatenate([alpha[:, None], others], axis=1)
  back = (np.arange(count)[None] - chosen[:, None]) % count
  return jax.vmap(lambda row, k: row[k])(turned, back)


def texture_term(
  renders: Renders,
  probabilities: Float[Array, "B K"],
  image: Float[Array, "B H W 3"],
  mask: Float[Array, "B H W"],
  spec: ObjectiveSpec,
) -> Float[Array, "B"]:
  """The texture distance: its expectation over hypotheses or, cheaper, that under one of them.

  It backpropagates to the flow, and through alpha to shape and cameras, as in the released code.

  Args:
    renders: of the batch.
    probabilities: of every hypothesis; they get no gradient.
    image: at the size of the renders.
    mask: its silhouette.
    spec: of the objective.

  Source: Li et al. 2020, section 3.3.
  """
  if renders.colors is None:
    rgb, alpha = renders.fragments.rgba[..., :3], choose_rows(renders.alpha, renders.chosen)
    return spec.distance(rendered=rgb, alpha=alpha, image=image, mask=mask)
  distances = spec.distance(
    rendered=renders.colors, alpha=renders.alpha, image=image[:, None], mask=mask[:, None]
  )
  return jnp.sum(jax.lax.stop_gradient(probabilities) * distances, axis=-1)


def texture_cycle_term(renders: Renders, topology: Topology) -> Float[Array, "B"]:
  """L_tcyc: texels are sampled where their faces project under the chosen hypothesis.

  Args:
    renders: of the batch.
    topology: the mesh.

  Source: Li et al. 2020, section 3.3.
  """
  return texture_cycle_loss(
    flow=expand_rows(renders.flow, topology),
    projected_centroids=renders.fragments.landing,
    visible=renders.fragments.visible,
  )
