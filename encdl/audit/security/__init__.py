"""The audit: how secure a trained cipher is, measured like an attacker would."""
