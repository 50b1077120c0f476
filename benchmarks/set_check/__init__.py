"""How often the check of a calibration set holds broken sets, and honest ones by mistake."""
