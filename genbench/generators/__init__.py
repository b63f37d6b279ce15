"""Generators: what is trained. Each declares its phases; the harness owns the loop."""
