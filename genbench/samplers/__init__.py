"""Samplers: how images are drawn from a trained model, each needing one capability of it."""
