"""What zeros in probabilities and scores on a wild scale cost, with and without the input stage."""
