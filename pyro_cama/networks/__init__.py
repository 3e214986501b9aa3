"""Neural networks: features, merges, image encoders and decoders, resampling."""
