"""A small text-to-image model that is trained on a laptop, and everything that made it.

The modules of the world (``world``, ``drawing``, ``captions``, ``checker``) need NumPy and Pillow
alone; the modules of the model (``tokens``, ``autoencoder``, ``text``, ``denoiser``, ``export``,
``evaluate``) need PyTorch, diffusers and transformers.
"""
