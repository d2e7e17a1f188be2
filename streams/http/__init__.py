"""Metrics, health, read API and live page on one port."""
