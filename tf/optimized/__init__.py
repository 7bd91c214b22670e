"""The encoders that `optimize` puts in the place of a model's own: for inference alone."""
