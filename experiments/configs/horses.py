"""Real horses: the 263 photographs of `weizmann_horses`, nearly all from the side.

What: silhouettes and pictures only, from an untrained encoder; a seeded fifth is held out.
Hardware and time: 2 CPU cores, about 30 minutes.
Expected: mask IoU 0.70 on the 53 held-out photographs (best constant mask: 0.57).
Data: the environment variable UMR_JAX_DATA names a folder that holds weizmann_horses/.
Command: python -m experiments.train --config=horses
"""

import ml_collections

from umr_jax.config import settings as config


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    config.to_dict(
      config.Config(
        geometry=config.GeometryConfig(
          init="silhouettes", init_width=0.4, level=3, texels_per_side=3, uv_height=32
        ),
        data=config.DataConfig(
          source="folder",
          folder="$UMR_JAX_DATA/weizmann_horses",
          image_size=96,
          jitter=0.08,
          color_jitter=0.4,
          background=0.5,
          rotation=10.0,
          stretch=0.1,
        ),
        model=config.ModelConfig(
          encoder_width=16,
          norm="group",
          camera_pose="upright",
          camera_elevation=(-10.0, 20.0),
          camera_roll=15.0,
          sample_code=False,
        ),
        render=config.RenderConfig(image_size=48, sigma=3e-4),
        loss=config.LossConfig(
          segmentation=1.0,
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
          steps=12_000, learning_rate=7e-4, schedule="cosine", warmup_steps=100, clip_norm=5.0
        ),
        em=config.EMConfig(hypotheses=(2,), restart=False, template_every=2000),
        checkpoint=config.CheckpointConfig(every=500),
        log=config.LogConfig(panel_every=1000),
      )
    )
  )
