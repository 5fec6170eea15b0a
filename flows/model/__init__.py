"""A trained model as files, figures, pages and a card."""
