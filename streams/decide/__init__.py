"""Decisions: pure functions and in-memory tables. No await, no clock, no I/O; everything comes in as a value."""
