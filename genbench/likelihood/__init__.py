"""Bits per dimension: dequantisation, the probability-flow ODE, the variational bound of diffusion models."""
