"""Networks run by onnxruntime: their input, their session, their batches."""
