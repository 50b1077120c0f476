"""The command `trueprob`, with one module for each subcommand."""
