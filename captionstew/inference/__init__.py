"""Trained models on audio files: embeddings, captions, search, labels."""
