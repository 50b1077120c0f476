"""The command line of `trueprob`, one command a file."""
