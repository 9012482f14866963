"""Data on its way into a model: checked samples, batches, the split, preprocessing, synthetic inputs."""
