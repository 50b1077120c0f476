"""Labels of earlier predictions: which count, what they say, and what follows."""
