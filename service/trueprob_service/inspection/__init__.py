"""Looks at networks that come from outside, in a child process with limits.

`worker` is the child, `limits` what it may use, `inspector` its parent, and `verdicts` remembers
what was found, so that one of several replicas looks and a restart looks at nothing again.
"""
