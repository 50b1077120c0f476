"""Prometheus metrics of the service, and the counting behind them."""
