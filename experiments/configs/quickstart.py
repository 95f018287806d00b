"""The embedded synthetic birds, from pictures and silhouettes alone.

What: 2000 training pictures; no keypoints, cameras, parts or 3D truth train the network. Not the
  paper's settings: what was measured to find cameras within minutes on a CPU (BUILD_NOTES.md).
Hardware and time: 2 CPU cores, about 13 minutes.
Expected: mask IoU 0.76 and 3D IoU 0.45 on 120 unseen birds (a sphere with the true camera: 0.47 and
  0.295).
Command: python -m experiments.train
"""

import ml_collections

from umr_jax.config import settings as config


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    config.to_dict(
      config.Config(
        geometry=config.GeometryConfig(
          init="silhouettes", level=2, texels_per_side=4, uv_height=32
        ),
        data=config.DataConfig(source="synthetic", image_size=96, train_images=2000),
        model=config.ModelConfig(
          encoder_width=16,
          norm="group",
          camera_pose="upright",
          camera_elevation=(0.0, 40.0),
          sample_code=False,
        ),
        render=config.RenderConfig(image_size=48, sigma=3e-4),
        loss=config.LossConfig(
          texture_cycle=5.0,
          laplacian=0.07,
          deformation=0.05,
          deformation_start=200,
          shape_variance=5.0,
          shape_variance_stop=300,
          orientation=0.0,
          camera_temperature=0.01,
          camera_prior=1.0,
          camera_posterior=0.5,
        ),
        train=config.TrainConfig(
          steps=6000, learning_rate=7e-4, schedule="cosine", warmup_steps=100, clip_norm=5.0
        ),
        em=config.EMConfig(hypotheses=(8,), restart=False, template_every=1000),
        checkpoint=config.CheckpointConfig(every=500),
        log=config.LogConfig(panel_every=500),
      )
    )
  )
