"""Replay a data set through the functions that serve, and measure: test, then learn."""
