"""The models in PyTorch, and `optimize`, which makes them faster for inference."""

from .optimize import optimize as optimize
