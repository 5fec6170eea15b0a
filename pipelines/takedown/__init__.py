"""Taking pages out again: who asked for what and why, what is taken out by it, and the proof that it is gone."""
