"""Pretrained networks from latents to images."""
