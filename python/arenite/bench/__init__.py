"""arenite measured beside other pools on this machine: `python -m arenite.bench --help`."""
