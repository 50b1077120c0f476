"""Every method on draws of 20 to 5 000 rows, ours beside those of other packages.

`pools` are the given sets and those that `fresh` trains, `entrants` the methods, `replicates` the
scores with their sampling error, `runs` fits and scores and keeps the results of unchanged code on
disk, `tables` and `goals` say who is ahead.
"""
