"""f-divergences, their variational bounds, and how a critic's output becomes the bound's two terms."""
