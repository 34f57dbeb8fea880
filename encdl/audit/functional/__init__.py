"""What a host without a key can read, and what it learns of the images: readers of functional keys, and decoders."""
