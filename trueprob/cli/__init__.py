"""The command line: `trueprob fit | apply | evaluate | plot | inspect`, one command a file."""
