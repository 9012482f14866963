"""Data on its way into a model: checked samples, batches, preprocessing, synthetic inputs."""
