"""Checkpoints: names of tensors, reading and writing them, converting between forms, and comparing two models."""
