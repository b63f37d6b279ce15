"""Runs side by side: in which settings they differ, what they scored and cost, as text and as a picture."""
