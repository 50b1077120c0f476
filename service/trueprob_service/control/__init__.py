"""Control plane: what the service learns and decides, and the database that remembers it.

Uploads, fits, promotions and labels. It changes what the data plane answers with through one
call, `Deployments.deploy`, and is never on the path of a prediction.
"""
