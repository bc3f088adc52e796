"""Pretrained networks from latents to images, and the small ones that ship with the package."""
