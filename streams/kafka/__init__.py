"""Faust and aiokafka live here and nowhere else."""
