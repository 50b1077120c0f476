"""Control plane: uploads, fits, promotions and labels, and the database that stores them.

It changes the live pair of the data plane through one call, `Deployments.deploy`. No prediction
passes through it.
"""
