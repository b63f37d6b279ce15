"""Triton kernels, one file an op; each is imported where a tensor is on a GPU, beside its torch reference."""
