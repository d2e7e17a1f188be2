"""Coldstream: the streaming recommender service."""
