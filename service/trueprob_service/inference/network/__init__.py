"""A network in onnxruntime: its input, its session, its batches."""
