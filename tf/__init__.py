"""The models in Keras 3, and `optimize`, which makes them faster for inference."""

from .optimize import optimize as optimize
