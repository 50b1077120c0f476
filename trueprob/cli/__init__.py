"""The command line: `trueprob fit | apply | evaluate`, one command a file."""
