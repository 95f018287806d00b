"""What this project adds to the paper's method: named, with what each replaces and brought.

A preset is the paper with some of these and with what its data ask for (`config.presets`). An
extension's entry also notes an effect within the noise of seeds, or that it was not measured alone.
The table in docs/method.md is made of these entries (tests/test_docs.py), so that what an extension
brought is written down here alone, and its runs in BUILD_NOTES.md.

Figures are of unseen images: birds are the embedded synthetic ones with true parts, aeroplanes the
rendered ones that `planes` reads, in the ablation with keypoint-supervised parts, an upper
reference. KT is keypoint transfer, PCK within 0.1; by projected flow: where `model.flow=projected`
takes the texture from, which is not the predicted flow that the paper transfers by. "Ablation" is
experiments/results, 1000 steps a run, seeds in brackets; the other figures are one run each, and in
BUILD_NOTES.md with their commands.
"""

import dataclasses

from umr_jax.config.fields import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extension:
  """One addition: the settings in which it differs from the paper, and why."""

  replaces: str  # what the paper has in its place
  brought: str  # what was measured, and where
  settings: Settings
  files: tuple[str, ...] = ()  # where it is; none: the settings alone


EXTENSIONS: dict[str, Extension] = {
  # A laptop in place of four GPUs.
  "small_renders": Extension(
    replaces="images and renders of 256 px with four samples a pixel, a UV map of 128 rows",
    brought="A step of 0.28 to 0.37 s on one CPU core. KT by projected flow gained 0.02 of finer "
    "faces and 0.02 of renders at 96 px at most (birds).",
    settings={
      "data.image_size": 96,
      "render.image_size": 48,
      "render.sigma": 3e-4,
      "render.dist_eps": 1e-4,
      "render.antialias": 1,
      "geometry.uv_height": 32,
    },
  ),
  "small_network": Extension(
    replaces="ResNet-18 with ImageNet's weights, a dense texture stem, a sampled shape code",
    brought="Training from nothing, without a file: with BatchNorm and batches of 16 every test "
    "image had one camera (deviation of the logits 0.52 in training, 0.001 in evaluation); "
    "GroupNorm cures it.",
    settings={
      "model.encoder_width": 16,
      "model.encoder_weights": "none",
      "model.norm": "group",
      "model.texture_stem": "conv",
      "model.sample_code": False,
    },
    files=("umr_jax/models/layers.py",),
  ),
  "fewer_terms": Extension(
    replaces="AlexNet's distance, the adversary and the edge regularisation",
    brought="No weight file and a faster step. The adversary brought nothing: KT by camera 0.275 "
    "with it, 0.289 without (aeroplanes, ablation [3]), 0.372 and 0.376 (birds, [3]). The other "
    "two are not measured.",
    settings={
      "loss.perceptual_weights": "none",
      "loss.adversary": 0.0,
      "loss.edge": 0.0,
    },
  ),
  "quick_optimizer": Extension(
    replaces="60,000 steps of Adam at 1e-4 with the released decay",
    brought="Thousands of steps in place of tens of thousands. Cosine against a constant rate: "
    "mask IoU 0.533 and 0.488 (aeroplanes, ablation [1]). Warm-up and clipping brought nothing "
    "measurable ([3]).",
    settings={
      "train.learning_rate": 7e-4,
      "train.schedule": "cosine",
      "train.warmup_steps": 100,
      "train.clip_norm": 5.0,
    },
  ),
  # Cameras from silhouettes.
  "silhouette_template": Extension(
    replaces="the sphere as initial template",
    brought="With the M-steps, 3D IoU 0.163 -> 0.220 (aeroplanes) and 0.300 -> 0.323 (birds), "
    "without parts (ablation, rows (a) and (b) [3]).",
    settings={"geometry.init": "silhouettes"},
    files=("umr_jax/init/silhouettes.py",),
  ),
  "upright_cameras": Extension(
    replaces="free rotations",
    brought="Cameras of upright objects 41.5 -> 40.6 degrees with the same seed, and 34.3 with "
    "another (aeroplanes without pose search, ablation [1 and 2]): within seeds.",
    settings={"model.camera_pose": "upright"},
    files=("umr_jax/models/camera_heads.py",),
  ),
  "responsibilities": Extension(
    replaces="the expectation over hypotheses by predicted probabilities, and texture under all",
    brought="Probabilities that learn: the expected loss moves one by next to nothing. Not "
    "measured alone. With pose search, which renders one hypothesis, it has no effect.",
    settings={
      "loss.camera_temperature": 0.01,
      "loss.camera_posterior": 0.5,
      "loss.texture_cameras": "one",
    },
    files=("umr_jax/losses/camera.py", "umr_jax/losses/extensions.py"),
  ),
  "settled_shapes": Extension(
    replaces="the orientation prior and a strong deformation penalty from step 2000 on",
    brought="Shapes are held equal for 300 steps, while cameras settle; the orientation prior had "
    "flattened them (3D IoU 0.143, birds). Free shapes from the first step with pose search: the "
    "same within seeds (ablation [1]).",
    settings={
      "loss.laplacian": 0.07,
      "loss.deformation": 0.05,
      "loss.deformation_start": 200,
      "loss.shape_variance": 5.0,
      "loss.orientation": 0.0,
    },
    files=("umr_jax/losses/shape.py",),
  ),
  "one_network": Extension(
    replaces="a new network in round 2, after one hypothesis in round 1, and round 2's weights",
    brought="Half of the steps: of two rounds within the same 1000 steps, KT by projected flow "
    "0.118 -> 0.148 and cameras 20.7 -> 17.4 degrees (aeroplanes, ablation [1]).",
    settings={"em.restart": False, "em.hypotheses": (8,), "em.later": ()},
  ),
  "photographs": Extension(
    replaces="jittered and mirrored crops alone",
    brought="Colours, backgrounds, rotations and proportions vary, for few images. Not "
    "measured alone.",
    settings={
      "data.jitter": 0.08,
      "data.color_jitter": 0.4,
      "data.background": 0.5,
      "data.rotation": 10.0,
      "data.stretch": 0.1,
    },
    files=("umr_jax/train/augment.py",),
  ),
  # What parts allow.
  "strong_parts": Extension(
    replaces="L_sp with weight 5",
    brought="With its gradient to cameras, which there is no more, 25.2 degrees where 26.2 without "
    "(birds, one run). Not measured alone.",
    settings={"loss.part_probability": 20.0},
  ),
  "visual_hull": Extension(
    replaces="the sphere as initial template; measured against the silhouettes' mean",
    brought="Wings, and cameras before training. Not isolated: from 0.287 to 0.381 in 3D IoU and "
    "24.2 to 16.6 degrees (aeroplanes, [1 and 3]), from 0.525 to 0.537 and 21.8 to 18.4 (birds, "
    "[1 and 3]), but the runs without it also searched cameras anew every 500 steps, "
    "for which there is no setting any more. experiments/results has no row for it.",
    settings={"geometry.init": "visual_hull", "loss.smooth_offsets": True},
    files=(
      "umr_jax/init/hull_search.py",
      "umr_jax/init/visual_hull.py",
      "umr_jax/init/shrink_wrap.py",
    ),
  ),
  "pose_search": Extension(
    replaces="cameras that are learned from hypotheses alone; measured against responsibilities",
    brought="A camera for every training image, found by comparing silhouettes and parts: cameras "
    "40.4 -> 18.4 degrees and 3D IoU 0.438 -> 0.537 (birds), 37.5 -> 16.6 and 0.350 -> 0.381 "
    "(aeroplanes; ablation [2 and 3], rendered under the network's nearest hypothesis). Rendered "
    "under these target cameras themselves, `default` has cameras 11.2 -> 8.9 degrees, 3D IoU "
    "0.558 -> 0.759 and KT by surface 0.448 -> 0.666 (cars), 15.8 -> 12.8, 0.422 -> 0.486 and "
    "0.346 -> 0.396 (aeroplanes), 20.8 -> 19.1, 0.519 -> 0.487 and 0.528 -> 0.540 (birds, "
    "discovered parts); fitted to silhouettes when the template moves, 8.1 (cars) and 11.4 "
    "(aeroplanes). `best` has KT by camera 0.456 -> 0.484 and 3D IoU 0.550 -> 0.514. L_sv, whose "
    "gradient is the cameras' alone, has no effect then.",
    settings={"loss.target_camera": 5.0, "loss.camera_posterior": 2.0},
    files=(
      "umr_jax/init/pose_search.py",
      "umr_jax/losses/extensions.py",
      "umr_jax/em/target_cameras.py",
    ),
  ),
  "view_search": Extension(
    replaces="cameras that are found with parts, within bounds on elevation",
    brought="Cameras without parts, at elevations from -30 to 90. Training images, two seeds: cars "
    "7.8 and 9.1 degrees (0.85 and 0.86 within 30 of the truth), aeroplanes 16.0 and 16.0 (0.78 "
    "and 0.77), birds 18.1 and 18.2 (0.83 and 0.83); with parts, and elevations from -5 to 40, "
    "45.7 (0.28) on cars and 14.0 on aeroplanes. Of horses, all from the side, 0.90 and 0.84 are "
    "found within 10 of it. Real birds are about 50 degrees off.",
    settings={"geometry.init": "view_search", "model.camera_elevation": (-30.0, 90.0)},
    files=(
      "umr_jax/init/view_search.py",
      "umr_jax/init/view_em.py",
      "umr_jax/init/half_turn.py",
      "umr_jax/init/discriminants.py",
      "umr_jax/init/view_calibration.py",
      "umr_jax/models/view_template.py",
    ),
  ),
  "outline": Extension(
    replaces="the silhouettes' overlap alone, which pulls at what is next to its edge",
    brought="Longer wings, tails and legs, for 0.01 to 0.02 of 3D IoU. With the outline in "
    "test-time optimisation too: aeroplanes mask IoU 0.684 -> 0.705, thin recall 0.365 -> 0.413, "
    "KT by surface 0.413 -> 0.437, 3D IoU 0.497 -> 0.483; real birds 0.771 -> 0.782, 0.245 -> "
    "0.317 (precision 0.760 -> 0.726), 0.538 -> 0.565; cars 0.869 -> 0.871, 0.221 -> 0.223, 0.679 "
    "-> 0.663, 3D IoU 0.765 -> 0.743. In test-time optimisation alone: horses 0.779 -> 0.797, thin "
    "recall 0.305 -> 0.410; real birds 0.776 -> 0.784, 0.217 -> 0.276.",
    settings={"loss.outline": 50.0},
    files=("umr_jax/losses/mask.py",),
  ),
  "projected_flow": Extension(
    replaces="a free, symmetric texture flow",
    brought="A flow that starts at the camera's projection; left and right have their own texture. "
    "KT by projected flow 0.283 where a free flow carries 0.262 by flow (birds, ablation [3 and "
    "1]).",
    settings={
      "model.flow": "projected",
      "loss.texture_cameras": "one",
      "geometry.symmetric_texture": False,
      "loss.flow_correction": 10.0,
      "loss.texture_cycle": 50.0,
      "loss.texture_dt": 1.0,
      "em.uv_projection": "camera",
    },
    files=("umr_jax/models/flow.py",),
  ),
  "frozen_encoder": Extension(
    replaces="an encoder that is trained",
    brought="EfficientNet-Lite0's features, which distinguish cameras: cameras 34.4 -> 27.1 "
    "degrees, mask IoU 0.479 -> 0.538, KT by camera 0.188 -> 0.247, 3D IoU 0.339 -> 0.318 in fewer "
    "steps (aeroplanes; a ResNet from nothing before).",
    settings={"model.encoder": "efficientnet"},
    files=(
      "umr_jax/models/frozen.py",
      "umr_jax/models/efficientnet.py",
      "umr_jax/train/replay.py",
    ),
  ),
  "test_time_optimisation": Extension(
    replaces="the network's prediction as it is",
    brought="Shape and camera are fitted to a silhouette that the network predicts: mask IoU 0.775 "
    "-> 0.848, cameras 19.7 -> 17.8 degrees, KT by projected flow 0.368 -> 0.424, 3D IoU 0.497 "
    "-> 0.494 (birds, the same checkpoint). Canonical features, what the encoder sees at each "
    "vertex on average, beside the silhouette (`default`, unseen): real birds KT by surface 0.565 "
    "-> 0.590, by camera 0.520 -> 0.533; cars 8.1 -> 7.3 degrees, KT by surface 0.663 -> 0.675; "
    "birds 18.1 -> 17.7 degrees, 0.73 -> 0.78 within 30, KT by camera 0.482 -> 0.471; aeroplanes "
    "12.4 -> 12.0 degrees, by surface 0.437 -> 0.435; 3D IoU 0.002 to 0.004 less.",
    settings={"loss.segmentation": 1.0, "refine.steps": 100, "loss.mask": 9.0},
    files=(
      "umr_jax/predict/test_time.py",
      "umr_jax/predict/fit_mesh.py",
      "umr_jax/losses/canonical_features.py",
      "umr_jax/em/canonical_features.py",
    ),
  ),
  "one_round": Extension(
    replaces="two rounds with an M-step each, from selected images",
    brought="M-steps of all images, inside of one round. A second round with the same network, "
    "rarer M-steps and selected images: the same within seeds (aeroplanes, ablation [1]). Without "
    "pose search the selected side views made the template thin (birds).",
    settings={
      "em.rounds": 1,
      "em.template_every": 500,
      "em.parts_every": 500,
      "em.top_fraction": 1.0,
    },
    files=("umr_jax/em/plan.py",),
  ),
}
