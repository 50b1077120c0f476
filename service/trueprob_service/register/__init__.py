"""``trueprob-service register``: adds an ONNX classifier to the model repository.

`graph` inspects the network (`pictures` its input, if it takes images), `command` asks the user for
what the graph does not specify, and `version` calibrates and writes. The ``onnx`` package is not
needed: onnxruntime reports the inputs and outputs of a graph.
"""
