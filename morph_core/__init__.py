"""Image morphing and point dragging with latent diffusion models, as a plain Python library.

Axes in shapes: B batch, F frames (rows of a batch that are one morph), C channels, H and W pixels or latent
cells, T tokens, D features, S sampling steps. Images are 0..1 and channels-first, latents are scaled as the
UNet takes them and live in sigma space: x = z0 + sigma·noise (see `schedule`). An alpha is a frame's place
between the first image (0) and the second (1).

Nothing here imports ComfyUI, and nothing heavy is imported before it is used.
"""
