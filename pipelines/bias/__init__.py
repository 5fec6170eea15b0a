"""What a corpus and its filters do to the people it mentions: measured after the stages, from what they stored."""
