"""Fine-tuning what is released: few layers change, on the encodings that they have, so that the delta stays small."""
