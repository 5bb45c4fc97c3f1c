"""Image morphing, point dragging and editing with latent diffusion models, as a plain Python library.

Axes in shapes: B batch, F frames (rows of a batch that are one morph), C channels, H and W pixels or latent
cells, T tokens, D features, S sampling steps. Images are 0..1 and channels-first.

alpha           a frame's place between the first image (0) and the second (1)
cell            of a latent (8 pixels of Stable Diffusion) or of a feature map (a quarter of that)
conditional     the prediction with the prompt; unconditional: with the empty or negative one
context         what keys and values of an attention layer are made of
correction      what changes a step's x0 before it is taken
drift           how far a pinned row is from its trajectory
free, pinned    cells or rows that may change, and those that may not
handle, target  where a dragged point is, and where it should be; track: where the handle has been
latent          an image as the VAE encodes it, scaled as the network takes it
layout          where the parts of an image lie
map             attention probabilities of a token, or a network's features
repeat          the F frames once more in a batch, for another prompt
sigma           the noise level; how a latent has noise of it is its `NoiseSchedule`'s
source, target  of an edit: the prediction with the prompt of the image as it is, and with that of what it is to be
trajectory      the latents from an image to its noise that an inversion went through
x0, x           the clean latent, and the one with noise of the current sigma

Nothing here imports ComfyUI, and nothing heavy is imported before it is used.
"""
