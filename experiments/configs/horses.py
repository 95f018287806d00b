"""Real horses."""

import ml_collections

from umr_jax import config


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    config.to_dict(
      config.Config(
        data=config.DataConfig(
          source="folder", folder="$UMR_JAX_DATA/weizmann_horses", image_size=96
        ),
        model=config.ModelConfig(encoder_width=32),
        train=config.TrainConfig(
          steps=6000, learning_rate=5e-4, schedule="cosine", ema_decay=0.999
        ),
        em=config.EMConfig(hypotheses=(1,), restart=False),
      )
    )
  )
