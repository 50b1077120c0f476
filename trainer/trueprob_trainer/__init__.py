"""Offline trainer: from labelled images to a registered, calibrated ONNX model.

Reading order: ``data`` and ``networks`` (what is trained), ``sharpness_aware`` (how), ``train``
(the loop), ``evaluate`` (scores before and after calibration), ``export`` (ONNX with parity) and
``register`` (the version that the service reads). It never imports the service.
"""
