"""`corpusmill serve`: a trained model behind OpenAI's completions interface, on this machine, with a small page to try it."""
