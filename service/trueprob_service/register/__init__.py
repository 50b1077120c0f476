"""``trueprob-service register``: any classifier in ONNX becomes a version of the model repository.

`graph` reads the network, `command` asks what only a person can know, `version` calibrates and
writes. The ``onnx`` package is not needed: onnxruntime says what a graph takes and gives.
"""
