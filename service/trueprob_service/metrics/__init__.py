"""What Prometheus is told, and what it is counted from."""
