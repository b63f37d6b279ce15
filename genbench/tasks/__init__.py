"""What `task=` can be: each module here has `run(config, typed)`, a function of a resolved configuration."""
