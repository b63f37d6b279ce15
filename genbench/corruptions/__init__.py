"""Corruptions: how an image is destroyed over time, and the laws that undo one step given an estimate of it."""
