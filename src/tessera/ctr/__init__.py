"""Click-through rate over lifelong histories: samples, models that retrieve and refine, their judge."""
