"""The mathematics: schedules, noise, bounds, samplers and guidance; tensors in, tensors out."""
