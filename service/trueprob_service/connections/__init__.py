"""Limits of connections: what one client can cost the others, in front of everything.

`protocol` holds every connection to the limits; `limits` has their numbers, the answers to those
that are refused, and what all connections of a process share.
"""
