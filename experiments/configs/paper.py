"""The paper's network and settings (supplementary 2.2 and 2.3), for a folder of photographs.

What: 256 px, the published ResNet-18 with ImageNet weights, a dense texture stem, a first round
  with one camera from the sphere, a second with a new network, eight cameras, texture under all of
  them, and the semantic terms, with parts that are discovered where the data have none; the
  adversary throughout. The lengths of the rounds are this project's: the paper does not state them.
  Weights are the released code's, which differ from the second round on.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
Data: needs the weights of torchvision's ResNet-18 and AlexNet as local files, by default
  resnet18.pth and alexnet.pth (--config.model.encoder_weights, --config.loss.perceptual_weights).
Expected: not run by this project; the paper reports mask IoU 0.734 on CUB-200-2011.
Command: python -m experiments.train --config=paper --config.data.folder=DIR
"""

import ml_collections

from umr_jax.config import settings as config


def get_config() -> ml_collections.ConfigDict:
  settings = ml_collections.ConfigDict(
    config.to_dict(
      config.Config(
        # The settings that are not named here have the paper's values by default.
        data=config.DataConfig(image_size=256, part_count=4),
        model=config.ModelConfig(
          encoder_width=64, encoder_weights="resnet18.pth", texture_stem="dense"
        ),
        render=config.RenderConfig(sigma=1e-5, dist_eps=1e-10, antialias=2),
        loss=config.LossConfig(
          deformation_start=2000,
          orientation_stop=1000,
          perceptual_weights="alexnet.pth",
          texture_cameras="all",
          part_probability=5.0,
          part_vertices=10.0,
          adversary=1.0,
          adversary_domain="color",
        ),
        train=config.TrainConfig(steps=60_000, batch_size=16, learning_rate=1e-4),
        em=config.EMConfig(
          template_every=2000,
          later=(
            "loss.mask=2.5",
            "loss.flatten=5e-4",
            "loss.deformation=1.0",
            "loss.texture_cycle=1.0",
          ),
        ),
        checkpoint=config.CheckpointConfig(every=1000),
        log=config.LogConfig(panel_every=1000),
      )
    )
  )
  settings.data.source = "folder"  # which one, the command says
  return settings
