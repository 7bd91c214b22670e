"""The models in Keras 3."""
