"""The data plane: bytes to arrays, through onnxruntime where needed, to probabilities, to bytes.

No pydantic and no database here: what serves a prediction must go on when either is away.
"""
