"""Fixtures for all tests: what is started once a session."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the program does; numpy reads it when it is first imported

from tests.support.kafka import apache_kafka, kafka, settings

__all__ = ["apache_kafka", "kafka", "settings"]
