"""Bytes and containers, below any format."""
