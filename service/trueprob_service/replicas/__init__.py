"""Several processes on one port: a light parent that binds, starts, restarts and ends them.

The parent (`supervisor`) loads no model and answers nothing. Each replica (`replica`) is the whole
service, spawned, on the parent's sockets; what they share is in the database.
"""
