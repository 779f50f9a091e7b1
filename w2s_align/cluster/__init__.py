"""Runs beyond one machine: Slurm jobs and tasks of a Ray cluster."""
