"""Measures arenite and other pools on this machine: `python -m arenite.bench --help`."""
