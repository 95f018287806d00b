"""What each preset is for, what it needs, and what to expect of it."""

_CATEGORIES = """\
Data: the environment variable UMR_JAX_DATA names the folder that holds them; what can be fetched
  is (cub: CUB_200_2011/, 1.2 GB; car, motorbike: PASCAL3D+_release1.1/, 7.5 GB, with VOC 2012 up to
  9.5, and the silhouettes of ImageNet's images, Masks/, from the user; penguin: openimages/,
  several GB); horse, cow, zebra: imagenet/ (see umr_jax/data/imagenet.py). Without a category,
  --config.data.folder=DIR. The weights of torchvision's ResNet-18 and AlexNet as local files
  (--config.model.encoder_weights, --config.loss.perceptual_weights).
"""

DOCS = {
  "default": """\
A folder of your own photographs with silhouettes, segmented into parts that they share.

What: everything that `best` has, for objects of any shape that are upright in their photographs.
  The parts are the folder's own (parts/NAME.npz) where it has any, and discovered otherwise.
Hardware and time: one CPU core, 5 GB of memory; for 263 horses 21 minutes beside other programs,
  parts found before.
Expected: that depends on the photographs; 53 unseen horses of 263: mask IoU 0.799.
Needs: the extra `features` (requirements.txt has it), as `best` does.
Command: python -m experiments.train --config=default --config.data.folder=DIR --workdir=runs/NAME
""",
  "quickstart": """\
The embedded synthetic birds, from images and silhouettes alone.

What: 2000 training images; no keypoints, cameras, parts or 3D truth train the network. Not the
  paper's settings: what was measured to find cameras within minutes on a CPU (BUILD_NOTES.md).
Hardware and time: 2 CPU cores, 13 to 21 minutes.
Expected: 120 unseen birds: mask IoU 0.760, 3D IoU 0.465 (a sphere with the true camera: 0.474 and
  0.295), cameras 41 degrees.
Command: python -m experiments.train
""",
  "best": """\
What measured best here: the paper with all of its extensions, on the embedded birds.

What: the synthetic birds with their true part maps. Parts are what the method needs; the paper's
  come from another network. A folder with part maps (or with keypoints and
  --config.data.parts=keypoints) is read by --config.data.source=folder.
Hardware and time: one of 2 CPU cores, 29 to 42 minutes beside other programs.
Expected: mask IoU 0.847, 3D IoU 0.514, cameras 16.5 degrees; 0.608 of keypoints arrive by surface.
Needs: the extra `features` (requirements.txt has it), or a file (model.encoder_weights); without,
  --config.model.encoder=resnet18, which is not measured.
Command: python -m experiments.train --config=best
""",
  "planes": """\
Rendered aeroplanes with 3D truth, from images and silhouettes alone: the project's yardstick.

What: 600 images of 60 models; the 150 test images show 16 models that were never shown. Parts are
  discovered, then as `best`. --config.data.parts=keypoints makes part maps of the training split's
  keypoints: an upper reference, never to be quoted as the method.
Hardware and time: one of 2 CPU cores, 25 minutes, parts found before.
Expected: mask IoU 0.675, 3D IoU 0.492, cameras 13.2 degrees.
Data: the environment variable UMR_JAX_DATA names a folder that holds planes/.
Command: python -m experiments.train --config=planes
""",
  "paper": f"""\
The paper, which is Config(): never run to its end here, for want of several GPUs and its data.

What: 256 px, the published ResNet-18 with ImageNet weights, a dense texture stem, two rounds of an
  E-step and an M-step, the first with one camera from the sphere, the second with a new network,
  eight cameras and texture under all of them; the semantic terms, with parts that are discovered
  where the data have none; the adversary throughout. Weights are the released code's, which differ
  from the second round on; that of the edge regularisation and the lengths of the rounds are this
  project's, for the paper does not state them.
Hardware and time: one or several GPUs, a day or two; not for a CPU.
{_CATEGORIES}Expected: not run by this project. The paper reports on CUB mask IoU 0.734,
  keypoint transfer 0.512 by camera and 0.582 by flow, with its own part segmentation.
Command: python -m experiments.train --config=paper:cub; beside the published figures,
  python -m experiments.reproduce --dataset=cub
""",
  "released": f"""\
`paper` with what the released code does otherwise; never run to its end here, as `paper`.

What: the entropy of the hypotheses' probabilities is pushed down; the eight hypotheses start
  together, where the code stores turns that would spread them and never applies them; there is no
  edge regularisation; the template moves every five epochs of the first round, and stays in the
  second until its end; the semantic weights are those with which this package's terms are as large
  as the code's. What still differs from the code: the adversary compares colours in both rounds,
  where the code has silhouettes in the first; an M-step follows the second round, where the code
  ends. Not repeated are errors that depend on its files (weights of two parts of its own
  segmentation), that only add noise (a sampled camera and code in evaluation) or that are plain
  (texel layout, face statistics, a template that moves twice).
Hardware and time: one or several GPUs, a day or two; not for a CPU.
{_CATEGORIES}Expected: not run by this project.
Command: python -m experiments.train --config=released:cub
""",
}
