"""How good probabilities are, one score a file."""
