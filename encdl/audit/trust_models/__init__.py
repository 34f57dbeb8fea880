"""One task under five models of trust: what each costs, who sees what, and whom one must trust."""
