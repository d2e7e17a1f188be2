"""Measured speed and size, each beside the naive way in the same run. Not shipped; needs `make dev-train`."""
