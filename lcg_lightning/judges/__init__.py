"""Image networks that judge attributes and identity."""
