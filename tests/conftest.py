"""Fixtures for all tests: what is started once a session."""

from tests.support.kafka import apache_kafka, kafka, settings

__all__ = ["apache_kafka", "kafka", "settings"]
