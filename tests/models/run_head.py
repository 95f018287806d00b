"""A head of the network alone, compiled, on made-up features."""

import functools

import jax

from umr_jax.models.initialize import draw_variables

D = 20


def run(head, feature, **options):
  """The head's outputs at its start, and its variables."""
  variables = draw_variables(head, feature, seed=0, **options)
  if "train" in options:
    return apply(head, variables, feature, **options)[0], variables
  return apply(head, variables, feature), variables


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def apply(head, variables, feature, **options):
  return head.apply(variables, feature, mutable=["batch_stats"] if options else False, **options)
