"""Writes small vision transformers as DINO's files have them."""

import numpy as np
import safetensors.numpy


def write_transformer(path, *, seed):
  """One block of width 64 with patches of 14 pixels."""
  rng = np.random.default_rng(seed)
  shapes = {
    "cls_token": (1, 1, 64),
    "pos_embed": (1, 10, 64),
    "patch_embed.proj.weight": (64, 3, 14, 14),
    "patch_embed.proj.bias": (64,),
    "norm.weight": (64,),
    "norm.bias": (64,),
    "blocks.0.attn.qkv.weight": (192, 64),
    "blocks.0.attn.qkv.bias": (192,),
    "blocks.0.attn.proj.weight": (64, 64),
    "blocks.0.attn.proj.bias": (64,),
    "blocks.0.mlp.fc1.weight": (256, 64),
    "blocks.0.mlp.fc1.bias": (256,),
    "blocks.0.mlp.fc2.weight": (64, 256),
    "blocks.0.mlp.fc2.bias": (64,),
  }
  shapes |= {f"blocks.0.norm{i}.{key}": (64,) for i in (1, 2) for key in ("weight", "bias")}
  state = {k: rng.normal(0.0, 0.1, shape).astype(np.float32) for k, shape in shapes.items()}
  safetensors.numpy.save_file(state, path)
