"""Training: a config becomes a record."""
