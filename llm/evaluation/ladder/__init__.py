"""The ladder of ancestors: what GPT-2 has to beat, from even chances up, each trained on the same tokens and scored alike."""
