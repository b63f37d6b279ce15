"""Corruptions: how an image is destroyed over time, and the laws that undo a step given an estimate."""
