"""The demonstration: embedded broker, a worker as a real process, a replay, and what it shows."""
