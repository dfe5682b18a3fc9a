"""Click-through models, one a file, each with its source in docs/systems/lifelong_ctr.md."""
