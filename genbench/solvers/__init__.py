"""Samplers beside each other: how far from the law they should draw from, for how many evaluations."""
