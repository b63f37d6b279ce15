"""The harness: one loop for every generator, and everything around it that a trustworthy run needs."""
