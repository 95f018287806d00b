"""Endings of a run that a launcher turns into exit codes."""


class Preempted(Exception):  # noqa: N818 (it is no error)
  """The run was told to stop, saved itself, and goes on when the same command is given again."""
