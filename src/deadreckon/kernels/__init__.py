"""The only importers of numba: plain functions over arrays, compiled once and cached."""
