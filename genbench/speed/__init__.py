"""Measurements of speed: always beside something, taking turns, in one run."""
