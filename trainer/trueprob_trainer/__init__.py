"""Offline trainer: from labelled images to a calibrated ONNX model for the service.

- ``data``: labelled images, split into train, calibration and test rows.
- ``networks``: image classifiers by name, with preprocessing inside.
- ``training``: the loop; the optimisers of ``sharpness_aware`` make its steps.
- ``evaluation``: scores before and after calibration, also on shifted and corrupted rows.
- ``export``: the ONNX graph with its parity check, and the registered version.
"""
