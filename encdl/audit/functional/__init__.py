"""The study of functional keys: accuracy of readers without a key, and attacks on what they see."""
