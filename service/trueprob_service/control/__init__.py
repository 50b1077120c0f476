"""Control plane: uploads, fits, promotions and labels, and the database that stores them.

It changes what the data plane answers with through one call, `Deployments.deploy`, and is never on
the path of a prediction.
"""
