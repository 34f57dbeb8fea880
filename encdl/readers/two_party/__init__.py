"""Two-party reading: host and key server compute a reader's answer on shares, and neither learns the image."""
