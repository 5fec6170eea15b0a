"""Crawlers that collect text to train models, by their product tokens in robots.txt.

Facts from the operators' own pages and the ai.robots.txt list (MIT). Only training, not search or answers on request:
who shuts out `OAI-SearchBot` has said nothing on training.
"""

AI_TRAINING_AGENTS = (
    "GPTBot",
    "ClaudeBot",
    "anthropic-ai",
    "CCBot",
    "Google-Extended",
    "Applebot-Extended",
    "Bytespider",
    "meta-externalagent",
    "cohere-training-data-crawler",
    "Ai2Bot-Dolma",
)
"""`Ai2Bot-Dolma` has a digit, which RFC 9309 does not allow in a product token; sites write it all the same."""
