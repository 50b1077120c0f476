"""False alarms, delays and detected shifts of the label statistics."""
