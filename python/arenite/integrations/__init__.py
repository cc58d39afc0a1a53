"""What connects arenite to other libraries: `arenite.joblib` and `arenite.dask` are the names for users."""
