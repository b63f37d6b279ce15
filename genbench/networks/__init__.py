"""Networks: what a generator wraps. Each is an `nn.Module` that knows of no loss, time grid or sampler."""
